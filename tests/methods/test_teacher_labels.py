"""Soft labels of an early-stopped teacher: whose texts, whose labels, which candidate, and what is kept of it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.recipes import Recipe, full_data_recipe
from jaxdistill.evaluation.scoring import Score
from jaxdistill.io.distilled import load_distilled, save_distilled
from jaxdistill.io.plain import plain
from jaxdistill.methods import teacher_labels
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.registry import method_named
from jaxdistill.methods.teacher_labels import Candidate, TeacherLabels, best_of, soft_labels
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.training import training_plan

CONFIG = TeacherLabels(per_class=2, epochs=(0.05, 0.2), temperatures=(1.0, 3.0), students=2, lr=1e-3)
KEY, RECIPE = jax.random.key(3), Recipe(steps=4, lr=1e-3)


def distill(problem, config=CONFIG, **run):
    return teacher_labels.distill(config, problem, key=KEY, run=Run(recipe=RECIPE, say=lambda line: None, **run))


@pytest.fixture(scope="module")
def made(toy_problem):
    return distill(toy_problem)


def test_soft_labels_of_hand_made_logits():
    logits = np.log(np.array([[0.81, 0.09], [0.25, 0.25]], np.float32))
    np.testing.assert_allclose(soft_labels(logits, 1.0), [[0.9, 0.1], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(soft_labels(logits, 2.0), [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    assert soft_labels(logits, 2.0).dtype == np.float32


def test_the_best_candidate():
    def number(*pairs):
        return best_of([Candidate(1.0, 1.0, score, loss) for score, loss in pairs])

    assert number((0.5, 0.1), (0.7, 0.9), (0.6, 0.0)) == 1
    assert number((0.7, 0.9), (0.7, 0.4), (0.7, 0.6)) == 1, "of equal scores the least loss"
    assert number((0.7, 0.4), (0.7, 0.4)) == 0, "of equals the first"
    assert number((0.0, np.inf), (0.0, 0.7)) == 1


def test_texts_are_those_of_random_with_the_same_key(made, toy_problem):
    method = method_named("random")
    random = method.distill(method.config(per_class=2), toy_problem, key=KEY, run=Run())
    assert made.texts == random.texts
    np.testing.assert_array_equal(made.labels, random.labels)


def test_the_selection_is_written_down(made):
    selection = made.manifest["selection"]
    assert [(c["epoch"], c["temperature"]) for c in selection["candidates"]] == [
        (0.05, 1.0), (0.05, 3.0), (0.2, 1.0), (0.2, 3.0),
    ]  # fmt: skip
    scores = [c["score"] for c in selection["candidates"]]
    best = selection["candidates"][best_of([Candidate(**c) for c in selection["candidates"]])]
    assert selection["score"] == max(scores) == best["score"]
    assert (selection["epoch"], selection["temperature"]) == (best["epoch"], best["temperature"])
    assert (selection["split"], selection["by"], selection["students"]) == ("dev", "metric", 2)
    assert selection["recipe"] == RECIPE
    assert [t["epoch"] for t in selection["teacher"]] == [0.05, 0.2]
    assert made.manifest["cost"]["real_examples"] == 32 * selection["teacher"][1]["step"]
    spent = selection["teacher_seconds"] + selection["students_seconds"]
    np.testing.assert_allclose(made.manifest["cost"]["distill_seconds"], spent)


def test_a_fake_dev_decides_and_the_test_split_is_not_read(toy_problem, monkeypatch):
    """The labels of the candidate that a made-up dev prefers, asked of a teacher trained anew to that point."""
    points = iter((6, 8, 9, 7))

    def fake(*arguments):
        right = next(points)
        return Score(np.array([[right, 10 - right], [0, 10]]), np.float32(3.0))

    monkeypatch.setattr(teacher_labels, "_students", fake)
    blind = dataclasses.replace(toy_problem, test=None)
    found = distill(blind)
    selection = found.manifest["selection"]
    assert (selection["epoch"], selection["temperature"], selection["score"]) == (0.2, 1.0, 0.95)
    np.testing.assert_allclose([c["score"] for c in selection["candidates"]], [0.8, 0.9, 0.95, 0.85])
    np.testing.assert_allclose([c["loss"] for c in selection["candidates"]], 0.15)

    steps = round(0.2 * len(toy_problem.train) / 32)
    assert selection["teacher"][1]["step"] == steps
    teacher_key, _ = jax.random.split(jax.random.split(KEY)[1])
    trainer, recipe = toy_problem.trainer(), full_data_recipe(steps, CONFIG.lr, 32)
    teacher = trainer.on_split(toy_problem.train, recipe, teacher_key)
    encoded = encode(Split(found.texts, found.labels), toy_problem.pretrained.tokenizer, 32)
    apply = jax.jit(trainer.learner(recipe).apply)
    logits = apply(teacher, pad(encoded, np.arange(4), length=32)).logits
    np.testing.assert_allclose(found.soft_labels, jax.nn.softmax(logits), atol=1e-5)


def test_saved_loaded_evaluated(made, toy_problem, tmp_path):
    save_distilled(tmp_path / "set", made)
    loaded = load_distilled(tmp_path / "set", expect={"config": plain(CONFIG)})
    np.testing.assert_array_equal(loaded.soft_labels, made.soft_labels)
    np.testing.assert_allclose(loaded.soft_labels.sum(axis=1), 1, rtol=1e-6)
    assert loaded.manifest["selection"] == plain(made.manifest["selection"])
    few = toy_problem.data.test.take(np.arange(40))
    small = dataclasses.replace(toy_problem, test=encode(few, toy_problem.pretrained.tokenizer, 32))
    plan = training_plan(loaded, small, "auto")
    assert plan.spec is None
    evaluator = Evaluator(small, named_key(0, "evaluate"))
    scores = [list(evaluator.by_plan("set", s, plan, RECIPE, range(2))) for s in (made, loaded)]
    assert scores[0] == scores[1] and not scores[0][0].diverged


def test_small_networks_have_teachers_too():
    words = WordsConfig(vectors="tiny")
    problem = prepare(TaskConfig(name="toy/reviews", max_length=16), LearnerConfig(name="text_cnn", words=words))
    config = TeacherLabels(epochs=(0.1,), temperatures=(2.0,), students=1)
    first = distill(problem, config, full_lr=0.01)
    assert first.manifest["selection"]["teacher_recipe"].lr == 0.01
    assert first.soft_labels.shape == (2, 2) and (first.soft_labels > 0).all()
    assert first.manifest["selection"]["temperature"] == 2.0 and len(first.manifest["selection"]["candidates"]) == 1


def test_a_stop_is_heard(toy_problem):
    with pytest.raises(Stopped, match="stopped while training the teacher or its students"):
        distill(toy_problem, stop=lambda: True)


def test_a_teacher_that_diverges_is_said(toy_problem, monkeypatch):
    monkeypatch.setattr(teacher_labels, "read_texts", lambda *arguments, **keywords: np.full((4, 2), np.nan))
    with pytest.raises(UserError, match=r"the teacher diverged within 0.05 epochs: lower its lr, now 0.001"):
        distill(toy_problem)


def test_nothing_to_begin_with(toy_problem):
    with pytest.raises(UserError, match="'teacher_labels' has no outer step"):
        method_named("teacher_labels").initial(CONFIG, toy_problem, KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_class": 0}, "per_class is 0: it must be at least 1"),
        ({"students": 0}, "students is 0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"epochs": ()}, "epochs is (): accepted is one number above 0, or several"),
        ({"epochs": (0.5, -1.0)}, "epochs is (0.5, -1.0): accepted is one number above 0"),
        ({"temperatures": (0.0,)}, "temperatures is (0.0,): accepted is one number above 0"),
        ({"lr": float("nan")}, "lr is nan: accepted is a number from 0"),
    ],
)
def test_bad_settings(changes, message):
    with refused(message):
        TeacherLabels(**changes)
