"""From raw columns to a checked `Split`: texts that are strings, labels that are classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

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


def parse_split(columns: Columns, task: Task, where: str) -> Split:
    """Check raw columns and make them a split.

    A label is a class name, else a class id. Rows are counted from 1 in errors.

    Raises:
      UserError: no rows; a null or non-string text; a null label; a label outside the classes.
    """
    labels = columns[task.label_column]
    if not labels:
        raise UserError(f"{where}: the split is empty; it needs at least one row")
    for name in task.text_columns:
        for row, text in enumerate(columns[name], start=1):
            _check_text(text, name, row, where)
    texts = list(zip(*(columns[name] for name in task.text_columns), strict=True))
    ids = {name: i for i, name in enumerate(task.label_names)}
    numbers = [_class_id(value, ids, row, where) for row, value in enumerate(labels, start=1)]
    return Split(texts=texts, labels=np.asarray(numbers, np.int32))


def _check_text(text: Any, column: str, row: int, where: str) -> None:
    if text is None:
        raise UserError(f"{where}: row {row}: {column} is null; a text must be a string (it may be empty)")
    if not isinstance(text, str):
        raise UserError(f"{where}: row {row}: {column} is of type {type(text).__name__}; a text must be a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON escapes can write
            raise UserError(f"{where}: row {row}: {column} is not valid Unicode ({error.reason})") from error


def _class_id(value: Any, ids: dict[str, int], row: int, where: str) -> int:
    key = _label_key(value, row, where)
    if key in ids:
        return ids[key]
    if key.isdecimal() and int(key) < len(ids):
        return int(key)
    names = ", ".join(list(ids)[:6]) + (", ..." if len(ids) > 6 else "")
    raise UserError(f"{where}: row {row}: label {_shorten(value)} is outside the classes 0..{len(ids) - 1} ({names})")


def _label_key(value: Any, row: int, where: str) -> str:
    """One spelling of a label, whatever the file format: "1" for 1, 1.0, True and "1"."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        raise UserError(f"{where}: row {row}: the label is null")
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value.strip() if isinstance(value, str) else str(value)


def _shorten(value: Any, width: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
