"""`experiments.train_classifier`: its smoke forms, what it writes, and that the judge is the learner."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT, python_environment, refused

from jaxdistill.core.types import Variables
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import encode
from jaxdistill.data.sources import load_task
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.attribute_scorer import attribute_scores, label_probabilities, load_attribute_scorer
from jaxdistill.models.pretrained import load_model
from jaxdistill.pipeline import classifier_run
from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.classifier_run import run_classifier
from jaxdistill.pipeline.config import LearnerConfig
from jaxdistill.pipeline.overrides import load_config

CONFIGS = sorted((ROOT / "experiments/configs/classifiers").glob("*.py"))
FORMS = {repr(config): config for config in (load_config(f"{path}:smoke", ClassifierConfig) for path in CONFIGS)}
TEXTS = ["a good film", "the worst plot of all, and far too long for anybody to like", "x", "no, it was not bad"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A smoke form with a rate that learns nothing and one that does: config, folder, result, saved parameters."""
    folder, saved, save = tmp_path_factory.mktemp("runs") / "run", [], classifier_run.save_folder

    def save_folder(path, config, params, **options):
        saved.append(params)
        save(path, config, params, **options)

    config = dataclasses.replace(next(iter(FORMS.values())), lrs=(1e-9, 0.03))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(classifier_run, "save_folder", save_folder)
        result = run_classifier(config, folder, say=lambda line: None)
    return config, folder, result, saved[0]


def test_the_judge_is_the_learner(finished):
    _, folder, result, params = finished
    scorer = load_attribute_scorer(folder / "model")
    assert scorer.labels == ("negative", "positive") and not scorer.multi_label and scorer.name == "run"
    learner = load_model("tiny", num_classes=2).learner
    encoded = encode(Split([(text,) for text in TEXTS], np.zeros(4, np.int32)), scorer.tokenizer, 64)
    batches = eval_batches(encoded, row_length=64, rows=4)
    logits = jax.jit(learner.apply)(Variables(params, {}), batches.batches[0]).logits
    expected = np.empty((4, 2))
    expected[batches.indices[0]] = jax.nn.softmax(logits[:4])
    np.testing.assert_allclose(label_probabilities(scorer, TEXTS), expected, atol=1e-5)
    assert expected[:, 1].std() > 2e-4
    # Texts are read as in training, so its calls on dev are those that dev was scored by.
    dev = load_task("toy/reviews").dev
    short = dataclasses.replace(scorer, max_length=32)
    called = attribute_scores(short, [text for (text,) in dev.texts], "positive") > 0.5
    assert 100 * (called == dev.labels).mean() == pytest.approx(result["dev"])


def test_dev_chooses(finished):
    config, folder, result, _ = finished
    trials = result["trials"]
    assert [(trial["lr"], trial["epoch"]) for trial in trials] == [(1e-9, 1), (1e-9, 2), (0.03, 1), (0.03, 2)]
    best = max(trials, key=lambda trial: trial["dev"])  # the first of equals
    assert {name: result[name] for name in best} == best
    assert len({trial["dev_loss"] for trial in trials[1:]}) == 3 and result["train_texts"] == 16
    assert 0 < result["test"] < 100 and json.loads((folder / "result.json").read_text()) == result
    values = json.loads((folder / "model" / "config.json").read_text())
    assert values["label2id"] == {"negative": 0, "positive": 1}
    lines = []
    assert run_classifier(config, folder, say=lines.append) == result
    assert "holds the finished result" in lines[0] and f"test {result['test']:.2f}" in lines[0]


@pytest.mark.parametrize("config", FORMS.values(), ids=map(str, range(len(FORMS))))
def test_every_config_has_a_smoke_form_that_runs(config, tmp_path):
    result = run_classifier(config, tmp_path / "run", say=lambda line: None)
    assert result["learner"] == "tiny" and len(result["trials"]) == config.epochs * len(config.lrs)
    assert load_attribute_scorer(tmp_path / "run/model").labels == tuple(result["labels"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_what_it_is(path):
    text = path.read_text().split('"""')[1]
    assert "Expect: dev" in text and "minutes" in text and len(text.splitlines()) >= 3
    small, config = (load_config(f"{path}{form}", ClassifierConfig) for form in (":smoke", ""))
    assert config.learner.name == "minilm" and small.learner.name == "tiny" and small.task.name == "toy/reviews"
    assert (small.train_texts, small.epochs, small.lrs) == (16, 2, config.lrs)


def test_refuses(finished, tmp_path):
    config = finished[0]
    for change, message in (
        ({"lrs": ()}, "config.lrs is (): accepted are one or more numbers above 0"),
        ({"lrs": (0.0,)}, "config.lrs is (0.0,)"),
        ({"epochs": 0}, "config.epochs is 0: accepted is 1 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"learner": LearnerConfig(name="text_cnn")}, "learner.name is 'text_cnn', which has no Hugging Face form"),
    ):
        with refused(message):
            dataclasses.replace(config, **change)
    with refused("learner.name is 'tiny:gpt2': accepted are encoders (BERT, RoBERTa, DistilBERT)"):
        run_classifier(
            dataclasses.replace(config, learner=LearnerConfig(name="tiny:gpt2")),
            tmp_path / "run",
            say=lambda line: None,
        )
    assert not (tmp_path / "run").exists()


def test_mistakes_end_in_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train_classifier", f"--config={CONFIGS[0]}:smoke"],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --workdir is missing: give a folder for the run"
