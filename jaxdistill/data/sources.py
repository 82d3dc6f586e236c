"""Load a task: find its files, check them, and cut strict train, dev and test splits."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.data.hub import read_hub
from jaxdistill.data.parsing import derive_group_names, derive_label_names, make_split, parse_split
from jaxdistill.data.readers import SUFFIXES, Columns, read_columns, split_files
from jaxdistill.data.splits import Split, contents_hash, row_names, stable_cut
from jaxdistill.data.tasks import TASKS, TOY_BIAS, TOY_REVIEWS, Task, reviews_share, task_named, vector_task
from jaxdistill.data.toy import toy_reviews, toy_reviews_at
from jaxdistill.data.toy_bias import toy_bias
from jaxdistill.data.vectors import array_names, has_arrays, read_vectors

__all__ = ["DATA_VARIABLE", "Split", "TaskData", "load_task"]

DATA_VARIABLE = "JAXDISTILL_DATA"
DEV_FRACTION, DEV_AT_MOST = 0.1, 5000
TEST_FRACTION = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class TaskData:
    """A task with its data.

    Attributes:
      task: the row of the table, or the user's own task.
      train, dev, test: disjoint splits; choices are made on `dev`, `test` is read once. Their attribute `group` is the
        protected group, as an index of `task.group_names`, where that is known.
      notes: what a user should know of these data (cuts, empty texts, ...), one line each.
      source: where they came from.
      source_hash: sha256 of the contents of all splits; the same for the same data in another file format.
      vectors: of a task of vectors, one row an example: those of train, dev and test, one after another. The texts are
        then names, or what the vectors were made of, and stand for them word by word: see `models.words.row_vectors`.
    """

    task: Task
    train: Split
    dev: Split
    test: Split
    notes: tuple[str, ...]
    source: str
    source_hash: str
    vectors: Float[np.ndarray, "v d"] | None = None


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
    group_column: str | None = None,
) -> TaskData:
    """Load a task from, in this order, `data_dir`, `$JAXDISTILL_DATA/<folder>`, the Hugging Face hub.

    A folder holds one parquet, csv, tsv or jsonl file a split (`train.*`, `validation.*` or `dev.*`, `test.*`).
    `dev` is always cut from `train` (10 % of each class, at most 5,000), by a hash of the texts. The validation split
    is the test split where a task has no labelled one, and is not used otherwise. Where only the split of the test role
    is there, it is cut in train (80 %) and test (20 %), and the notes say so. Where a column tells protected groups,
    both cuts keep their shares within each class.

    Tasks of vectors have folders of their own, see `data.vectors`; their dev split is that of the data, where there is
    one. A folder of your own with `train.npz`, or with a parquet column `vectors`, is such a task when `text_columns`
    is not given; its labels are called `labels` and its groups, if any, `group`, unless you name them. Two tasks are
    built in: `toy/reviews`, with texts (`toy/reviews:0.8` has a writer group that goes with the label in 80 % of the
    training texts, and dev and test where it does not), and `toy/bias`, with vectors.

    Args:
      name: a task of the table, or any name for a task of your own (then `data_dir`, `text_columns` and
        `label_column` are needed).
      data_dir: folder of files; nothing else is looked at when it is given.
      text_columns: one column, or two for a pair task; the table's by default.
      label_column: column of class ids or names; the table's by default.
      label_names: class names in order; by default the table's, or those in the training labels of your own task.
      group_column: column of protected groups; the table's by default, which for most tasks is none.

    Raises:
      UserError: unknown task; data not found; missing column or split; an empty split; null or undecodable text;
        a label outside the classes; a class too small to be in train and dev; vectors that are not finite.
    """
    if name in (TOY_REVIEWS, TOY_BIAS) or reviews_share(name) is not None:
        if any(x is not None for x in (data_dir, text_columns, label_column, label_names, group_column)):
            raise UserError(f"task {name!r} is built in; it takes no data_dir, columns or label_names")
        return _built_in(name)

    folder = None if data_dir is None else Path(data_dir)
    if name not in TASKS and folder is not None and text_columns is None and has_arrays(folder):
        task = _own_vectors(name, folder, label_column, label_names, group_column)
    else:
        task = _resolve(name, folder is not None, text_columns, label_column, label_names, group_column)
    if task.vector_format is not None:
        return _vector_data(task, folder)
    raw, source = _find(task, folder)
    test_name = next((split for split in task.test_splits if split in raw), None)
    if test_name is None:
        raise UserError(
            f"task {name!r}: no split {' or '.join(map(repr, task.test_splits))} in {source}; "
            f"there are {', '.join(map(repr, raw)) or 'none'}"
        )
    first = raw.get(task.train_split, raw[test_name])
    if not task.label_names:
        label_names = derive_label_names(first.columns[task.label_column], first.where)
        task = dataclasses.replace(task, label_names=label_names)
    if task.group_column and not task.group_names:
        group_names = derive_group_names(first.columns[task.group_column], first.where)
        task = dataclasses.replace(task, group_names=group_names)

    test = parse_split(raw[test_name].columns, task, raw[test_name].where)
    notes: list[str] = []
    if task.train_split in raw and test_name != task.train_split:
        train = parse_split(raw[task.train_split].columns, task, raw[task.train_split].where)
        if test_name != "test":
            notes.append(f"test is the split {test_name!r}")
        notes += [f"the split {split!r} is not used" for split in raw if split not in (test_name, task.train_split)]
    else:
        kept, cut = stable_cut(
            test,
            fraction=TEST_FRACTION,
            salt="test",
            label_names=task.label_names,
            where=raw[test_name].where,
            groups=_groups(task, test),
        )
        train, test = test.take(kept), test.take(cut)
        absent = task.test_splits[0] if test_name == task.train_split else task.train_split
        notes.append(
            f"there is no split {absent!r}: {test_name!r} was cut by a stable hash of the texts in train "
            "(80 %) and test (20 %), so scores do not compare with published ones"
        )
    return _finish(task, {"train": train, "test": test}, notes, source)


def _built_in(name: str) -> TaskData:
    task, vectors = task_named(name), None
    if name == TOY_BIAS:
        splits, vectors, notes = toy_bias()
    elif (share := reviews_share(name)) is not None:
        splits, notes = toy_reviews_at(share)
    else:
        train, test, notes = toy_reviews()
        splits = {"train": train, "test": test}
    return _finish(task, splits, list(notes), "built in", vectors)


def _own_vectors(
    name: str,
    folder: Path,
    label_column: str | None,
    label_names: tuple[str, ...] | None,
    group_column: str | None,
) -> Task:
    """The task of a folder of vectors; its groups are read where the training file has them."""
    task = vector_task(name, "arrays", label_names or (), label_column=label_column or "labels")
    train = split_files(folder, (".npz", ".parquet")).get(task.train_split)
    if group_column is None and train is not None and "group" in array_names(train):
        group_column = "group"
    return dataclasses.replace(task, group_column=group_column or "")


def _vector_data(task: Task, folder: Path | None) -> TaskData:
    """A task of vectors, from `folder` or `$JAXDISTILL_DATA`."""
    source = str(folder)
    if folder is None:
        folder, source = data_folder(task), f"${DATA_VARIABLE}/{task.folder}"
        if folder is None:
            raise UserError(
                f"task {task.name!r} is nowhere to be found: no data_dir is given, ${DATA_VARIABLE} "
                f"{_unset(task)}, and it is not on the hub; task {TOY_BIAS!r} needs no data"
            )
    read, notes = read_vectors(task, folder)
    train = read["train"]
    if not task.label_names:
        task = dataclasses.replace(task, label_names=derive_label_names(train.labels, train.where))
    if task.group_column and not task.group_names:
        task = dataclasses.replace(task, group_names=derive_group_names(train.groups or [], train.where))
    splits = {
        name: make_split(row_names(name, len(part.vectors)), part.labels, part.groups, task, part.where)
        for name, part in read.items()
    }
    return _finish(task, splits, notes, source, {name: part.vectors for name, part in read.items()})


def _resolve(
    name: str,
    has_folder: bool,
    text_columns: tuple[str, ...] | None,
    label_column: str | None,
    label_names: tuple[str, ...] | None,
    group_column: str | None,
) -> Task:
    """The task of the table with the user's changes, or the user's own."""
    if name not in TASKS and has_folder:
        if text_columns is None or label_column is None:
            raise UserError(f"task {name!r} is your own, so text_columns and label_column must be given")
        task = Task(name, None, None, name, text_columns, label_column, label_names=())
    else:
        task = task_named(name)
    given = {"text_columns": text_columns, "label_column": label_column, "label_names": label_names}
    given["group_column"] = group_column
    if task.vector_format is not None and any(value is not None for value in given.values()):
        raise UserError(f"task {name!r} is of vectors, whose files name all: it takes no columns and no label_names")
    if group_column is not None and group_column != task.group_column:
        task = dataclasses.replace(task, group_names=())
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
    folder = data_folder(task)
    if folder is not None:
        return _read_folder(task, folder), f"${DATA_VARIABLE}/{task.folder}"
    try:
        if task.hub_id is None:
            raise UserError("it is not on the hub")
        splits = read_hub(task)
    except UserError as error:
        raise UserError(
            f"task {task.name!r} is nowhere to be found: no data_dir is given, ${DATA_VARIABLE} {_unset(task)}, and "
            f"{error}; task {TOY_REVIEWS!r} needs no data"
        ) from error
    source = f"hub: {task.hub_id}"
    return {name: _Raw(f"{source}, split {name}", columns) for name, columns in splits.items()}, source


def data_folder(task: Task) -> Path | None:
    """The task's folder under `$JAXDISTILL_DATA`; `None` where there is none."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        return None
    if not Path(root).is_dir():
        raise UserError(f"{DATA_VARIABLE} is {root!r}, which is not a folder; mend or unset it")
    folder = Path(root) / task.folder
    return folder if folder.is_dir() else None


def _unset(task: Task) -> str:
    """What stands behind `$JAXDISTILL_DATA` in an error."""
    root = os.environ.get(DATA_VARIABLE)
    return f"{root!r} has no folder {task.folder!r}" if root else "is not set"


def _read_folder(task: Task, folder: Path) -> dict[str, _Raw]:
    """The splits that play a role, read; of the others only that they are there."""
    files = split_files(folder)
    roles = {task.train_split, next((name for name in task.test_splits if name in files), None)}
    if not files:
        raise UserError(f"{folder}: no {', '.join(SUFFIXES)} file; give one file a split (train.*, test.*)")
    return {
        name: _Raw(str(path), read_columns(path, task.columns) if name in roles else {}) for name, path in files.items()
    }


def _groups(task: Task, split: Split) -> Int[np.ndarray, " n"] | None:
    """The protected groups that came with the data; those of the built-in corpora follow from what is generated."""
    return split.attributes["group"] if task.group_column else None


def _finish(
    task: Task,
    splits: dict[str, Split],
    notes: list[str],
    source: str,
    vectors: dict[str, Float[np.ndarray, "_ d"]] | None = None,
) -> TaskData:
    """Cut dev from train where there is none, and say what is odd."""
    if "dev" not in splits:
        train = splits["train"]
        kept, cut = stable_cut(
            train,
            fraction=DEV_FRACTION,
            at_most=DEV_AT_MOST,
            salt="dev",
            label_names=task.label_names,
            where=f"task {task.name!r}, split {task.train_split!r}",
            groups=_groups(task, train),
        )
        splits = {"train": train.take(kept), "dev": train.take(cut), "test": splits["test"]}
        if vectors is not None:
            rows = vectors["train"]
            vectors = {"train": rows[kept], "dev": rows[cut], "test": vectors["test"]}
        notes.append(f"dev is {len(cut):,} of the {len(train):,} training examples")
    empty = {name: sum(not all(map(str.strip, text)) for text in split.texts) for name, split in splits.items()}
    if any(empty.values()):
        counts = ", ".join(f"{count:,} in {name}" for name, count in empty.items() if count)
        notes.append(f"empty texts are kept: {counts}")
    seen = set(splits["test"].texts)
    shared = sum(text in seen for name in ("train", "dev") for text in splits[name].texts)
    if shared:
        notes.append(f"training examples whose text is also in test are kept: {shared:,}")
    roles = ("train", "dev", "test")
    table = None if vectors is None else np.concatenate([vectors[name] for name in roles])
    return TaskData(
        task=task,
        train=splits["train"],
        dev=splits["dev"],
        test=splits["test"],
        notes=tuple(notes),
        source=source,
        source_hash=contents_hash(
            [(name, splits[name]) for name in roles],
            task.label_names,
            group_names=task.group_names if task.group_column else (),
            vectors=table,
        ),
        vectors=table,
    )
