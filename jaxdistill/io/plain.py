"""Values as plain JSON: conversion, comparison, fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

ABSENT = "absent"


def plain(value: Any) -> Any:
    """`value` in the types JSON has: dict, list, str, int, float, bool, None.

    Dataclasses become dicts, tuples and arrays lists, paths strings. JSON has no non-finite numbers: they become the
    strings "nan", "inf" and "-inf", which `float` reads back.

    Raises:
      TypeError: for a value that has no such form.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(child) for name, child in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(child) for child in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"a {type(value).__name__} has no JSON form: {value!r}")


def dumps(value: Any, *, indent: int | None = 2) -> str:
    """Strict JSON text of `plain(value)`, keys in the order given."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: the same whatever the order of keys."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def first_difference(left: Any, right: Any, *, subset: bool = False, path: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two plain values differ, as (dotted path, left value, right value), or `None`.

    Args:
      left: plain value.
      right: plain value.
      subset: keys that only `right` has do not count as a difference.
      path: where both stand in the whole, for the answer.
    """
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in [*left, *(name for name in right if name not in left and not subset)]:
            here = f"{path}.{name}" if path else str(name)
            if name not in left or name not in right:
                return here, left.get(name, ABSENT), right.get(name, ABSENT)
            if (found := first_difference(left[name], right[name], subset=subset, path=here)) is not None:
                return found
        return None
    if _is_list(left) and _is_list(right) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            if (found := first_difference(*pair, subset=subset, path=f"{path}[{index}]")) is not None:
                return found
        return None
    # True == 1 in Python, but they are two different settings.
    same = left == right and isinstance(left, bool) == isinstance(right, bool)
    return None if same else (path, left, right)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
