"""Other learners on the sets of a run: what they train on, what a result says of them, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.encoding import encode
from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.evaluation.report_sections import target_table
from jaxdistill.evaluation.statistics import crossed_difference
from jaxdistill.io.distilled import save_distilled
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods.base import Run
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline import evaluate_folder as folder_module
from jaxdistill.pipeline.baselines import baseline_outcomes
from jaxdistill.pipeline.config import (
    EvaluationConfig,
    ExperimentConfig,
    LearnerConfig,
    TaskConfig,
    WordsConfig,
    smoke,
)
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.learner_targets import learner_config
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.scores import Scores, values
from jaxdistill.pipeline.targets import check_targets, score_targets, target_lines, target_notes
from jaxdistill.pipeline.text_sources import run_sources
from jaxdistill.pipeline.training import text_split

TASK, TINY = TaskConfig(name="toy/reviews", max_length=16), LearnerConfig(name="tiny", words=WordsConfig("tiny"))
TARGETS = ("tiny:gpt2", "linear_svm/tfidf", "tiny", "text_cnn")
FOLDER, NEVER = Workdir(Path("unused")), lambda: False


def silent(line: str) -> None:
    pass


def config(**changes) -> ExperimentConfig:
    evaluation = {
        "students": 2, "baselines": ("random",), "baseline_students": 2, "recipe": Recipe(steps=6, lr=0.03, warmup=0.0),
        "full_epochs": 0.0, "targets": TARGETS, "target_seeds": 2,
    }  # fmt: skip
    evaluation = EvaluationConfig(**evaluation | changes)
    return ExperimentConfig(
        task=TASK, learner=TINY, method="herding", settings=Coreset(per_class=3, pool=20), evaluation=evaluation
    )


@pytest.fixture(scope="module")
def problem():
    """With short splits."""
    whole = prepare(TASK, TINY)
    splits = {name: getattr(whole.data, name).take(np.arange(40)) for name in ("train", "dev", "test")}
    encoded = {name: encode(split, whole.pretrained.tokenizer, 16) for name, split in splits.items()}
    return dataclasses.replace(whole, data=dataclasses.replace(whole.data, **splits), **encoded)


@pytest.fixture(scope="module")
def sets(problem):
    keys = (named_key(seed, "distill") for seed in range(2))
    settings = Coreset(per_class=3, pool=20)
    return [method_named("herding").distill(settings, problem, key=key, run=Run(say=silent)) for key in keys]


@pytest.fixture(scope="module")
def scored(problem, sets):
    """(entries, seconds)."""
    kept, cell = Scores(), config()
    return score_targets(cell, problem, *run_sources(cell, problem, sets, FOLDER, NEVER), kept), kept.seconds


def test_the_learner_of_the_run_scores_as_in_the_run(scored, problem, sets):
    """The same heads on the same texts in the same order, for the method and for `random`."""
    (entries, _), cell = scored, config()
    evaluator, recipe = Evaluator(problem, named_key(0, "evaluate")), cell.evaluation.recipe
    own = [values(list(evaluator.by_recipe("x", lambda i, s=s: text_split(s), recipe, range(2)))) for s in sets]
    random = values(list(baseline_outcomes("random", cell, problem, evaluator, FOLDER, NEVER, range(2))))
    entry = entries["tiny"]
    assert len(set(entry["test"]["values"])) > 1
    np.testing.assert_allclose(entry["test"]["values"], 100 * np.ravel(own))
    np.testing.assert_allclose(entry["baselines"]["random"]["values"], 100 * np.array(random))
    assert entry["paired"]["random"]["mean"] == pytest.approx(crossed_difference(own, random).to_json()["mean"])
    base = problem.base()
    assert entry["parameters"] == sum(leaf.size for leaf in jax.tree.leaves((base.trainable, base.frozen)))


def test_every_kind_of_model_has_a_row(scored, problem):
    entries, seconds = scored
    assert tuple(entries) == TARGETS
    for name, entry in entries.items():
        learner = name != "linear_svm/tfidf"
        assert entry["test"]["n"] == (4 if learner else 2) and entry["baselines"]["random"]["n"] == 2
        assert ("parameters" in entry) == learner
        assert all(0 <= value <= 100 for value in entry["test"]["values"])
        assert seconds[f"{name}/herding/0"] > 0 and seconds[f"{name}/random"] > 0
    assert entries["tiny:gpt2"]["parameters"] < entries["tiny"]["parameters"]
    notes = target_notes(config(), problem, entries)
    assert "tiny:gpt2: the tiny model is random, not pretrained" in notes
    result = {"method": "herding", "targets": entries, "seconds": seconds}
    lines, page = target_lines(result), target_table(result)
    for name, entry in entries.items():
        line = next(line for line in lines if line.startswith(f"  {name}: herding {entry['test']['mean']:.1f}"))
        assert line.endswith(" s a training")
        if "parameters" in entry:
            assert f"{entry['parameters']:,} parameters" in line and f"<td>{entry['parameters']:,}</td>" in page
    assert "<th>herding minus random</th>" in page


def test_scores_that_are_there_are_not_taken_again(scored, problem, sets, monkeypatch):
    entries, _ = scored
    cell, kept = config(targets=("tiny",)), Scores()
    sources = run_sources(cell, problem, sets, FOLDER, NEVER)
    assert score_targets(cell, problem, *sources, kept) == {"tiny": entries["tiny"]}
    monkeypatch.setattr(Evaluator, "by_recipe", lambda *arguments, **options: pytest.fail("trained again"))
    assert score_targets(cell, problem, *sources, kept) == {"tiny": entries["tiny"]}


def test_a_folder_beside_random_subsets_of_its_size(scored, problem, sets, tmp_path, monkeypatch):
    entries, _ = scored
    save_distilled(tmp_path / "set", sets[0])
    monkeypatch.setattr(folder_module, "prepare", lambda task, learner: problem)
    cell = dataclasses.replace(config(targets=("tiny",)), method="attention_label", settings=None)
    lines = []
    result = folder_module.evaluate_folder(tmp_path / "set", cell, say=lines.append)
    entry = result["targets"]["tiny"]
    assert entry["test"]["values"] == entries["tiny"]["test"]["values"][:2] == result["values"]
    assert entry["baselines"] == entries["tiny"]["baselines"] and "random" in entry["paired"]
    assert any(line.startswith("  tiny: distilled set ") and "parameters" in line for line in lines)


def test_full_data_by_its_own_recipe(problem, monkeypatch):
    asked = []
    monkeypatch.setattr(Evaluator, "full", lambda self, *arguments: asked.append(arguments) or iter(()))
    cell = config(targets=("tiny",), baselines=(), full_epochs=0.5, full_students=3)
    _, (full,) = run_sources(cell, problem, [], FOLDER, NEVER)
    assert full.everything and full.trainings(True) == 3 and full.trainings(False) == 1
    with pytest.raises((ValueError, IndexError)):  # there is nothing to summarise
        score_targets(cell, problem, [], [full], Scores())
    assert asked == [(0.5, cell.evaluation.full_lr, range(3))]


def test_settings_of_a_target():
    learner = LearnerConfig(name="minilm", trainable="last_k:2", dtype="bfloat16", words=WordsConfig("tiny"))
    assert learner_config("tiny:opt", learner) == LearnerConfig(name="tiny:opt", dtype="bfloat16", words=learner.words)
    assert learner_config("bi_lstm", learner) == LearnerConfig(name="bi_lstm", words=learner.words)
    sentences = LearnerConfig(name="mlp", words=WordsConfig("sentences:minilm"))
    assert learner_config("text_cnn", sentences).words == WordsConfig()
    assert smoke(config(targets=("somebody/model",))).evaluation.targets == ("tiny",)
    assert smoke(config(targets=("tiny:gpt2", "tiny"))).evaluation.targets == ("tiny:gpt2",)


def test_what_cannot_be_trained_is_refused(problem, tmp_path):
    with refused("target 'tiny:mamba': model 'tiny:mamba': no such family; accepted behind tiny: are bert, roberta"):
        check_targets(("tiny:mamba",), problem, "random", True)
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with refused("model_type 'mamba' is not supported"):
        check_targets((str(tmp_path),), problem, "random", True)
    with refused("neither a folder nor in the local cache"):
        check_targets(("linear_sum",), problem, "random", True)
    with refused("evaluation.targets train on texts, but 'x' gives vectors"):
        check_targets(("tiny",), problem, "x", False)
    task = dataclasses.replace(problem.data.task, vector_format="npy")
    vectors = dataclasses.replace(problem, data=dataclasses.replace(problem.data, task=task))
    with refused("target 'tiny' reads texts, but toy/reviews is of vectors"):
        check_targets(("tiny",), vectors, "random", True)
    with refused("evaluation.targets holds an empty name"):
        EvaluationConfig(targets=("",))
