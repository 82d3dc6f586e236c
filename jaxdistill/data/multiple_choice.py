"""Questions with several answers to choose from, such as those of MMLU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill.core.errors import UserError
from jaxdistill.data.readers import read_columns


class Question(NamedTuple):
    """One question.

    Attributes:
      question: its text.
      choices: the answers, two at least.
      answer: number of the right one, from 0.
      subject: what it is about; empty where the file does not say.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    subject: str = ""


def read_questions(
    path: Path,
    *,
    question: str = "question",
    choices: str | Sequence[str] = "choices",
    answer: str = "answer",
    subject: str | None = "subject",
) -> list[Question]:
    """Questions of a parquet, csv, tsv or jsonl file with the columns of cais/mmlu, or others.

    An answer is the number of a choice from 0, or its letter from A.

    Args:
      path: of the file.
      question, answer: names of columns.
      choices: one column of lists (in csv and tsv, as JSON), or several columns with a choice each.
      subject: name of a column; `None` where there is none.

    Raises:
      UserError: unreadable file, column not there, no rows, fewer than two choices, or an answer that is none of them.
    """
    several = not isinstance(choices, str)
    names = (*choices,) if several else (choices,)
    columns = read_columns(path, (question, answer, *names, *(() if subject is None else (subject,))))
    count = len(columns[question])
    if not count:
        raise UserError(f"{path}: there are no questions; at least one row is needed")
    found = []
    for row in range(count):
        where = f"{path}: row {row + 1}"
        given = [columns[name][row] for name in names] if several else _list(columns[names[0]][row], where)
        if len(given) < 2 or not all(isinstance(choice, str) for choice in given):
            raise UserError(f"{where}: choices are {_shown(given)}; two or more texts are expected")
        text = columns[question][row]
        if not isinstance(text, str):
            raise UserError(f"{where}: {question} is of type {type(text).__name__}; a text is expected")
        number = _answer(columns[answer][row], len(given), where)
        about = "" if subject is None else str(columns[subject][row])
        found.append(Question(text, tuple(given), number, about))
    return found


def _list(value: Any, where: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise UserError(f"{where}: choices are no list; a list of texts is expected, in csv and tsv written as JSON")
    return value


def _answer(value: Any, count: int, where: str) -> int:
    letters = [chr(ord("A") + i) for i in range(count)]
    text = str(value).strip()
    if text in letters:
        return letters.index(text)
    if text.isdecimal() and int(text) < count:
        return int(text)
    raise UserError(
        f"{where}: answer {value!r} is none of the {count} choices: give 0 to {count - 1}, or A to {letters[-1]}"
    )


def _shown(value: Any, width: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
