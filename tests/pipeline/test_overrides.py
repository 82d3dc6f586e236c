"""Configurations from files and flags: typed changes, and one clear line for each mistake."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import ROOT, refused

from jaxdistill.core.errors import UserError
from jaxdistill.io.plain import plain
from jaxdistill.methods.attention_label import AttentionLabel
from jaxdistill.methods.coreset import Coreset
from jaxdistill.models.classic_learner import NETWORKS
from jaxdistill.pipeline.config import ExperimentConfig, smoke
from jaxdistill.pipeline.overrides import from_plain, load_config, override

CONFIGS = sorted((ROOT / "experiments" / "configs").rglob("*.py"))
# Those of language models and classifiers are other kinds, see `test_language_run` and `test_train_classifier`.
OTHERS = ("language_models", "classifiers", "unidetox", "inverters")
CONFIGS = [path for path in CONFIGS if path.name != "__init__.py" and path.parent.name not in OTHERS]


def test_changes_are_typed():
    config = override(
        ExperimentConfig(),
        {
            "settings.per_class": "2",
            "settings.steps": "2",
            "settings.outer.lr": "1e-3",
            "settings.outer.packed": "false",
            "settings.attention": "none",
            "evaluation.baselines": "random,herding",
            "task.name": "sst2",
        },
    )
    assert (config.settings.per_class, config.settings.outer.lr, config.settings.outer.packed) == (2, 1e-3, False)
    assert (config.settings.attention, config.task.name) == ("none", "sst2")
    assert config.evaluation.baselines == ("random", "herding")
    assert config.settings.batch_per_class == 1, "other fields stay"


def test_another_method_takes_its_default_settings():
    assert override(ExperimentConfig(), {"method": "k_center"}).settings == Coreset()
    changed = override(ExperimentConfig(), {"method": "random", "settings.per_class": "7"})
    assert changed.settings == Coreset(per_class=7)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"settings.per_clas": "2"}, "unknown field config.settings.per_clas (did you mean 'per_class'?)"),
        ({"colour": "red"}, "unknown field config.colour: config has task, learner, method"),
        ({"seed.x": "1"}, "unknown field config.seed.x: config.seed has no fields"),
        ({"settings.per_class": "two"}, "config.settings.per_class is 'two': accepted is a whole number"),
        ({"settings.per_class": "1.5"}, "config.settings.per_class is '1.5': accepted is a whole number"),
        ({"settings.outer.lr": "fast"}, "config.settings.outer.lr is 'fast': accepted is a number"),
        ({"settings.outer.packed": "maybe"}, "config.settings.outer.packed is 'maybe': accepted are true and false"),
        ({"settings.attention": "rows"}, "config.settings.attention is 'rows': accepted are none, cls, all"),
        ({"settings.outer.adjoint": "mix"}, "unknown adjoint 'mix': give full, remat, mixed"),
        ({"settings.outer.updates": "0"}, "outer.updates is 0: it must be at least 1"),
        ({"method": "k_mean"}, "unknown method 'k_mean' (did you mean 'k_means'?)"),
        ({"evaluation.protocol": "dirty"}, "unknown protocol 'dirty': accepted are clean, paper"),
        ({"evaluation.baselines": "best"}, "unknown baseline 'best': accepted are random"),
        ({"settings": "x"}, "config.settings cannot be set as a whole to 'x'"),
        ({"seeds": "0"}, "seeds is 0: at least 1 distillation is needed"),
    ],
)
def test_mistakes_give_one_line(changes, message):
    with refused(message):
        override(ExperimentConfig(), changes)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist"),
        ("x = 1", "has no function get_config()"),
        ("def get_config():\n    return 3", "returns int, not an ExperimentConfig"),
    ],
)
def test_bad_config_files(tmp_path, content, message):
    path = tmp_path / "config.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(")", r"\)")):
        load_config(str(path))
    with pytest.raises(UserError, match="unknown form 'tiny'"):
        load_config(f"{path}:tiny")


def test_manifest_form_reads_back():
    config = AttentionLabel(per_class=2, steps=2, length=9)
    assert from_plain(AttentionLabel(), plain(config)) == config
    with pytest.raises(UserError, match="AttentionLabel has no field 'colour'"):
        from_plain(AttentionLabel(), {"colour": 1})


def test_settings_must_be_of_the_method():
    with pytest.raises(UserError, match="method 'random' takes settings of type Coreset, not AttentionLabel"):
        ExperimentConfig(method="random", settings=AttentionLabel())


SIZES = ("outer", "length", "per_class", "batch_per_class", "steps", "experts")
# Of a method that trains a language model.
SIZES += ("generator", "trained", "max_length", "oversample", "language_model", "matching", "learners", "pooling")
# Of one that matches gradients of a language model.
SIZES += ("model", "prompt", "label_words", "prefix", "rounds", "texts", "rounds_at_once", "real_per_class")
SIZES += ("real_length", "vocabulary", "admm", "filtering", "privacy")
SIZES += ("inverter", "pool", "restarts", "iterations", "correcting", "round_trip", "least_cosine", "fallback")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_says_what_it_is_and_has_a_smoke_form(path):
    config = load_config(str(path))
    text = path.read_text()
    assert text.startswith('"""') and len(text.split('"""')[1].splitlines()) >= 3
    small = smoke(config)
    loops = {"dilm": lambda: small.settings.matching.updates, "gradmm": lambda: small.settings.outer_steps}
    if config.method != "dallme":  # which has no outer loop
        assert loops.get(config.method, lambda: small.settings.outer.updates)() == 2
    assert small.task.name.partition(":")[0] == "toy/reviews"
    network = config.learner.name in NETWORKS
    assert small.learner.words.vectors == "tiny" if network else small.learner.name == "tiny"
    sizes = [name for name in SIZES if hasattr(config.settings, name)]
    same = dataclasses.replace(small.settings, **{name: getattr(config.settings, name) for name in sizes})
    assert same == config.settings, "only size changes"
