"""Texts for language models: the texts of a task's split, without labels, and files of one's own."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.hate_speech import read_hate_speech
from jaxdistill.data.hub import read_hub
from jaxdistill.data.parsing import check_text
from jaxdistill.data.readers import SUFFIXES, Columns, read_columns, read_text, split_files
from jaxdistill.data.sources import DATA_VARIABLE, DEV_AT_MOST, DEV_FRACTION, data_folder, load_task
from jaxdistill.data.splits import Split, contents_hash, stable_cut, text_hash
from jaxdistill.data.tasks import TOY_BIAS, TOY_REVIEWS, Task, reviews_share, task_named

TEXT_SUFFIXES = (".txt", ".txt.gz")
DEFAULT_COLUMN = "text"
HATE_SPEECH = "hate_speech"
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Texts to train a language model on.

    Attributes:
      train, dev: texts, stripped, none empty; no text is in both. Those of dev stand in the order of a hash, so that
        the first so many of them are a fair sample.
      notes: what a user should know, one line each.
      source_hash: sha256 of the contents.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    notes: tuple[str, ...]
    source_hash: str


@dataclasses.dataclass(frozen=True)
class Judged:
    """Labelled texts that end with what is thought of them, so that a language model learns to say it.

    Attributes:
      tasks: their names.
      ending: what follows a text; {label} stands for the label word.
      label_words: one a class; empty takes the label names of the tasks.
      window: words of a piece: texts are cut into such pieces, from their end on, and each is judged as its text is;
        what is left at the beginning is a piece too where it is half as long. 0 leaves texts whole.
    """

    tasks: tuple[str, ...]
    ending: str
    label_words: tuple[str, ...] = ()
    window: int = 0

    def part(self, name: str) -> _Part:
        """Training and dev texts of one of the tasks.

        Raises:
          UserError: see `data.sources.load_task`; a task of vectors, or not as many label words as classes.
        """
        if task_named(name).vector_format is not None:
            raise UserError(f"corpus {name!r}: the task is of vectors and holds no texts")
        data = load_task(name)
        words = self.label_words or data.task.label_names
        if len(words) != len(data.task.label_names):
            raise UserError(
                f"corpus.label_words are {len(words)}, and {name} has {len(data.task.label_names)} classes: give one "
                "a class"
            )
        return _checked(_Part(self._texts(data.train, words), self._texts(data.dev, words)), name)

    def _texts(self, split: Split, words: Sequence[str]) -> list[str]:
        texts = []
        for text, label in zip(_joined(split.texts), split.labels, strict=True):
            ending = self.ending.replace("{label}", words[int(label)])
            texts += [piece + ending for piece in self._pieces(text)]
        return texts

    def _pieces(self, text: str) -> list[str]:
        words = text.split()
        if not self.window or len(words) <= self.window:
            return [text.strip()] if words else []
        starts = range(len(words) - self.window, -self.window, -self.window)
        pieces = [words[max(start, 0) : start + self.window] for start in starts]
        return [" ".join(piece) for piece in pieces[::-1] if 2 * len(piece) >= self.window]


class _Part(NamedTuple):
    """Texts of one source."""

    train: list[str]
    dev: list[str]


def load_corpus(sources: Sequence[str], *, judged: Judged | None = None, lower: bool = False) -> Corpus:
    """Texts of several sources, one after another.

    A source is one of

    - a task, found as `data.sources.load_task` finds it ("sst2"): the texts of its training split. Its dev split is the
      dev part here too, so whatever is chosen on dev later has not been trained on. The texts of a pair are two lines;
    - one class of it ("imdb[neg]"): the texts with that label, train and dev alike;
    - a further split of a task's data, labelled or not ("imdb/unsupervised_20k"); test splits are refused;
    - "hate_speech:" and a file: the corpus that UniDetox makes a model toxic with, see `data.hate_speech`;
    - a file, looked for here and then under `$JAXDISTILL_DATA`: .txt or .txt.gz, in which blank lines part the texts,
      or .parquet, .csv, .tsv or .jsonl with the texts in the column `text`, or in another one ("reviews.csv:body").

    Of splits without a dev part and of files, dev is cut as for tasks: 10 %, at most 5,000, by a hash of the text.
    Training texts that are in the dev part of another source are left out.

    Args:
      sources: may be empty beside `judged`.
      judged: labelled texts that stand beside them.
      lower: write all texts in lower case.

    Raises:
      UserError: a source cannot be found or read, is a test split or of vectors, or of a class that the task does not
        have; it holds fewer than two different texts; texts that are no strings.
    """
    parts = [_load(source) for source in sources]
    if judged is not None:
        parts += [judged.part(name) for name in judged.tasks]
        sources = [*sources, *(f"{name} (judged)" for name in judged.tasks)]
    if not parts:
        raise UserError("the corpus has no sources: give a task, a split of one, or a file")
    if lower:
        parts = [_Part(*([text.lower() for text in texts] for texts in part)) for part in parts]
    dev = {text: None for part in parts for text in part.dev}
    train = [text for part in parts for text in part.train if text not in dev]
    notes = [
        f"{source}: {len(part.train):,} texts to train on, {len(part.dev):,} in dev"
        for source, part in zip(sources, parts, strict=True)
    ]
    if left_out := sum(len(part.train) for part in parts) - len(train):
        notes.append(f"training texts that are also in the dev part of another source are left out: {left_out:,}")
    if not train:
        raise UserError(f"corpus {', '.join(sources)}: no training text is left that is not in the dev part as well")
    ordered = sorted(dev, key=lambda text: text_hash((text,), "order"))
    digest = contents_hash([("train", _split(train)), ("dev", _split(ordered))], ())
    return Corpus(tuple(train), tuple(ordered), tuple(notes), digest)


def _load(source: str) -> _Part:
    name, _, column = source.partition(":")
    if name == HATE_SPEECH:
        found = read_hate_speech(_find_file(column))
        return _checked(_Part(list(found.train), list(found.dev)), source)
    if name.endswith((*TEXT_SUFFIXES, *SUFFIXES)):
        return _cut(_read_file(_find_file(name), column), source)
    source, of_class = _class_of(source)
    if source in (TOY_REVIEWS, TOY_BIAS) or reviews_share(source) is not None:
        name, split = source, "train"
    else:
        name, _, split = source.partition("/")
    task = task_named(name)
    if task.vector_format is not None:
        raise UserError(f"corpus {source!r}: the task is of vectors and holds no texts")
    split = split or task.train_split
    if split == task.train_split:
        data = load_task(name)
        parts = data.train, data.dev
        if of_class:
            if of_class not in data.task.label_names:
                raise UserError(
                    f"corpus {source}[{of_class}]: the task has no such class; accepted are "
                    f"{', '.join(data.task.label_names)}"
                )
            number = data.task.label_names.index(of_class)
            parts = tuple(part.take(np.flatnonzero(part.labels == number)) for part in parts)
        return _checked(_Part(*(_joined(part.texts) for part in parts)), source)
    if split in task.test_splits:
        raise UserError(f"corpus {source!r}: {split} is the test split, which nothing is trained on")
    if of_class:
        raise UserError(f"corpus {source}[{of_class}]: classes are told apart in the training split alone")
    columns = _read_split(task, split)
    return _cut(_joined(list(zip(*(columns[column] for column in task.text_columns), strict=True))), source)


def _class_of(source: str) -> tuple[str, str]:
    """A source without the class that it is limited to, and that class."""
    name, bracket, rest = source.partition("[")
    return (name, rest[:-1]) if bracket and rest.endswith("]") else (source, "")


def _read_split(task: Task, split: str) -> Columns:
    """The text columns of a split that plays no role in the task."""
    folder = data_folder(task)
    if folder is None:
        splits = read_hub(task)
    else:
        files = split_files(folder)
        splits = {split: read_columns(files[split], task.text_columns)} if split in files else dict.fromkeys(files, {})
    if split not in splits:
        raise UserError(f"corpus {task.name}/{split}: there is no such split; there are {', '.join(splits) or 'none'}")
    columns = splits[split]
    for column in task.text_columns:
        _check(columns[column], column, f"{task.name}/{split}")
    return columns


def _read_file(path: Path, column: str) -> list[str]:
    if path.name.endswith(TEXT_SUFFIXES):
        if column:
            raise UserError(f"{path}: a text file has no column {column!r}; give the file alone")
        text = read_text(path).replace("\r\n", "\n")
        return _BLANK_LINES.split(text)
    column = column or DEFAULT_COLUMN
    values = read_columns(path, (column,))[column]
    _check(values, column, str(path))
    return values


def _find_file(name: str) -> Path:
    root = os.environ.get(DATA_VARIABLE)
    places = [Path(name), *([Path(root) / name] if root else [])]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise UserError(f"corpus file {name!r} does not exist, neither here nor under ${DATA_VARIABLE} ({root!r})")
    return found


def _check(values: list, column: str, where: str) -> None:
    for row, text in enumerate(values, start=1):
        check_text(text, column, row, where)


def _joined(texts: Sequence[tuple[str, ...]]) -> list[str]:
    return ["\n".join(field.strip() for field in text) for text in texts]


def _cut(texts: list[str], source: str) -> _Part:
    """Part of the texts as dev, by a hash."""
    texts = [text.strip() for text in texts if text.strip()]
    if len(set(texts)) < 2:
        raise UserError(
            f"corpus {source!r} holds {len(set(texts))} different texts: dev is cut from them, so at least 2 are "
            "needed (blank lines part the texts of a text file)"
        )
    options = {"fraction": DEV_FRACTION, "at_most": DEV_AT_MOST, "salt": "dev", "label_names": ("text",)}
    kept, cut = stable_cut(_split(texts), where=source, **options)
    return _Part([texts[i] for i in kept], [texts[i] for i in cut])


def _checked(part: _Part, source: str) -> _Part:
    """Stripped, without empty texts."""
    train, dev = ([text.strip() for text in texts if text.strip()] for texts in part)
    if not train or not dev:
        raise UserError(f"corpus {source!r} holds no text that is not empty in its {'dev' if train else 'train'} part")
    return _Part(train, dev)


def _split(texts: Sequence[str]) -> Split:
    """Texts as a split of one class."""
    return Split([(text,) for text in texts], np.zeros(len(texts), np.int32))
