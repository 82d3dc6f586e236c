"""Prompts: texts that a language model is asked to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.parsing import check_text
from jaxdistill.data.readers import read_columns, split_files
from jaxdistill.data.sources import DATA_VARIABLE, DEV_AT_MOST, DEV_FRACTION, data_folder, load_task
from jaxdistill.data.splits import Split, stable_cut, text_hash
from jaxdistill.data.tasks import TASKS, Task, task_named
from jaxdistill.data.toxigen import TOXIGEN_CATEGORIES, TOXIGEN_GROUPS

TOXIGEN = "toxigen"


class Prompts(NamedTuple):
    """Texts to go on with, in the order of a hash.

    Attributes:
      texts: stripped; all different, none empty.
      categories: of whom each speaks, of ToxiGen; `None` for other sources.
      notes: what a user should know, one sentence each.
    """

    texts: tuple[str, ...]
    categories: tuple[str, ...] | None
    notes: tuple[str, ...]


def load_prompts(source: str, *, split: Literal["dev", "test"], words: int = 0, at_most: int = 0) -> Prompts:
    """Prompts from a data set.

    "toxigen" is the annotated part of ToxiGen in `$JAXDISTILL_DATA/toxigen`. With a test split there, that gives the
    test prompts, and dev is cut from the training split as for tasks (10 %, at most 5,000, by a hash of the text), with
    its share of each category. Without one, dev and test are those of the task `toxigen`. Rows on groups without a
    category are left out.

    Any other source is a task of single texts, found as `data.sources.load_task` finds it, whose dev or test split
    gives the first words of its texts.

    Args:
      source: "toxigen", or a task ("sst2").
      split: prompts of which split; the other has no say in which they are.
      words: words (parted by white space) of a prompt; texts that have no more are left out, so that all have been
        cut. 0 takes whole texts, which only ToxiGen's are meant for.
      at_most: take a fair sample of so many, the same share of each category; 0 takes all. A larger sample begins
        with the smaller ones' prompts.

    Raises:
      UserError: an unknown source or one that is not there, pairs or vectors, no `words` for a task, or no prompt left.
    """
    if split not in ("dev", "test"):
        raise UserError(f"prompts: split is {split!r}: accepted are dev and test")
    for name, value in (("words", words), ("at_most", at_most)):
        if value < 0:
            raise UserError(f"prompts: {name} is {value}: accepted is 0 or more")
    if source == TOXIGEN:
        texts, categories, notes = _toxigen(split)
    else:
        texts, categories, notes = _task(source, split, words), None, []
    places: dict[str, int] = {}
    short = 0
    for i, text in enumerate(texts):
        parts = text.split()
        if len(parts) > words:
            places.setdefault(" ".join(parts[:words]) if words else text.strip(), i)
        else:
            short += 1
    if not places:
        raise UserError(
            f"prompts of {source!r}: none of the {len(texts)} texts of its {split} split has more than {words} words"
        )
    if short:
        notes.append(f"prompts of {source}: {short:,} texts of no more than {words} words are left out")
    if again := len(texts) - short - len(places):
        notes.append(f"prompts of {source}: {again:,} that occur already are left out")
    kinds = {text: "" if categories is None else categories[i] for text, i in places.items()}
    chosen = _fair_order(kinds)
    if 0 < at_most < len(chosen):
        notes.append(f"prompts of {source}: {at_most:,} of {len(chosen):,} are taken, the first in the order of a hash")
        chosen = chosen[:at_most]
    return Prompts(tuple(chosen), None if categories is None else tuple(kinds[text] for text in chosen), tuple(notes))


def _fair_order(kinds: dict[str, str]) -> list[str]:
    """Texts in an order whose every beginning has about the same share of each kind, by hash within a kind."""
    members: dict[str, list[str]] = {}
    for text in sorted(kinds, key=lambda text: text_hash((text,), "order")):
        members.setdefault(kinds[text], []).append(text)
    # The text in the middle of its kind stands in the middle of all.
    placed = [((rank + 0.5) / len(same), text) for same in members.values() for rank, text in enumerate(same)]
    return [text for _, text in sorted(placed, key=lambda entry: entry[0])]


def _toxigen(split: str) -> tuple[list[str], list[str], list[str]]:
    """(texts, their categories, notes) of a split."""
    task = task_named(TOXIGEN)
    folder = data_folder(task)
    if folder is None:
        raise UserError(f"prompts of {TOXIGEN!r}: no folder {task.folder!r} under ${DATA_VARIABLE} with its data")
    files, notes = split_files(folder), []
    if "test" in files:
        path = files.get("train" if split == "dev" else "test")
        if path is None:
            raise UserError(
                f"prompts of {TOXIGEN!r}: {folder} has no split {task.train_split!r}, which dev is cut from"
            )
        columns = read_columns(path, (*task.text_columns, task.group_column))
        texts, groups = (columns[name] for name in (*task.text_columns, task.group_column))
        for row, text in enumerate(texts, start=1):
            check_text(text, task.text_columns[0], row, str(path))
    else:
        data = load_task(TOXIGEN)
        part: Split = getattr(data, split)
        texts = [text for (text,) in part.texts]
        groups = [data.task.group_names[number] for number in part.attributes["group"]]
        notes = [f"prompts of {TOXIGEN}: {note}" for note in data.notes]
    known = [i for i, group in enumerate(groups) if group in TOXIGEN_CATEGORIES]
    if left_out := len(groups) - len(known):
        notes.append(f"prompts of {TOXIGEN}: {left_out:,} rows on groups without a category are left out")
    if not known:
        raise UserError(f"prompts of {TOXIGEN!r}: no row speaks of a known group: {', '.join(TOXIGEN_CATEGORIES)}")
    texts, categories = [texts[i] for i in known], [TOXIGEN_CATEGORIES[groups[i]] for i in known]
    if split == "dev" and "test" in files:
        kept = _dev_part(texts, categories)
        texts, categories = [texts[i] for i in kept], [categories[i] for i in kept]
    return texts, categories, notes


def _dev_part(texts: Sequence[str], categories: Sequence[str]) -> list[int]:
    """Which training texts are the dev part."""
    names = tuple(name for name in TOXIGEN_GROUPS if name in categories)
    labels = np.asarray([names.index(category) for category in categories], np.int32)
    options = {"fraction": DEV_FRACTION, "at_most": DEV_AT_MOST, "salt": "dev", "label_names": names}
    _, cut = stable_cut(Split([(text,) for text in texts], labels), where=f"prompts of {TOXIGEN!r}", **options)
    return cut.tolist()


def _task(source: str, split: str, words: int) -> list[str]:
    """The texts of a task's split."""
    try:
        task = task_named(source)
    except UserError as error:
        names = [name for name, task in TASKS.items() if _has_prompts(task)]
        raise UserError(f"unknown source of prompts {source!r}: accepted are {', '.join(names)}") from error
    if not _has_prompts(task):
        raise UserError(f"prompts of {source!r}: accepted are tasks of single texts, not of vectors or pairs")
    if words < 1:
        raise UserError(f"prompts of {source!r}: words is {words}: accepted is 1 or more, words of a text to take")
    part: Split = getattr(load_task(source), split)
    return [text for (text,) in part.texts]


def _has_prompts(task: Task) -> bool:
    return task.vector_format is None and len(task.text_columns) == 1
