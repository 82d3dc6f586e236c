from __future__ import annotations

import json

import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.io.versions import versions
from jaxdistill.io.workdir import Workdir, open_workdir

CONFIG = {"task": "toy/reviews", "method": {"per_class": 1, "groups": ("a", "b")}}


def test_the_same_configuration_is_taken_up_again(tmp_path):
    first = open_workdir(tmp_path / "runs" / "one", CONFIG)
    again = open_workdir(tmp_path / "runs" / "one", CONFIG)
    assert first == again
    assert json.loads(first.config.read_text()) == {
        "task": "toy/reviews",
        "method": {"per_class": 1, "groups": ["a", "b"]},
    }


def test_another_run_is_refused_by_its_first_difference(tmp_path):
    open_workdir(tmp_path, CONFIG)
    with pytest.raises(UserError) as raised:
        open_workdir(tmp_path, {"task": "toy/reviews", "method": {"per_class": 5, "groups": ["a", "b"]}})
    assert str(raised.value) == (
        f"workdir {tmp_path} holds another run: method.per_class is 1 there and 5 here; choose another workdir"
    )
    assert Workdir(tmp_path).read_config()["method"]["per_class"] == 1


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds 'thesis.tex' but no config.json, so it is not a run folder"):
        open_workdir(tmp_path, CONFIG)
    assert [child.name for child in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_killed_while_writing_the_configuration_is_no_foreign_file(tmp_path):
    (tmp_path / ".jaxdistill-config.json.tmp").write_text("{")
    assert open_workdir(tmp_path, CONFIG).read_config()["task"] == "toy/reviews"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "config.json is not valid JSON"), ("[1]", "config.json holds a JSON list; expected an object")],
)
def test_a_damaged_configuration_is_one_line(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        open_workdir(tmp_path, CONFIG)
    assert "\n" not in str(raised.value)


def test_a_file_in_its_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="^cannot write .*/file: File exists; give a path in a writable folder$"):
        open_workdir(tmp_path / "file", CONFIG)


def test_result_round_trip(tmp_path):
    workdir = open_workdir(tmp_path / "run", CONFIG)
    assert workdir.read_result() is None
    workdir.write_result({"test": {"mean": 84.25, "ci95": (83.0, 85.5), "std": None}})
    assert workdir.read_result() == {"test": {"mean": 84.25, "ci95": [83.0, 85.5], "std": None}}


def test_paths(tmp_path):
    workdir = Workdir(tmp_path)
    paths = (workdir.metrics, workdir.tensorboard, workdir.checkpoints, workdir.distilled, workdir.report)
    assert [path.name for path in paths] == ["metrics.jsonl", "tensorboard", "checkpoints", "distilled", "report.html"]


def test_versions_name_what_changes_a_result():
    import jax

    found = versions()
    assert found["jax"] == jax.__version__
    assert found["jaxdistill"] == "0.1.0"
    assert "cpu (" in found["device"]
