"""Load a task: find its files, check them, and cut strict train, dev and test splits."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from jaxdistill.core.errors import UserError
from jaxdistill.data.hub import read_hub
from jaxdistill.data.parsing import derive_label_names, parse_split
from jaxdistill.data.readers import SUFFIXES, Columns, read_columns, split_files
from jaxdistill.data.splits import Split, contents_hash, stable_cut
from jaxdistill.data.tasks import TASKS, TOY_REVIEWS, Task, task_named
from jaxdistill.data.toy import toy_reviews

__all__ = ["DATA_VARIABLE", "Split", "TaskData", "load_task"]

DATA_VARIABLE = "JAXDISTILL_DATA"
DEV_FRACTION, DEV_AT_MOST = 0.1, 5000
TEST_FRACTION = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """A task with its data.

    Attributes:
      task: the row of the table, or the user's own task.
      train, dev, test: disjoint splits; choices are made on `dev`, `test` is read once.
      notes: what a user should know of these data (cuts, empty texts, ...), one line each.
      source: where they came from.
      source_hash: sha256 of the contents of all splits; the same for the same data in another file format.
    """

    task: Task
    train: Split
    dev: Split
    test: Split
    notes: tuple[str, ...]
    source: str
    source_hash: str


@dataclasses.dataclass(frozen=True)
class _Raw:
    """A split before it is checked: where it lies, and its columns."""

    where: str
    columns: Columns


def load_task(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    text_columns: tuple[str, ...] | None = None,
    label_column: str | None = None,
    label_names: tuple[str, ...] | None = None,
) -> TaskData:
    """Load a task from, in this order, `data_dir`, `$JAXDISTILL_DATA/<folder>`, the Hugging Face hub.

    A folder holds one parquet, csv, tsv or jsonl file a split (`train.*`, `validation.*` or `dev.*`, `test.*`).
    `dev` is always cut from `train` (10 % of each class, at most 5,000), by a hash of the texts. The validation split
    is the test split where a task has no labelled one, and is not used otherwise. Where only the split of the test role
    is there, it is cut in train (80 %) and test (20 %), and the notes say so.

    Args:
      name: a task of the table, or any name for a task of your own (then `data_dir`, `text_columns` and
        `label_column` are needed).
      data_dir: folder of files; nothing else is looked at when it is given.
      text_columns: one column, or two for a pair task; the table's by default.
      label_column: column of class ids or names; the table's by default.
      label_names: class names in order; by default the table's, or those in the training labels of your own task.

    Raises:
      UserError: unknown task; data not found; missing column or split; an empty split; null or undecodable text;
        a label outside the classes; a class too small to be in train and dev.
    """
    if name == TOY_REVIEWS:
        if any(x is not None for x in (data_dir, text_columns, label_column, label_names)):
            raise UserError(f"task {name!r} is built in; it takes no data_dir, columns or label_names")
        task = TASKS[name]
        train, test, toy_notes = toy_reviews()
        return _finish(task, train, test, list(toy_notes), "built in")

    task = _resolve(name, data_dir is not None, text_columns, label_column, label_names)
    raw, source = _find(task, None if data_dir is None else Path(data_dir))
    test_name = next((split for split in task.test_splits if split in raw), None)
    if test_name is None:
        raise UserError(
            f"task {name!r}: no split {' or '.join(map(repr, task.test_splits))} in {source}; "
            f"there are {', '.join(map(repr, raw)) or 'none'}"
        )
    if not task.label_names:
        first = raw.get(task.train_split, raw[test_name])
        label_names = derive_label_names(first.columns[task.label_column], first.where)
        task = dataclasses.replace(task, label_names=label_names)

    test = parse_split(raw[test_name].columns, task, raw[test_name].where)
    notes: list[str] = []
    if task.train_split in raw:
        train = parse_split(raw[task.train_split].columns, task, raw[task.train_split].where)
        if test_name != "test":
            notes.append(f"test is the split {test_name!r}")
        notes += [f"the split {split!r} is not used" for split in raw if split not in (test_name, task.train_split)]
    else:
        kept, cut = stable_cut(
            test, fraction=TEST_FRACTION, salt="test", label_names=task.label_names, where=raw[test_name].where
        )
        train, test = test.take(kept), test.take(cut)
        notes.append(
            f"there is no split {task.train_split!r}: {test_name!r} was cut by a stable hash of the texts in train "
            "(80 %) and test (20 %), so scores do not compare with published ones"
        )
    return _finish(task, train, test, notes, source)


def _resolve(
    name: str,
    has_folder: bool,
    text_columns: tuple[str, ...] | None,
    label_column: str | None,
    label_names: tuple[str, ...] | None,
) -> Task:
    """The task of the table with the user's changes, or the user's own."""
    if name not in TASKS and has_folder:
        if text_columns is None or label_column is None:
            raise UserError(f"task {name!r} is your own, so text_columns and label_column must be given")
        task = Task(name, None, None, name, text_columns, label_column, label_names=())
    else:
        task = task_named(name)
    given = {"text_columns": text_columns, "label_column": label_column, "label_names": label_names}
    task = dataclasses.replace(task, **{key: value for key, value in given.items() if value is not None})
    if len(task.text_columns) not in (1, 2):
        raise UserError(f"text_columns {task.text_columns!r}: one column, or two for a pair task, are accepted")
    if len(set(task.label_names)) != len(task.label_names):
        raise UserError(f"label_names {task.label_names!r} must differ from one another")
    return task


def _find(task: Task, data_dir: Path | None) -> tuple[dict[str, _Raw], str]:
    """Raw splits of a task by name, and where they came from."""
    if data_dir is not None:
        return _read_folder(task, data_dir), str(data_dir)
    root = os.environ.get(DATA_VARIABLE)
    if root:
        if not Path(root).is_dir():
            raise UserError(f"{DATA_VARIABLE} is {root!r}, which is not a folder; mend or unset it")
        folder = Path(root) / task.folder
        if folder.is_dir():
            return _read_folder(task, folder), f"${DATA_VARIABLE}/{task.folder}"
    try:
        splits = read_hub(task)
    except UserError as error:
        place = f"{root!r} has no folder {task.folder!r}" if root else "is not set"
        raise UserError(
            f"task {task.name!r} is nowhere to be found: no data_dir is given, ${DATA_VARIABLE} {place}, and {error}; "
            f"task {TOY_REVIEWS!r} needs no data"
        ) from error
    source = f"hub: {task.hub_id}"
    return {name: _Raw(f"{source}, split {name}", columns) for name, columns in splits.items()}, source


def _read_folder(task: Task, folder: Path) -> dict[str, _Raw]:
    """The splits that play a role, read; of the others only that they are there."""
    files = split_files(folder)
    roles = {task.train_split, next((name for name in task.test_splits if name in files), None)}
    columns = (*task.text_columns, task.label_column)
    if not files:
        raise UserError(f"{folder}: no {', '.join(SUFFIXES)} file; give one file a split (train.*, test.*)")
    return {name: _Raw(str(path), read_columns(path, columns) if name in roles else {}) for name, path in files.items()}


def _finish(task: Task, train: Split, test: Split, notes: list[str], source: str) -> TaskData:
    """Cut dev from train, and say what is odd."""
    kept, cut = stable_cut(
        train,
        fraction=DEV_FRACTION,
        at_most=DEV_AT_MOST,
        salt="dev",
        label_names=task.label_names,
        where=f"task {task.name!r}, split {task.train_split!r}",
    )
    splits = {"train": train.take(kept), "dev": train.take(cut), "test": test}
    notes.append(f"dev is {len(cut):,} of the {len(train):,} training examples")
    empty = {name: sum(not all(map(str.strip, text)) for text in split.texts) for name, split in splits.items()}
    if any(empty.values()):
        counts = ", ".join(f"{count:,} in {name}" for name, count in empty.items() if count)
        notes.append(f"empty texts are kept: {counts}")
    seen = set(test.texts)
    shared = sum(text in seen for text in train.texts)
    if shared:
        notes.append(f"training examples whose text is also in test are kept: {shared:,}")
    return TaskData(
        task=task,
        **splits,
        notes=tuple(notes),
        source=source,
        source_hash=contents_hash(splits.items(), task.label_names),
    )
