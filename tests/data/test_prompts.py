"""Prompts: words of a task's texts, ToxiGen with its categories, fair samples."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.prompts import load_prompts
from jaxdistill.data.sources import load_task
from jaxdistill.data.splits import Split, stable_cut
from jaxdistill.data.toxigen import toxigen_category

GROUPS = ["women"] * 40 + ["asian folks"] * 80 + ["muslim", "jewish folks"] * 10 + ["mental_dis"] * 20


def write(folder: Path, columns: tuple[str, ...], **splits: list[tuple]) -> None:
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A small sst2, and ToxiGen with a test split and without labels."""
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path))
    rows = [(f"film {i}  is {word} ", label) for i in range(30) for label, word in enumerate(("bad", "good"))]
    tests = [("It  is\tgood , really", 1), ("it is good", 1), ("it is good . ", 0), ("It is good too", 1), ("bad", 0)]
    write(tmp_path / "sst2", ("sentence", "label"), train=rows, validation=tests)
    train = [(f" sentence {i} ", group) for i, group in enumerate(GROUPS)]
    test = [("one", "women"), ("two", "black"), ("three", "martians"), ("one", "women"), ("four", "jewish")]
    write(tmp_path / "toxigen", ("text", "target_group"), train=train, test=test)
    return tmp_path


def test_the_first_words_of_the_texts_of_a_task(data):
    found = load_prompts("sst2", split="test", words=3)
    assert sorted(found.texts) == ["It is good", "it is good"] and found.categories is None
    assert found.notes == (
        "prompts of sst2: 2 texts of no more than 3 words are left out",
        "prompts of sst2: 1 that occur already are left out",
    )
    dev = load_prompts("sst2", split="dev", words=2)
    assert sorted(dev.texts) == sorted({" ".join(text.split()[:2]) for (text,) in load_task("sst2").dev.texts})


def test_neither_split_enters_the_prompts_of_the_other(data):
    before = load_prompts("sst2", split="dev", words=3), load_prompts("toxigen", split="dev")
    write(data / "sst2", ("sentence", "label"), validation=[("all new words here", 0)])
    write(data / "toxigen", ("text", "target_group"), test=[("new", "women")])
    assert (load_prompts("sst2", split="dev", words=3), load_prompts("toxigen", split="dev")) == before


def test_toxigen_has_categories(data):
    found = load_prompts("toxigen", split="test")
    assert dict(zip(found.texts, found.categories, strict=True)) == {
        "one": "gender_lgbtq", "two": "race_nationalities", "four": "religion",
    }  # fmt: skip
    assert found.notes == (
        "prompts of toxigen: 1 rows on groups without a category are left out",
        "prompts of toxigen: 1 that occur already are left out",
    )
    names = ("gender_lgbtq", "race_nationalities", "religion", "disability")
    labels = np.asarray([names.index(toxigen_category(group)) for group in GROUPS], np.int32)
    split = Split([(f"sentence {i}",) for i in range(len(GROUPS))], labels)
    _, cut = stable_cut(split, fraction=0.1, salt="dev", label_names=names, where="")
    dev = load_prompts("toxigen", split="dev")
    assert sorted(dev.texts) == sorted(f"sentence {i}" for i in cut)
    assert Counter(dev.categories) == {
        "gender_lgbtq": 4, "race_nationalities": 8, "religion": 2, "disability": 2,
    }  # fmt: skip


def test_a_sample_has_its_share_of_each_category(data):
    whole, half = (load_prompts("toxigen", split="dev", at_most=count) for count in (0, 8))
    assert half.texts == whole.texts[:8] and half.categories == whole.categories[:8]
    assert Counter(half.categories) == {
        "gender_lgbtq": 2, "race_nationalities": 4, "religion": 1, "disability": 1,
    }  # fmt: skip
    assert half.notes == ("prompts of toxigen: 8 of 16 are taken, the first in the order of a hash",)
    assert load_prompts("toxigen", split="dev", words=1).texts == ("sentence",)


@pytest.mark.needs_data("toxigen")
def test_without_a_test_split_they_are_those_of_the_task(data_dir, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(data_dir))
    task = load_task("toxigen")
    for split, count in (("dev", 711), ("test", 1790)):
        found = load_prompts("toxigen", split=split)
        part = getattr(task, split)
        assert set(found.texts) == {text.strip() for (text,) in part.texts}
        assert abs(len(found.texts) - count) < 20
        assert any("cut by a stable hash of the texts in train (80 %) and test (20 %)" in note for note in found.notes)
    sample = load_prompts("toxigen", split="test", at_most=100)
    shares = {name: count / len(found.texts) for name, count in Counter(found.categories).items()}
    for name, count in Counter(sample.categories).items():
        assert abs(count - 100 * shares[name]) <= 1


def test_refuses(data):
    with refused("unknown source of prompts 'sst3': accepted are ag_news, sst2"):
        load_prompts("sst3", split="dev", words=2)
    with refused("prompts of 'sst2': words is 0: accepted is 1 or more"):
        load_prompts("sst2", split="dev")
    with refused("none of the 5 texts of its test split has more than 9 words"):
        load_prompts("sst2", split="test", words=9)
    with refused("prompts of 'mnli': accepted are tasks of single texts"):
        load_prompts("mnli", split="test", words=2)
    with refused("prompts: at_most is -1"):
        load_prompts("sst2", split="test", words=2, at_most=-1)
    (data / "toxigen" / "train.csv").unlink()
    with refused("has no split 'train', which dev is cut from"):
        load_prompts("toxigen", split="dev")
    write(data / "toxigen", ("text", "target_group"), test=[("one", "martians")])
    with refused("no row speaks of a known group: women, lgbtq"):
        load_prompts("toxigen", split="test")
    (data / "toxigen" / "test.csv").unlink()
    (data / "toxigen").rmdir()
    with refused("no folder 'toxigen' under $JAXDISTILL_DATA"):
        load_prompts("toxigen", split="test")
