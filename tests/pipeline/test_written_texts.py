"""A method that writes texts is judged by them; one that chooses training texts is not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers import refused

from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, manifest
from jaxdistill.methods.registry import METHODS
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig, smoke
from jaxdistill.pipeline.evaluate_folder import evaluate_folder
from jaxdistill.pipeline.run import run_experiment, summary
from jaxdistill.pipeline.texts import check_text_scorers, writes_texts

LANGUAGE_MODEL = {"baselines": (), "students": 2, "full_epochs": 0.0, "language_model": "tiny"}


@dataclasses.dataclass(frozen=True)
class Parrot:
    """Settings of a method that repeats one training text a class, and adds words to it."""

    per_class: int = 2


def parrot(config, problem, *, key, run):
    labels = np.repeat(np.arange(problem.classes, dtype=np.int32), config.per_class)
    train = problem.data.train
    texts = []
    for number, label in enumerate(labels):
        (text,) = train.texts[int(np.flatnonzero(train.labels == label)[0])]
        texts.append((text if number % config.per_class == 0 else f"{text} polly polly",))
    cost = {"distill_seconds": 1.0}
    return DistilledSet(
        labels=labels,
        label_names=problem.data.task.label_names,
        manifest=manifest("parrot", config, problem, key, cost),
        texts=texts,
        text_columns=problem.data.task.text_columns,
    )


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(METHODS, "parrot", Method(Parrot, parrot, lambda *a: None, lambda *a: None, makes_texts=True))
    recipe = dataclasses.replace(EvaluationConfig().recipe, steps=2)
    return ExperimentConfig(
        task=TaskConfig(name="toy/reviews", max_length=16),
        learner=LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny")),
        method="parrot",
        evaluation=EvaluationConfig(recipe=recipe, **LANGUAGE_MODEL),
    )


def test_written_texts_are_judged(config, tmp_path):
    lines = []
    result = run_experiment(config, tmp_path / "run", say=lines.append)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["texts"] == json.loads(
        json.dumps(result["texts"])
    )
    (own,), dev = result["texts"]["sets"], result["texts"]["dev"]
    assert (own["texts"], dev["texts"]) == (4, 4)
    assert own["overlap"]["copied"] == 0.5 and own["overlap"]["new_1grams"] > 0
    assert dev["overlap"]["copied"] < 0.5
    for figures in (own, dev):
        assert figures["fluency"]["perplexity/tiny"]["mean"] > 1
    shown = summary(result)
    assert f"copies of training texts: 0.500 (dev texts {dev['overlap']['copied']:.3f})" in shown
    assert "perplexity/tiny of the texts" in shown and shown in lines
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<th>nearest training text</th>" in page and "polly polly" in page
    assert len(list((tmp_path / "run" / "text_scores").iterdir())) == 1
    found = evaluate_folder(tmp_path / "run" / "distilled", config, say=lines.append)
    assert found["texts"] == result["texts"]
    assert any("distinct bigrams" in line for line in lines[-4:])


@pytest.mark.parametrize(
    ("method", "texts", "written"),
    [("parrot", True, True), ("unknown", True, True), ("random", True, False), ("teacher_labels", True, False)]
    + [("attention_label", False, False)],
)
def test_what_counts_as_written(method, texts, written):
    assert writes_texts(method, texts) is written


@pytest.mark.parametrize(
    ("method", "texts", "given", "message"),
    [
        ("random", True, {"language_model": "tiny"}, "evaluation.language_model judges texts that a method wrote, and"),
        ("attention_label", False, {"text_encoder": "tiny"}, "'attention_label' writes none: leave it out"),
        ("parrot", True, {"text_encoder": "/no/such/encoder"}, "model '/no/such/encoder': no such folder"),
        pytest.param(
            *("parrot", True, {"language_model": "minilm"}, "model_type 'bert'"), marks=pytest.mark.needs_minilm
        ),
    ],
)
def test_refuses(method, texts, given, message):
    with refused(message):
        check_text_scorers(EvaluationConfig(**given), method, texts)


def test_refused_before_anything_is_written(config, tmp_path):
    evaluation = dataclasses.replace(config.evaluation, language_model="/no/such/model")
    with refused("model '/no/such/model': no such folder"):
        run_experiment(dataclasses.replace(config, evaluation=evaluation), tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_smoke_form_takes_the_tiny_models(config):
    evaluation = dataclasses.replace(config.evaluation, language_model="gpt2", text_encoder="minilm")
    small = smoke(dataclasses.replace(config, evaluation=evaluation)).evaluation
    assert (small.language_model, small.text_encoder) == ("tiny", "tiny")
    assert smoke(dataclasses.replace(config, evaluation=EvaluationConfig())).evaluation.language_model == ""
