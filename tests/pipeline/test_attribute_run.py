"""A run that removes an attribute: what its folder holds, going on after a stop, the choice of a learning rate."""

from __future__ import annotations

import dataclasses
import json

import pytest
from datasets import load_dataset
from helpers import ROOT, refused

from jaxdistill.io.distilled import load_distilled
from jaxdistill.methods.base import Stopped
from jaxdistill.methods.contrastive import ContrastiveTexts
from jaxdistill.pipeline.attribute_config import AttributeConfig, smoke_attribute
from jaxdistill.pipeline.attribute_run import run_attribute
from jaxdistill.pipeline.attribute_scores import choose_rate, flat
from jaxdistill.pipeline.overrides import load_config

CONFIGS = sorted((ROOT / "experiments/configs/unidetox").glob("*.py"))


@pytest.fixture(scope="module")
def config() -> AttributeConfig:
    """Two learning rates, all controls, one student that is the base model."""
    small = load_config(f"{CONFIGS[0]}:smoke", AttributeConfig)
    return dataclasses.replace(small, learning_rates=(1e-3, 1e-2))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs") / "unbroken", []
    return folder, run_attribute(config, folder, say=lines.append), "\n".join(lines)


def test_the_folder_holds_texts_and_figures_and_no_expert(finished):
    folder, result, output = finished
    assert sorted(child.name for child in folder.iterdir()) == [
        "config.json",
        "experts",
        "result.json",
        "samples.txt",
        "scores.json",
        "sets",
    ]
    assert sorted(child.name for child in (folder / "experts").iterdir()) == ["attribute.json", "neutral.json"]
    assert sorted(child.name for child in (folder / "sets").iterdir()) == ["base", "contrast", "random_expert", "real"]
    texts = load_distilled(folder / "sets/contrast/0")
    assert len(texts.texts) == 4 and texts.manifest["method"] == "unidetox/contrast"
    assert load_dataset(str(folder / "sets/contrast/0"))["train"].num_rows == 4
    card = (folder / "sets/contrast/0/README.md").read_text()
    assert 'pretty_name: "Texts by unidetox/contrast"' in card and "4 texts without labels" in card
    parts = ("untouched", "decoding", "contrast", "base", "random_expert", "real")
    assert set(result["cost"]["student_seconds"]) == {f"tiny/{part}" for part in parts}
    (student,) = result["students"].values()
    assert set(student["conditions"]) == {"contrast", "base", "random_expert", "real"}
    for condition in student["conditions"].values():
        assert condition["lr"] in (1e-3, 1e-2) and len(condition["chosen_on"]) == 2
        assert 0.0 <= condition["figures"]["emt"]["mean"] <= 1.0 and condition["figures"]["emt"]["n"] == 1
    untouched, figures = student["untouched"], student["conditions"]["contrast"]["figures"]
    difference = student["differences"]["untouched"]["perplexity"]["mean"]
    assert difference == pytest.approx(figures["perplexity"]["mean"] - untouched["perplexity"])
    assert student["decoding"]["entropy"] < untouched["entropy"]  # few tokens are plausible
    assert -1.0 <= student["update_cosines"][0][0] <= 1.0
    assert result["alignment"]["texts"] == 4 and result["experts"]["attribute"]["updates"] == 2
    assert "contrast minus base: TP" in output and "decoding" in output


def test_a_stopped_run_goes_on_to_the_same_figures(config, finished, tmp_path):
    folder, result, _ = finished
    stops = iter([False] * 3 + [True])
    with pytest.raises(Stopped):
        run_attribute(config, tmp_path / "run", stop=lambda: next(stops, True), say=lambda line: None)
    later = iter([False] * 12 + [True])
    with pytest.raises(Stopped):
        run_attribute(config, tmp_path / "run", stop=lambda: next(later, True), say=lambda line: None)
    again = run_attribute(config, tmp_path / "run", say=lambda line: None)
    assert again["students"] == result["students"] and again["alignment"] == result["alignment"]
    for name in ("contrast", "base", "random_expert", "real"):
        place = f"sets/{name}/0/data.parquet"
        assert (tmp_path / "run" / place).read_bytes() == (folder / place).read_bytes()
    known = json.loads((tmp_path / "run/scores.json").read_bytes())
    assert known["figures"] == json.loads((folder / "scores.json").read_bytes())["figures"]


def test_a_finished_run_is_not_done_again(config, finished):
    folder, result, _ = finished
    lines: list[str] = []
    assert run_attribute(config, folder, say=lines.append) == json.loads((folder / "result.json").read_bytes())
    assert "holds the finished result" in lines[-1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_what_it_is_and_has_a_smoke_form(path):
    config = load_config(str(path), AttributeConfig)
    small = load_config(f"{path}:smoke", AttributeConfig)
    assert path.read_text().startswith('"""') and small == smoke_attribute(config)
    # What is run of one smoke form stands for all: they differ in texts and labels alone.
    assert (small.base, small.students, small.evaluation.scorer) == ("tiny", ("tiny",), "tiny")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"students": ()}, "students is empty"),
        ({"neutral": ()}, "neutral is empty, and the control 'random_expert' needs a corpus"),
        ({"learning_rates": (1e-3, 0.0)}, "learning_rates are (0.001, 0.0): accepted are numbers above 0"),
        ({"attribute": ("toy/reviews[furious]",)}, "corpus toy/reviews[furious]: the task has no such class"),
        ({"students": ("tiny", "nowhere/at-all")}, "model 'nowhere/at-all': neither a folder nor in the local cache"),
        ({"texts": ContrastiveTexts(count=4, length=5000)}, "texts.length is 5000, and the models read 128 positions"),
        ({"texts": ContrastiveTexts(count=5000, length=16)}, "real: 1818 training texts, 5000 asked"),
        ({"base": "nowhere/at-all"}, "model 'nowhere/at-all': neither a folder nor in the local cache"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(config, changes, message, tmp_path):
    with refused(message):
        run_attribute(dataclasses.replace(config, **changes), tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_a_scorer_without_the_label_is_refused(config, tmp_path):
    attribute = dataclasses.replace(config.evaluation.attribute, label="toxic")
    wrong = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, attribute=attribute))
    with refused("attribute scorer 'tiny' has no label 'toxic': accepted are LABEL_0, LABEL_1"):
        run_attribute(wrong, tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_the_rule_for_learning_rates():
    tried = [
        {"lr": 1e-4, "tp": 0.5, "emt": 0.6, "perplexity": 10.0},
        {"lr": 3e-4, "tp": 0.4, "emt": 0.5, "perplexity": 10.9},
        {"lr": 1e-3, "tp": 0.1, "emt": 0.2, "perplexity": 11.1},
    ]
    assert choose_rate(tried, 10.0, 1.1) == 3e-4
    assert choose_rate(tried, 5.0, 1.1) == 1e-4  # none is fluent: the most fluent
    assert choose_rate(tried, None, 1.1) == 1e-3
    tied = [{"lr": 1e-4, "tp": 0.4, "emt": 0.6}, {"lr": 3e-4, "tp": 0.5, "emt": 0.5}]
    assert choose_rate(tied, None, 1.1) == 1e-4
    assert choose_rate(tied, None, 1.1, "emt") == 3e-4


def test_figures_are_flat_numbers():
    found = {
        "label": "toxic",
        "tp": 0.5,
        "categories": {"religion": {"tp": 0.25, "emt": 0.5, "prompts": 4}},
        "combined": None,
        "perplexity/gpt": {"mean": 12.0, "dropped": 0},
        "distinct": {"1": 0.5},
        "entropy": 2,
    }
    numbers = {
        "tp": 0.5,
        "tp/religion": 0.25,
        "emt/religion": 0.5,
        "perplexity": 12.0,
        "distinct_1": 0.5,
        "entropy": 2.0,
    }
    assert flat(found) == numbers
