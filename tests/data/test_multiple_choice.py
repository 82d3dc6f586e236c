"""Questions of parquet, csv and jsonl files."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import refused

from jaxdistill.data.multiple_choice import Question, read_questions

ROWS = [
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0, "subject": "physics"},
    {"question": "2 + 2, at most?", "choices": ["3", "4", "5"], "answer": 1, "subject": "maths"},
]
QUESTIONS = [Question(r["question"], tuple(r["choices"]), r["answer"], r["subject"]) for r in ROWS]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_formats(suffix, tmp_path):
    path = tmp_path / f"test.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        quoted = ['Is ice cold?,"[""yes"", ""no""]",A,physics', '"2 + 2, at most?","[""3"", ""4"", ""5""]",1,maths']
        path.write_text("\n".join(["question,choices,answer,subject", *quoted]))
    assert read_questions(path) == QUESTIONS


def test_other_columns(tmp_path):
    path = tmp_path / "quiz.csv"
    path.write_text("stem,A,B,key\nIs ice cold?,yes,no,B\n")
    found = read_questions(path, question="stem", choices=("A", "B"), answer="key", subject=None)
    assert found == [Question("Is ice cold?", ("yes", "no"), 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": 2}, "row 1: answer 2 is none of the 2 choices: give 0 to 1, or A to B"),
        ({"answer": "C"}, "answer 'C' is none of the 2 choices"),
        ({"answer": -1}, "answer -1 is none of"),
        ({"choices": ["yes"]}, "choices are ['yes']; two or more texts are expected"),
        ({"choices": [1, 2]}, "choices are [1, 2]; two or more texts"),
        ({"choices": "['yes' 'no']"}, "choices are no list"),
        ({"question": None}, "question is of type NoneType; a text is expected"),
    ],
)
def test_refuses(row, message, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0] | row))
    with refused(message):
        read_questions(tmp_path / "test.jsonl")


def test_refuses_no_questions(tmp_path):
    (tmp_path / "test.csv").write_text("question,choices,answer,subject\n")
    with refused("there are no questions"):
        read_questions(tmp_path / "test.csv")
