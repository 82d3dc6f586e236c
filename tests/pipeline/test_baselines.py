"""Baselines of real texts: made once and kept, with a teacher's labels where they have some."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.evaluation.recipes import FineTuner, Recipe
from jaxdistill.io.distilled import load_distilled
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods import registry
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.registry import method_named
from jaxdistill.methods.teacher_labels import TeacherLabels
from jaxdistill.pipeline.baselines import baseline_outcomes
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare

NAMES = ("random", "el2n", "teacher_labels")
CONFIG = ExperimentConfig(
    task=TaskConfig(name="toy/reviews", max_length=32),
    learner=LearnerConfig(name="tiny"),
    method="k_center",
    settings=Coreset(per_class=2),
    evaluation=EvaluationConfig(baselines=NAMES, recipe=Recipe(steps=3)),
)


@pytest.fixture(scope="module")
def problem():
    """With short splits to score on."""
    whole = prepare(CONFIG.task, CONFIG.learner)
    few = {
        name: encode(getattr(whole.data, name).take(np.arange(30)), whole.pretrained.tokenizer, 32)
        for name in ("dev", "test")
    }
    return dataclasses.replace(whole, **few)


@pytest.fixture
def trained_on(monkeypatch):
    """The first batch of every fine-tuning."""
    seen = []
    call = FineTuner.__call__

    def record(self, start, batches, key, **keywords):
        seen.append(batches(0))
        return call(self, start, batches, key, **keywords)

    monkeypatch.setattr(FineTuner, "__call__", record)
    return seen


def test_a_teachers_labels_are_made_once_and_trained_on(problem, trained_on, tmp_path, monkeypatch):
    """An evaluation that is taken up again finds the set; students of dev and test train by the run's own recipe."""
    method = method_named("teacher_labels")
    quick = method._replace(config=lambda: TeacherLabels(epochs=(0.05,), students=1))
    monkeypatch.setitem(registry.METHODS, "teacher_labels", quick)
    evaluator = Evaluator(problem, named_key(CONFIG.seed, "evaluate"))
    folder = Workdir(tmp_path)

    def outcomes(numbers):
        made = baseline_outcomes("teacher_labels", CONFIG, problem, evaluator, folder, lambda: False, numbers)
        return list(made)

    first = outcomes(range(1))
    kept = load_distilled(tmp_path / "baselines" / "teacher_labels")
    assert kept.manifest["selection"]["recipe"]["steps"] == 3
    assert len(trained_on) == 4, "teacher, a student of each of two candidates on dev, one on test"
    failing = quick._replace(distill=lambda *arguments, **keywords: pytest.fail("the set was made again"))
    monkeypatch.setitem(registry.METHODS, "teacher_labels", failing)
    second = outcomes(range(1, 2))
    assert outcomes(range(2)) == first + second
    for batch in trained_on[3:]:
        np.testing.assert_array_equal(np.sort(batch.labels, axis=0), np.sort(kept.soft_labels, axis=0))
    random = method_named("random")
    key = named_key(CONFIG.seed, "baseline/random/0")
    assert kept.texts == random.distill(random.config(per_class=2), problem, key=key, run=Run()).texts
    other = dataclasses.replace(CONFIG, settings=Coreset(per_class=3))
    with pytest.raises(UserError, match="config.per_class is 2; expected 3"):
        baseline_outcomes("teacher_labels", other, problem, evaluator, folder, lambda: False, range(1))


def test_random_texts_are_new_for_each_learner_and_not_kept(problem, trained_on, tmp_path):
    evaluator = Evaluator(problem, named_key(CONFIG.seed, "evaluate"))
    list(baseline_outcomes("random", CONFIG, problem, evaluator, Workdir(tmp_path), lambda: False, range(2)))
    one, other = (np.sort(np.asarray(batch.token_ids), axis=0) for batch in trained_on)
    assert not np.array_equal(one, other) and trained_on[0].labels.dtype == np.int32
    assert not (tmp_path / "baselines").exists()


def test_a_stop_ends_the_making_of_a_set(problem, tmp_path):
    evaluator = Evaluator(problem, jax.random.key(0))
    with pytest.raises(Stopped, match="stopped while scoring texts by el2n"):
        baseline_outcomes("el2n", CONFIG, problem, evaluator, Workdir(tmp_path), lambda: True, range(1))
    assert not (tmp_path / "baselines").exists()


def test_every_baseline_can_be_asked_for():
    assert EvaluationConfig(baselines=registry.BASELINES).baselines == registry.BASELINES
    # These need to be told who writes.
    makers = {name for name, method in registry.METHODS.items() if method.makes_texts}
    assert set(registry.BASELINES) == makers - {"dilm", "gradmm", "dallme"}
    with pytest.raises(UserError, match="unknown baseline 'el2m': accepted are random, .*el2n, .*teacher_labels"):
        EvaluationConfig(baselines=("el2m",))
