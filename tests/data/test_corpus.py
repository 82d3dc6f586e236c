"""Corpora: every kind of source, the dev part by the rule of tasks, one line for each mistake."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json

import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.corpus import Judged, load_corpus
from jaxdistill.data.sources import load_task
from jaxdistill.data.splits import Split, stable_cut

SPEECHES = [f"speech {i}\nof two lines" for i in range(40)]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of data with a small sst2 and a file of documents."""
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    rows = [(f"film {i} is {word} ", label) for i in range(30) for label, word in enumerate(("bad", "good"))]
    splits = {"train": rows, "validation": rows[:4], "unlabelled": [(f"only text {i}", -1) for i in range(20)]}
    for name, lines in splits.items():
        with open(tmp_path / "sst2" / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("sentence", "label"), *lines])
    text = "\r\n \t\r\n\r\n".join(speech.replace("\n", "\r\n") for speech in SPEECHES)
    (tmp_path / "play.txt.gz").write_bytes(gzip.compress(f"\n\n{text}\n\n".encode()))
    return tmp_path


def test_text_files_are_parted_at_blank_lines_and_cut_by_hash(data):
    (data / "play.txt").write_text("\n\n".join(SPEECHES))
    corpus = load_corpus(["play.txt.gz"])
    assert sorted(corpus.train + corpus.dev) == sorted(SPEECHES)
    split = Split([(text,) for text in SPEECHES], np.zeros(40, np.int32))
    _, cut = stable_cut(split, fraction=0.1, at_most=5000, salt="dev", label_names=("text",), where="")
    assert sorted(corpus.dev) == sorted(SPEECHES[i] for i in cut) and len(cut) == 4
    same = load_corpus([str(data / "play.txt")])
    assert (same.train, same.dev, same.source_hash) == (corpus.train, corpus.dev, corpus.source_hash)
    assert corpus.notes == ("play.txt.gz: 36 texts to train on, 4 in dev",)


def test_the_dev_part_of_a_task_is_that_of_its_methods(data):
    task = load_task("sst2")
    corpus = load_corpus(["sst2"])
    assert sorted(corpus.dev) == sorted(text.strip() for (text,) in task.dev.texts) and len(corpus.dev) == 6
    assert list(corpus.train) == [text.strip() for (text,) in task.train.texts]
    toy = load_corpus(["toy/reviews"])
    assert len(toy.train) == 3601 and not set(toy.train) & set(toy.dev)


def test_unlabelled_splits_and_columns_go_together(data):
    (data / "more.jsonl").write_text("\n".join(json.dumps({"body": f"only text {i}"}) for i in range(18, 40)))
    corpus = load_corpus(["sst2/unlabelled", "more.jsonl:body"])
    alone = [load_corpus([source]) for source in ("sst2/unlabelled", "more.jsonl:body")]
    assert sorted(corpus.dev) == sorted({*alone[0].dev, *alone[1].dev})
    assert not set(corpus.train) & set(corpus.dev)
    assert {*corpus.train, *corpus.dev} == {f"only text {i}" for i in range(40)}
    assert corpus.source_hash != alone[0].source_hash


def test_texts_of_one_dev_part_are_not_trained_on_through_another_source(data):
    dev = load_corpus(["play.txt.gz"]).dev
    (data / "again.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (*dev, "x", "y", "z")))
    corpus = load_corpus(["play.txt.gz", "again.jsonl"])
    assert set(dev) <= set(corpus.dev) and not set(corpus.train) & set(corpus.dev)
    assert "left out" in corpus.notes[-1]


def test_judged_texts_end_with_their_label_and_keep_the_dev_part(data):
    judged = Judged(("sst2",), " It was {label}", ("awful", "great"), window=3)
    corpus, task = load_corpus(["play.txt.gz"], judged=judged, lower=True), load_task("sst2")
    texts = [
        f"{text.strip()} it was {('awful', 'great')[label]}"
        for (text,), label in zip(task.dev.texts, task.dev.labels, strict=True)
    ]
    own = [text.removeprefix("film ") for text in texts]
    assert set(own) <= set(corpus.dev) and len(corpus.dev) == 6 + 4
    assert corpus.train[-1] == "29 is good it was great" and corpus.train[:36] == load_corpus(["play.txt.gz"]).train
    assert corpus.notes[-1].startswith("sst2 (judged): ")
    alone = load_corpus([], judged=Judged(("sst2",), ": {label}"))
    assert alone.train[0] == f"{task.train.texts[0][0].strip()}: {task.task.label_names[task.train.labels[0]]}"
    pieces = load_corpus([], judged=dataclasses.replace(judged, window=2))
    # The other piece stands in texts of dev as well.
    assert pieces.train[-1] == "film 29 It was great" and "is good It was great" in pieces.dev
    with refused("corpus.label_words are 3, and sst2 has 2 classes"):
        load_corpus([], judged=Judged(("sst2",), ": {label}", ("a", "b", "c")))
    with refused("of vectors and holds no texts"):
        load_corpus([], judged=Judged(("moji",), ": {label}"))


@pytest.mark.parametrize(
    "sources, message",
    [
        ([], "the corpus has no sources"),
        (["nowhere.txt"], "corpus file 'nowhere.txt' does not exist, neither here nor under $JAXDISTILL_DATA"),
        (["sst3"], "unknown task 'sst3'"),
        (["sst2/validation"], "validation is the test split, which nothing is trained on"),
        (["sst2/spare"], "corpus sst2/spare: there is no such split; there are train, unlabelled, validation"),
        (["moji"], "of vectors and holds no texts"),
        (["play.txt.gz:text"], "a text file has no column 'text'"),
        (["one.txt"], "corpus 'one.txt' holds 1 different texts"),
        (["empty.txt"], "corpus 'empty.txt' holds 0 different texts"),
        (["null.jsonl"], "null.jsonl: row 2: text is null"),
        (["null.jsonl:body"], "no column 'body'; there are 'text'"),
        (["torn.txt.gz"], "torn.txt.gz: cannot be read"),
    ],
)
def test_mistakes_end_in_one_line(data, sources, message):
    (data / "one.txt").write_text("the same\n\nthe same\n")
    (data / "empty.txt").write_text(" \n\n\n")
    (data / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    (data / "torn.txt.gz").write_bytes(gzip.compress(b"some text " * 50)[:20])
    with refused(message):
        load_corpus(sources)
