"""From raw columns to a checked `Split`: texts that are strings, labels that are classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxdistill.core.errors import UserError
from jaxdistill.data.readers import Columns
from jaxdistill.data.splits import Split
from jaxdistill.data.tasks import Task


def derive_label_names(values: list[Any], where: str) -> tuple[str, ...]:
    """Class names of a task of the user's own, from its training labels.

    Whole numbers (also as strings) must be 0..C-1 and name themselves; other labels are classes in sorted order.

    Raises:
      UserError: null labels, fewer than two classes, numbers with gaps.
    """
    keys = {_label_key(value, row, where) for row, value in enumerate(values, start=1)}
    if len(keys) < 2:
        raise UserError(f"{where}: labels hold {len(keys)} class(es); classification takes at least 2")
    if all(key.lstrip("-").isdecimal() for key in keys):
        numbers = sorted(map(int, keys))
        if numbers != list(range(len(numbers))):
            shown = ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")
            raise UserError(f"{where}: labels are {shown}; give label_names, or number the classes 0, 1, 2, ...")
        return tuple(map(str, numbers))
    return tuple(sorted(keys))


def derive_group_names(values: list[Any], where: str) -> tuple[str, ...]:
    """Names of the protected groups, from the training rows, sorted; numbers in the order of their size.

    Raises:
      UserError: null groups, fewer than two of them.
    """
    keys = {_label_key(value, row, where, "group") for row, value in enumerate(values, start=1)}
    if len(keys) < 2:
        raise UserError(f"{where}: the group column holds {len(keys)} group(s); groups are compared, so it takes 2")
    if all(key.lstrip("-").isdecimal() for key in keys):
        return tuple(sorted(keys, key=int))
    return tuple(sorted(keys))


def parse_split(columns: Columns, task: Task, where: str) -> Split:
    """Check raw columns and make them a split.

    A label is a class name, else a class id; so is a group. Rows are counted from 1 in errors.

    Raises:
      UserError: no rows; a null or non-string text; a null label or group; one outside the names of the task.
    """
    labels = columns[task.label_column]
    if not labels:
        raise UserError(f"{where}: the split is empty; it needs at least one row")
    for name in task.text_columns:
        for row, text in enumerate(columns[name], start=1):
            check_text(text, name, row, where)
    texts = list(zip(*(columns[name] for name in task.text_columns), strict=True))
    groups = columns[task.group_column] if task.group_column else None
    return make_split(texts, labels, groups, task, where)


def make_split(
    texts: list[tuple[str, ...]], labels: list[Any], groups: list[Any] | None, task: Task, where: str
) -> Split:
    """The split of texts, with labels and groups as ids.

    Raises:
      UserError: a label or a group is null or none of the task's.
    """
    attributes = {} if groups is None else {"group": _ids(groups, task.group_names, where, "group", "groups")}
    return Split(texts, _ids(labels, task.label_names, where, "label", "classes"), attributes)


def _ids(values: list[Any], names: tuple[str, ...], where: str, kind: str, kinds: str) -> Int32[np.ndarray, " n"]:
    ids = {name: i for i, name in enumerate(names)}
    numbers = [_id(value, ids, row, where, kind, kinds) for row, value in enumerate(values, start=1)]
    return np.asarray(numbers, np.int32)


def check_text(text: Any, column: str, row: int, where: str) -> None:
    """Raise `UserError` unless a value is a string that can be written as UTF-8; rows count from 1."""
    if text is None:
        raise UserError(f"{where}: row {row}: {column} is null; a text must be a string (it may be empty)")
    if not isinstance(text, str):
        raise UserError(f"{where}: row {row}: {column} is of type {type(text).__name__}; a text must be a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON escapes can write
            raise UserError(f"{where}: row {row}: {column} is not valid Unicode ({error.reason})") from error


def _id(value: Any, ids: dict[str, int], row: int, where: str, kind: str, kinds: str) -> int:
    key = _label_key(value, row, where, kind)
    if key in ids:
        return ids[key]
    if key.isdecimal() and int(key) < len(ids):
        return int(key)
    names = ", ".join(list(ids)[:6]) + (", ..." if len(ids) > 6 else "")
    raise UserError(f"{where}: row {row}: {kind} {_shorten(value)} is outside the {kinds} 0..{len(ids) - 1} ({names})")


def _label_key(value: Any, row: int, where: str, kind: str = "label") -> str:
    """One spelling of a label or group, whatever the file format: "1" for 1, 1.0, True and "1"."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where}: row {row}: the {kind} is null")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value.strip() if isinstance(value, str) else str(value)


def _shorten(value: Any, width: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
