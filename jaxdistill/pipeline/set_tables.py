"""Sets of texts in a table that somebody else wrote, one file for one set or for several."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.parsing import parse_split
from jaxdistill.data.readers import SUFFIXES, read_columns
from jaxdistill.data.tasks import Task
from jaxdistill.io.distilled import DistilledSet


def is_table(path: str | os.PathLike) -> bool:
    """Whether this is a file that `load_sets` reads, and not a distilled-set folder."""
    return Path(path).suffix in SUFFIXES and not Path(path).is_dir()


def load_sets(path: str | os.PathLike, task: Task, set_column: str = "") -> dict[str, DistilledSet]:
    """The sets of a table, by name, in the order in which they begin.

    Args:
      path: parquet, csv, tsv or jsonl, with the text and label columns of the task.
      task: whose classes the labels are.
      set_column: tells rows of different sets apart; "" takes all rows for one set.

    Raises:
      UserError: the file cannot be read, a column is missing, a label is none of the task's, sets of different sizes.
    """
    path = Path(path)
    names = (*task.text_columns, task.label_column, *((set_column,) if set_column else ()))
    columns = read_columns(path, names)
    split = parse_split({name: columns[name] for name in names[: len(task.text_columns) + 1]}, task, str(path))
    members: dict[str, list[int]] = {}
    for row, name in enumerate(columns[set_column] if set_column else [path.stem] * len(split)):
        members.setdefault(str(name), []).append(row)
    sizes = {name: len(rows) for name, rows in members.items()}
    if len(set(sizes.values())) > 1:
        low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        raise UserError(
            f"{path}: set {low!r} has {sizes[low]} texts and set {high!r} {sizes[high]}; sets of one size are expected"
        )
    found = {}
    for name, rows in members.items():
        part = split.take(np.asarray(rows))
        manifest = {"task": task.name, "method": f"table {path.name}", "learner": None}
        found[name] = DistilledSet(part.labels, task.label_names, manifest, texts=part.texts)
    return found
