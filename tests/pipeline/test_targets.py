"""Models that are not neural in the pipeline: what they train on, what a result says of them, going on, refusing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.evaluation import text_models
from jaxdistill.evaluation.metrics import accuracy
from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.evaluation.statistics import crossed_difference
from jaxdistill.evaluation.text_models import counts, target_named, train
from jaxdistill.evaluation.tfidf import Tfidf
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline import evaluate_folder as folder_module
from jaxdistill.pipeline import run
from jaxdistill.pipeline import targets as pipeline_targets
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, smoke
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.overrides import override
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.result import summary
from jaxdistill.pipeline.run import run_experiment
from jaxdistill.pipeline.scores import Scores
from jaxdistill.pipeline.targets import Trainer, check_targets, score_targets, target_lines, target_notes
from jaxdistill.pipeline.text_sources import LabelledTexts, Source, run_sources

TASK, TINY = TaskConfig(name="toy/reviews", max_length=32), LearnerConfig(name="tiny")
# No baseline but `random`, of which nothing is kept.
UNUSED = (Workdir(Path("unused")), lambda: False)
TARGETS = ("logistic_regression/tfidf", "random_forest/tfidf_train", "naive_bayes/encoder")


def silent(line: str) -> None:
    pass


def config(method: str = "herding", **changes) -> ExperimentConfig:
    evaluation = {
        "students": 2, "baselines": ("random",), "baseline_students": 2, "recipe": Recipe(steps=1), "full_epochs": 0.0,
        "targets": TARGETS, "target_seeds": 3,
    }  # fmt: skip
    settings = Coreset(per_class=5, pool=40)
    return ExperimentConfig(
        task=TASK, learner=TINY, method=method, settings=settings, evaluation=EvaluationConfig(**evaluation | changes)
    )


@pytest.fixture(scope="module")
def whole():
    return prepare(TASK, TINY)


@pytest.fixture(scope="module")
def problem(whole):
    """With short splits: most of what is tested here does not take many texts."""
    train, test = whole.data.train.take(np.arange(300)), whole.data.test.take(np.arange(60))
    data = dataclasses.replace(whole.data, train=train, test=test)
    encoded = (encode(split, whole.pretrained.tokenizer, 32) for split in (train, test))
    return dataclasses.replace(whole, data=data, **dict(zip(("train", "test"), encoded, strict=True)))


@pytest.fixture(scope="module")
def sets(problem):
    keys = (named_key(seed, "distill") for seed in range(2))
    settings = Coreset(per_class=5, pool=40)
    return [method_named("herding").distill(settings, problem, key=key, run=Run(say=silent)) for key in keys]


def scored(problem, sets, kept=None, **changes):
    cell = config(**changes)
    return score_targets(cell, problem, *run_sources(cell, problem, sets, *UNUSED), kept or Scores())


@pytest.fixture(scope="module")
def entries(problem, sets):
    return scored(problem, sets)


def test_each_score_is_that_of_the_model_on_the_texts(entries, problem, sets):
    """Logistic regression on words, put together by hand: of the sets, and of the random subsets of the learners."""

    def score(distilled):
        words = Tfidf(distilled.texts)
        predict = train("logistic_regression", words(distilled.texts), distilled.labels)
        test = problem.data.test
        return 100 * accuracy(counts(test.labels, predict(words(test.texts)), 2))

    entry = entries["logistic_regression/tfidf"]
    assert entry["test"]["values"] == pytest.approx([score(distilled) for distilled in sets])
    keys = [named_key(0, f"baseline/random/{draw}") for draw in range(3)]
    subsets = [
        method_named("random").distill(Coreset(per_class=5), problem, key=key, run=Run(say=silent)) for key in keys
    ]
    assert entry["baselines"]["random"]["values"] == pytest.approx([score(subset) for subset in subsets])


def test_a_model_without_randomness_is_trained_once_a_set(entries):
    assert list(entries) == list(TARGETS)
    sizes = {name: (entry["test"]["n"], entry["baselines"]["random"]["n"]) for name, entry in entries.items()}
    assert sizes == dict(zip(TARGETS, [(2, 3), (6, 3), (2, 3)], strict=True))
    for entry in entries.values():
        assert entry["test"]["clustered"] and entry["test"]["seeds"] == 2 and entry["also"] == {}
        assert all(0 <= value <= 100 for value in entry["test"]["values"])


def test_differences_cross_sets_and_trainings(entries):
    for name in TARGETS:
        entry = entries[name]
        base = np.divide(entry["baselines"]["random"]["values"], 100)
        own = np.broadcast_to(np.divide(entry["test"]["values"], 100).reshape(2, -1), (2, 3))
        expected = crossed_difference(own, base).to_json()
        assert entry["paired"]["random"]["mean"] == pytest.approx(expected["mean"])
        np.testing.assert_allclose(entry["paired"]["random"]["ci95"], expected["ci95"])


@pytest.mark.parametrize(
    "own, base, values",
    [
        ([[0.5]], [0.25, 0.5, 0.75], [0.25, 0.0, -0.25]),
        ([[0.5, 0.75]], [0.25], [0.25, 0.5]),
        ([[0.5, 0.75, 1.0]], [0.25, 0.25], [0.25, 0.5]),
        ([[0.5], [0.75]], [0.25], [0.25, 0.5]),
        ([[0.5]], [0.25], None),
    ],
)
def test_a_difference_needs_something_that_varies(own, base, values):
    found = pipeline_targets._difference(own, base)
    if values is None:
        assert found is None
    else:
        assert [value for row in found.values for value in row] == values
        assert found.mean == pytest.approx(np.mean(values)) and found.ci95 is not None


def test_an_interrupted_evaluation_goes_on_to_the_same_bits(entries, problem, sets, tmp_path, monkeypatch):
    """Stopped before the fifth training and before the fifteenth; what is scored is not trained again."""
    cell = config()
    sources = run_sources(cell, problem, sets, *UNUSED)
    path, asked = tmp_path / "scores.json", []
    for number in (5, 15):
        asked.clear()
        with pytest.raises(Stopped, match="stopped while evaluating on test of toy/reviews"):
            stop = lambda n=number: asked.append(1) or len(asked) == n  # noqa: E731
            score_targets(cell, problem, *sources, Scores(path), stop)
    kept = json.loads(path.read_text())
    assert sum(map(len, kept.values())) == 4 + 14
    again = score_targets(cell, problem, *sources, Scores(path))
    assert again == entries
    monkeypatch.setattr(Trainer, "outcomes", lambda *arguments: pytest.fail("a target was trained again"))
    assert score_targets(cell, problem, *sources, Scores(path)) == entries


def test_soft_labels_of_a_set_are_trained_on(problem, sets):
    (distilled, _), cell = sets, config(targets=TARGETS[:1], baselines=())
    turned = np.eye(2, dtype=np.float32)[1 - distilled.labels]
    soft = dataclasses.replace(distilled, soft_labels=turned)
    hard = dataclasses.replace(distilled, labels=1 - distilled.labels)
    expected = scored(problem, [hard], targets=cell.evaluation.targets, baselines=())
    assert scored(problem, [soft], targets=cell.evaluation.targets, baselines=()) == expected
    assert expected != scored(problem, [distilled], targets=cell.evaluation.targets, baselines=())


def test_words_outside_a_set_count_for_nothing(problem, sets):
    """Unless the vocabulary is that of the training texts."""
    test, texts = problem.data.test, LabelledTexts(problem.data.train.take(np.arange(4)))
    known = set(" ".join(text for (text,) in texts.split.texts).lower().split())
    other = [(" ".join(word for word in text.lower().split() if word in known),) for (text,) in test.texts]
    assert other != test.texts
    changed = dataclasses.replace(test, texts=other)
    changed = dataclasses.replace(problem, data=dataclasses.replace(problem.data, test=changed))
    scores = {}
    for features in ("tfidf", "tfidf_train"):
        target, source = target_named(f"naive_bayes/{features}"), Source("few", lambda: [texts], 1, 1)
        trainers = [Trainer(data, jax.random.key(0)) for data in (problem, changed)]
        vectors = [list(trainer.outcomes(target, source, range(1))) for trainer in trainers]
        sizes = [trainer._features(features, "few", 0)[1] for trainer in trainers]
        scores[features] = vectors, (sizes[0] != sizes[1]).nnz
    assert scores["tfidf"][0][0] == scores["tfidf"][0][1] and scores["tfidf"][1] == 0
    assert scores["tfidf_train"][1] > 0


def test_full_data_and_a_forest_that_does_not_see_all_of_it(problem, sets, monkeypatch):
    kind = text_models.MODELS["random_forest"]._replace(most_texts=50)
    models = dict(text_models.MODELS) | {"random_forest": kind}
    monkeypatch.setattr(text_models, "MODELS", models)
    monkeypatch.setattr(pipeline_targets, "MODELS", models)
    changes = {"targets": TARGETS[1:2], "baselines": (), "full_epochs": 1.0, "full_students": 2}
    (entry,) = scored(problem, sets[:1], **changes).values()
    full = entry["baselines"]["full"]
    assert full["n"] == 2 and full["values"][0] != full["values"][1]
    assert target_notes(config(**changes), problem, {TARGETS[1]: entry}) == [
        "full data: random_forest/tfidf_train trains on 50 random ones of 300 texts"
    ]
    assert target_notes(config(targets=TARGETS[1:2]), problem, {TARGETS[1]: entry}, full=False) == []
    assert entry["paired"]["full"]["n"] == 2


@pytest.mark.parametrize("model", ["logistic_regression", "linear_svm", "naive_bayes"])
def test_all_texts_teach_what_ten_do_not(model, whole):
    """The corpus is made so that words alone do not decide everything."""
    trainer, train_split = Trainer(whole, jax.random.key(0)), whole.data.train
    sources = [
        Source(name, lambda split=split: [LabelledTexts(split)], 1, 1)
        for name, split in (("full", train_split), ("ten", train_split.take(np.arange(10))))
    ]
    full, ten = (next(trainer.outcomes(target_named(f"{model}/tfidf"), source, [0])).score for source in sources)
    assert 0.75 < full < 0.9 and ten < full - 0.1


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    """Two random sets, as a run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    cell = dataclasses.replace(config("random", baselines=("herding",), targets=TARGETS[:2]), seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "prepare", lambda task, learner: problem)
        return folder, cell, run_experiment(cell, folder, say=silent)


def test_a_run_writes_the_table(finished):
    folder, cell, result = finished
    assert json.loads((folder / "result.json").read_text())["targets"] == json.loads(json.dumps(result["targets"]))
    assert list(result["targets"]) == list(TARGETS[:2])
    for name, entry in result["targets"].items():
        assert list(entry["baselines"]) == ["herding"] and entry["paired"]["herding"]["ci95"] is not None
        sizes = entry["test"]["n"], entry["baselines"]["herding"]["n"]
        assert sizes == ((6, 3) if name.startswith("random_forest") else (2, 1))
        assert {f"{name}/random/0", f"{name}/random/1", f"{name}/herding"} <= set(result["seconds"])
    lines = summary(result).splitlines()
    assert lines[lines.index("other models on the same texts (trainings):") + 1] in target_lines(result)
    page = (folder / "report.html").read_text()
    assert "Other models on the same texts, in percent" in page and "<td>logistic_regression/tfidf</td>" in page
    score = result["targets"]["logistic_regression/tfidf"]["baselines"]["herding"]["mean"]
    assert f"<td>{score:.2f} (n = 1)</td>" in page


def test_a_folder_is_scored_on_the_targets_of_its_run(finished, problem, monkeypatch):
    folder, cell, result = finished
    monkeypatch.setattr(folder_module, "prepare", lambda task, learner: problem)
    lines = []
    again = folder_module.evaluate_folder(folder / "seed_1" / "distilled", cell, say=lines.append)
    for name, entry in again["targets"].items():
        values = result["targets"][name]["test"]["values"]
        assert entry["test"]["values"] == values[len(values) // 2 :]
        assert entry["baselines"] == entry["paired"] == {}
        assert any(line.startswith(f"  {name}: distilled set ") for line in lines)


def test_what_cannot_be_trained_is_refused(problem, tmp_path):
    cell = ExperimentConfig(task=TASK, learner=TINY, evaluation=EvaluationConfig(targets=TARGETS))
    with pytest.raises(UserError, match="train on texts, but 'attention_label' gives vectors: leave targets out"):
        run_experiment(cell, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()
    learner = problem.pretrained.learner._replace(embed=None)
    blind = dataclasses.replace(problem, pretrained=problem.pretrained._replace(learner=learner))
    check_targets(TARGETS[:2], blind, "random", True)
    with pytest.raises(UserError, match="target 'naive_bayes/encoder' sees features of the learner, but 'tiny' has no"):
        check_targets(TARGETS, blind, "random", True)


def test_configurations():
    changed = override(ExperimentConfig(), {"evaluation.targets": "linear_svm/tfidf,naive_bayes/encoder"})
    assert changed.evaluation.targets == ("linear_svm/tfidf", "naive_bayes/encoder")
    assert smoke(config()).evaluation.targets == TARGETS[:1] and smoke(config()).evaluation.target_seeds == 2
    for make, message in (
        (lambda: EvaluationConfig(targets=("svm/tfidf",)), "unknown model 'svm': accepted are logistic_regression"),
        (lambda: EvaluationConfig(targets=("linear_svm",)), "names no features: accepted are linear_svm/tfidf"),
        (lambda: EvaluationConfig(target_seeds=1), "evaluation.target_seeds is 1: accepted is 2 or more"),
    ):
        with refused(message):
            make()
