"""Files of a user's own in every format, and the one-line error of each bad input."""

from __future__ import annotations

import csv
import json
import sys
import time
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ask_silent_hub

from jaxdistill.core.errors import UserError
from jaxdistill.data.sources import load_task

TRAIN = [(f'train "{i}", naïve\u2028', ("bad", "good")[i % 2]) for i in range(20)] + [("", "bad")]
TEST = [("one", "good"), ("two", "bad"), ("", "good")]
COLUMNS = {"text_columns": ("review",), "label_column": "stars"}


def write(path: Path, rows: list[tuple], names: tuple[str, ...] = ("review", "stars")) -> None:
    """Write rows in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [r[name] for r in records] for name in names}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    elif path.suffix == ".tsv":
        lines = ["\t".join(map(str, row)) for row in (names, *rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([names, *rows])


def folder(path: Path, suffix: str = ".csv", train=TRAIN, test=TEST) -> Path:
    write(path / f"train{suffix}", train)
    write(path / f"test{suffix}", test)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_formats_give_the_same_data(tmp_path, suffix):
    data = load_task("mine", data_dir=folder(tmp_path, suffix), **COLUMNS)
    assert data.source_hash == "126340c9642b00b82864084ee83e872502b5381b4be6bc8744f3d6ec745a8fcc"
    assert data.task.label_names == ("bad", "good")
    assert data.test.texts == [("one",), ("two",), ("",)]
    assert data.test.labels.tolist() == [1, 0, 1]
    assert (len(data.train), len(data.dev)) == (19, 2)
    assert data.dev.class_counts(2).tolist() == [1, 1]
    assert data.notes == (
        "dev is 2 of the 21 training examples",
        "empty texts are kept: 1 in train, 1 in test",
        "training examples whose text is also in test are kept: 1",
    )


def test_whole_number_labels_and_given_names_agree_over_formats(tmp_path):
    rows = [(f"t {i}", i % 2 + 1) for i in range(20)]
    hashes = set()
    for suffix in (".parquet", ".csv", ".jsonl"):
        path = folder(tmp_path / suffix[1:], suffix, train=rows, test=rows[:4])
        hashes.add(load_task("mine", data_dir=path, label_names=("1", "2"), **COLUMNS).source_hash)
    assert len(hashes) == 1


def test_validation_is_the_test_split_only_where_there_is_no_other(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "dev.csv", TEST)
    data = load_task("mine", data_dir=tmp_path, **COLUMNS)
    assert len(data.test) == 3
    assert data.notes[0] == "test is the split 'validation'"
    write(tmp_path / "test.csv", TEST[:2])
    data = load_task("mine", data_dir=tmp_path, **COLUMNS)
    assert len(data.test) == 2
    assert data.notes[0] == "the split 'validation' is not used"


def test_without_train_the_other_split_is_cut_and_said(tmp_path):
    write(tmp_path / "test.csv", TRAIN)
    data = load_task("mine", data_dir=tmp_path, **COLUMNS)
    assert (len(data.train), len(data.dev), len(data.test)) == (15, 2, 4)
    assert not set(data.test.texts) & set(data.train.texts + data.dev.texts)
    assert data.notes[0].startswith("there is no split 'train': 'test' was cut by a stable hash")


def test_texts_of_train_in_test_are_counted(tmp_path):
    data = load_task("mine", data_dir=folder(tmp_path, test=TRAIN[:3]), **COLUMNS)
    assert data.notes[-1] == "training examples whose text is also in test are kept: 3"


def test_environment_folder_and_column_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path))
    rows = [(f"t {i}", f"u {i}", i % 2) for i in range(20)]
    write(tmp_path / "sst2" / "train.csv", rows, ("sentence", "other", "label"))
    write(tmp_path / "sst2" / "validation.csv", rows[:4], ("sentence", "other", "label"))
    data = load_task("sst2")
    assert data.source == "$JAXDISTILL_DATA/sst2"
    assert data.test.texts[0] == ("t 0",)
    assert load_task("sst2", text_columns=("other",)).test.texts[0] == ("u 0",)
    assert load_task("sst2", text_columns=("sentence", "other")).test.texts[0] == ("t 0", "u 0")


BAD = {
    "no_folder": (lambda d: None, "data folder '{d}' does not exist; give a folder with train.* and test.* files"),
    "no_file": (
        lambda d: d.mkdir(),
        "{d}: no .parquet, .csv, .tsv, .jsonl file; give one file a split (train.*, test.*)",
    ),
    "no_test": (
        lambda d: write(d / "train.csv", TRAIN),
        "task 'mine': no split 'test' or 'validation' in {d}; there are 'train'",
    ),
    "two_files": (
        lambda d: (folder(d), write(d / "train.tsv", TEST)),
        "{d}: train.csv and train.tsv are both the split 'train'; keep one",
    ),
    "no_column": (
        lambda d: (folder(d), write(d / "test.csv", TEST, ("review", "star"))),
        "{d}/test.csv: no column 'stars'; there are 'review', 'star'",
    ),
    "no_column_parquet": (
        lambda d: (folder(d, ".parquet"), write(d / "test.parquet", TEST, ("text", "stars"))),
        "{d}/test.parquet: no column 'review'; there are 'text', 'stars'",
    ),
    "empty_file": (
        lambda d: (folder(d), (d / "test.csv").write_text("")),
        "{d}/test.csv: no column 'review'; there are none",
    ),
    "empty_split": (lambda d: folder(d, test=[]), "{d}/test.csv: the split is empty; it needs at least one row"),
    "strange_label": (
        lambda d: folder(d, test=[("x", "good"), ("y", "odd\nline")]),
        "{d}/test.csv: row 2: label 'odd\\nline' is outside the classes 0..1 (bad, good)",
    ),
    "minus_one": (
        lambda d: folder(d, ".parquet", train=[(f"{i}", i % 2) for i in range(20)], test=[("x", -1)]),
        "{d}/test.parquet: row 1: label -1 is outside the classes 0..1 (0, 1)",
    ),
    "null_label": (lambda d: folder(d, test=[("x", "")]), "{d}/test.csv: row 1: the label is null"),
    "null_text": (
        lambda d: folder(d, ".parquet", test=[("x", "good"), (None, "bad")]),
        "{d}/test.parquet: row 2: review is null; a text must be a string (it may be empty)",
    ),
    "number_text": (
        lambda d: folder(d, ".jsonl", test=[(3, "good")]),
        "{d}/test.jsonl: row 1: review is of type int; a text must be a string",
    ),
    "lone_surrogate": (
        lambda d: (folder(d, ".jsonl"), (d / "test.jsonl").write_text('{"review": "\\ud800", "stars": "good"}')),
        "{d}/test.jsonl: row 1: review is not valid Unicode (surrogates not allowed)",
    ),
    "gaps": (
        lambda d: folder(d, train=[(f"{i}", i % 3 + 1) for i in range(20)]),
        "{d}/train.csv: labels are 1, 2, 3; give label_names, or number the classes 0, 1, 2, ...",
    ),
    "one_class": (
        lambda d: folder(d, train=[(f"{i}", "x") for i in range(20)]),
        "{d}/train.csv: labels hold 1 class(es); classification takes at least 2",
    ),
    "class_of_one": (
        lambda d: folder(d, train=[*TRAIN, ("z", "fair")]),
        "task 'mine', split 'train': class 'fair' has 1 distinct text; cutting it in two takes at least 2",
    ),
    "latin1": (
        lambda d: (folder(d), (d / "train.csv").write_bytes("review,stars\nfine,good\ncafé,bad\n".encode("latin-1"))),
        "{d}/train.csv: not UTF-8: byte 0xe9 at position 26 (line 3); save the file as UTF-8",
    ),
    "short_row": (
        lambda d: (folder(d), (d / "train.csv").write_text("review,stars\nfine\n")),
        "{d}/train.csv: line 2 has 1 fields; the header has 2",
    ),
    "open_quote": (
        lambda d: (folder(d), (d / "train.csv").write_text('review,stars\n"fine,good\n')),
        "{d}/train.csv: line 2: unexpected end of data",
    ),
    "not_json": (
        lambda d: (folder(d, ".jsonl"), (d / "train.jsonl").write_text('{"review": "x", "stars": 1}\n{"review"\n')),
        "{d}/train.jsonl: line 2 is not JSON (Expecting ':' delimiter at column 10)",
    ),
    "not_an_object": (
        lambda d: (folder(d, ".jsonl"), (d / "train.jsonl").write_text("[1]\n")),
        "{d}/train.jsonl: line 1 is a JSON list; each line must be an object",
    ),
    "key_left_out": (
        lambda d: (folder(d, ".jsonl"), (d / "train.jsonl").write_text('{"review": "x"}\n')),
        "{d}/train.jsonl: line 1: no column 'stars'; there are 'review'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_clear_line(tmp_path, case):
    make, message = BAD[case]
    where = tmp_path / "data"
    make(where)
    with pytest.raises(UserError) as caught:
        load_task("mine", data_dir=where, **COLUMNS)
    assert str(caught.value) == message.replace("{d}", str(where))


def test_broken_parquet_gives_one_line(tmp_path):
    folder(tmp_path, ".parquet")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError) as caught:
        load_task("mine", data_dir=tmp_path, **COLUMNS)
    assert str(caught.value).startswith(f"{tmp_path}/train.parquet: not a readable parquet file (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "toy/reviews",
            {"data_dir": "x"},
            "task 'toy/reviews' is built in; it takes no data_dir, columns or label_names",
        ),
        ("mine", {"data_dir": "x"}, "task 'mine' is your own, so text_columns and label_column must be given"),
        (
            "mine",
            {"data_dir": "x", "text_columns": ("a", "b", "c"), "label_column": "y"},
            "text_columns ('a', 'b', 'c'): one column, or two for a pair task, are accepted",
        ),
        (
            "sst2",
            {"data_dir": "x", "label_names": ("a", "a")},
            "label_names ('a', 'a') must differ from one another",
        ),
    ],
)
def test_bad_arguments_give_one_clear_line(name, options, message):
    with pytest.raises(UserError) as caught:
        load_task(name, **options)
    assert str(caught.value) == message


def test_unknown_task_without_folder():
    with pytest.raises(UserError, match=r"^unknown task 'mine': known are ag_news, .*needs data_dir"):
        load_task("mine")


def test_environment_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path / "gone"))
    with pytest.raises(UserError) as caught:
        load_task("sst2")
    assert str(caught.value) == f"JAXDISTILL_DATA is '{tmp_path / 'gone'}', which is not a folder; mend or unset it"


def test_unreachable_hub_names_all_sources_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_task("rotten_tomatoes")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(
        f"task 'rotten_tomatoes' is nowhere to be found: no data_dir is given, $JAXDISTILL_DATA '{tmp_path}' has no "
        "folder 'rotten_tomatoes', and hub data set cornell-movie-review-data/rotten_tomatoes cannot be loaded: "
    )
    assert message.endswith("task 'toy/reviews' needs no data")
    assert time.monotonic() - start < 20


def test_a_silent_hub_fails_in_seconds(tmp_path):
    code = "from jaxdistill.data.sources import load_task; load_task('rotten_tomatoes')"
    seconds, message = ask_silent_hub(code, tmp_path, JAXDISTILL_DATA=str(tmp_path))
    assert seconds <= 20
    assert "rotten_tomatoes cannot be loaded" in message and message.count("\n") == 1


class _Table:
    """The little of `datasets.Dataset` that is used."""

    def __init__(self, columns):
        self.columns, self.column_names = columns, list(columns)

    def select_columns(self, names):
        return _Table({name: self.columns[name] for name in names})

    def to_dict(self):
        return self.columns


def test_hub_is_asked_for_config_and_revision(monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((*args, options["revision"]))
        labels = [i % 50 for i in range(200)]
        table = _Table({"text": [f"t {i}" for i in range(200)], "fine_label": labels, "extra": labels})
        return {"train": table, "test": table}

    monkeypatch.delenv("JAXDISTILL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    data = load_task("trec_fine")
    assert asked == [("CogComp/trec", None, "refs/convert/parquet")]
    assert data.source == "hub: CogComp/trec"
    assert (len(data.train), len(data.dev), len(data.test)) == (150, 50, 200)
