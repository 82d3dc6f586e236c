"""Configurations refuse wrong types and values when they are made, each in one line."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.attention_label import AttentionLabel
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.pipeline.checks import check_types
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig
from jaxdistill.pipeline.overrides import from_plain, load_config


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: EvaluationConfig(students=-1), "evaluation.students is -1: accepted is 0 or more"),
        (lambda: EvaluationConfig(students="two"), "evaluation.students is 'two': accepted is a whole number"),
        (lambda: EvaluationConfig(students=True), "evaluation.students is True: accepted is a whole number"),
        (lambda: EvaluationConfig(baseline_students=1), "evaluation.baseline_students is 1: accepted is 2 or more"),
        (lambda: EvaluationConfig(full_students=0), "evaluation.full_students is 0: accepted is 1 or more"),
        (lambda: EvaluationConfig(full_epochs=float("nan")), "evaluation.full_epochs is nan: accepted is 0 or more"),
        (lambda: EvaluationConfig(baselines=["random"]), "evaluation.baselines is ['random']: accepted is a tuple"),
        (lambda: EvaluationConfig(train_by="luck"), "is 'luck': accepted is one of auto, schedule, recipe"),
        (lambda: EvaluationConfig(recipe=3), "evaluation.recipe is 3: accepted is a Recipe"),
        (lambda: Recipe(lr=0.0), "recipe: lr 0.0 and clip 1.0 must be above 0"),
        (lambda: TaskConfig(max_length=-5), "task.max_length is -5: accepted is 0 or more"),
        (lambda: TaskConfig(text_columns=(1,)), "task.text_columns is (1,): accepted is a tuple whose entries are"),
        (lambda: LearnerConfig(dtype="float16"), "learner.dtype is 'float16': accepted are float32 and bfloat16"),
        (lambda: ExperimentConfig(seed=-1), "seed is -1 with 1 distillations: accepted are seeds from 0 to 2147483647"),
        (lambda: ExperimentConfig(seed=2**31 - 1, seeds=2), "seed is 2147483647 with 2 distillations"),
        (lambda: ExperimentConfig(checkpoint_seconds=-1.0), "config.checkpoint_seconds is -1.0: accepted is 0 or more"),
        (lambda: ExperimentConfig(devices=-2), "config.devices is -2: accepted is -1 or more"),
        (
            lambda: ExperimentConfig(settings=AttentionLabel(outer=Outer(packed=1))),
            "config.settings.outer.packed is 1: accepted is True or False",
        ),
    ],
)
def test_bad_values(make, message):
    with refused(message):
        make()


def test_a_whole_number_is_a_number():
    config = ExperimentConfig(checkpoint_seconds=5, evaluation=EvaluationConfig(full_epochs=2))
    assert config.checkpoint_seconds == 5
    check_types(config)
    assert EvaluationConfig(baselines=(), baseline_students=0).baselines == ()


def test_optional_values():
    @dataclasses.dataclass
    class Some:
        size: int | None = None

    check_types(Some(), "some")
    check_types(Some(3), "some")
    with pytest.raises(UserError, match="some.size is 'x': accepted is a whole number or None"):
        check_types(Some("x"), "some")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"per_class": "two"}, "config.settings.per_class is 'two': accepted is a whole number"),
        ({"outer": {"lr": [1]}}, "config.settings.outer.lr is (1,): accepted is a number"),
        ({"outer": 3}, "config.settings.outer is 3: accepted is an object with the fields of Outer"),
        ({"attention": "rows"}, "config.settings.attention is 'rows': accepted is one of none, cls, all"),
        ([], "config.settings is []: accepted is an object with the fields of AttentionLabel"),
    ],
)
def test_manifests_with_wrong_types(values, message):
    with pytest.raises(UserError) as error:
        from_plain(AttentionLabel(), values, "config.settings")
    assert message in str(error.value)


def test_numbers_that_json_lacks_read_back():
    assert from_plain(Recipe(), {"clip": "inf", "steps": 7}) == Recipe(clip=float("inf"), steps=7)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"import no_such_module", "cannot be used: ModuleNotFoundError: No module named 'no_such_module'"),
        (b"def get_config(:", "cannot be used: SyntaxError: invalid syntax"),
        (b"x = '\xff'", "cannot be used: SyntaxError"),
        (b"def get_config():\n    return 1 / 0", "cannot be used: ZeroDivisionError: division by zero"),
        (
            b"from jaxdistill.pipeline.config import ExperimentConfig\n"
            b"def get_config():\n    return ExperimentConfig(colour='red')",
            "cannot be used: TypeError: ",
        ),
        (
            b"from jaxdistill.pipeline.config import ExperimentConfig\n"
            b"def get_config():\n    return ExperimentConfig(seeds='two')",
            "config.seeds is 'two': accepted is a whole number",
        ),
    ],
)
def test_config_files_that_fail(tmp_path, content, message):
    (tmp_path / "config.py").write_bytes(content)
    with refused(message):
        load_config(str(tmp_path / "config.py"))
