from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.io.plain import dumps, fingerprint, first_difference, plain


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 1
    groups: tuple[str, ...] = ("a", "b")


def test_plain_gives_json_types():
    value = {"config": Config(), "path": Path("a/b"), "array": np.arange(3), "scalar": jnp.float32(0.5), 3: {2, 1}}
    assert plain(value) == {
        "config": {"steps": 1, "groups": ["a", "b"]},
        "path": "a/b",
        "array": [0, 1, 2],
        "scalar": 0.5,
        "3": [1, 2],
    }


def test_non_finite_numbers_survive_strict_json():
    text = dumps([float("nan"), float("inf"), -float("inf")])
    back = [float(value) for value in json.loads(text)]
    assert np.isnan(back[0]) and back[1:] == [float("inf"), -float("inf")]


def test_plain_refuses_what_has_no_json_form():
    with pytest.raises(TypeError, match="a object has no JSON form"):
        plain({"x": object()})


def test_fingerprint_depends_on_content_only():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize(
    ("left", "right", "subset", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, False, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, False, ("a.b", 1, 2)),
        ({"a": [1, 2]}, {"a": [1, 3]}, False, ("a[1]", 2, 3)),
        ({"a": [1, 2]}, {"a": [1]}, False, ("a", [1, 2], [1])),
        ({"a": 1}, {"a": 1, "b": 2}, False, ("b", "absent", 2)),
        ({"a": 1}, {"a": 1, "b": 2}, True, None),
        ({"a": 1, "b": 2}, {"a": 1}, True, ("b", 2, "absent")),
        ({"a": True}, {"a": 1}, False, ("a", True, 1)),
        ({"a": 1}, {"a": 1.0}, False, None),
    ],
)
def test_first_difference(left, right, subset, expected):
    assert first_difference(left, right, subset=subset) == expected
