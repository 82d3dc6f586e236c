"""Protected groups of texts: the column, its ids, and cuts that keep their shares."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.sources import load_task
from jaxdistill.data.splits import Split, stable_cut

COLUMNS = {"text_columns": ("text",), "label_column": "label"}


def write(folder, groups, splits=("train", "test"), count=80):
    folder.mkdir(exist_ok=True)
    for split in splits:
        records = [
            {"text": f"{split} {i}", "label": i % 2, "who": groups[i // 2 % len(groups)], "other": str(i % 4)}
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_groups_are_numbered_by_sorted_name_and_kept_by_the_cut(tmp_path):
    folder = write(tmp_path, ["b", "a", "a", "a"])
    data = load_task("mine", data_dir=folder, group_column="who", **COLUMNS)
    assert data.task.group_names == ("a", "b")
    assert np.bincount(data.test.attributes["group"]).tolist() == [60, 20]
    cells = [np.bincount(2 * s.labels + s.attributes["group"]).tolist() for s in (data.train, data.dev)]
    assert cells == [[27, 9, 27, 9], [3, 1, 3, 1]]
    by_name = {
        text: group
        for s in (data.train, data.dev)
        for (text,), group in zip(s.texts, s.attributes["group"], strict=True)
    }
    assert all(by_name[f"train {i}"] == (1 if i // 2 % 4 == 0 else 0) for i in range(80))
    plain = load_task("mine", data_dir=folder, **COLUMNS)
    assert plain.task.group_names == () and "group" not in plain.train.attributes
    other = load_task("mine", data_dir=folder, group_column="other", **COLUMNS)
    assert other.task.group_names == ("0", "1", "2", "3")
    assert len({plain.source_hash, data.source_hash, other.source_hash}) == 3


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (["a"], {}, "{d}/train.jsonl: the group column holds 1 group(s); groups are compared, so it takes 2"),
        (["a", None], {}, "{d}/train.jsonl: row 3: the group is null"),
        (
            ["a", "b"],
            {"group_column": "sex"},
            "{d}/test.jsonl: line 1: no column 'sex'; there are 'text', 'label', 'who', 'other'",
        ),
    ],
)
def test_bad_groups_give_one_line(tmp_path, groups, options, message):
    with pytest.raises(UserError) as caught:
        load_task("mine", data_dir=write(tmp_path, groups), **(COLUMNS | {"group_column": "who"} | options))
    assert str(caught.value) == message.replace("{d}", str(tmp_path))


def test_a_group_that_training_does_not_have(tmp_path):
    write(tmp_path, ["a", "b"])
    write(tmp_path, ["a", "c"], splits=("test",))
    with pytest.raises(UserError, match=r"test.jsonl: row 3: group 'c' is outside the groups 0..1 \(a, b\)$"):
        load_task("mine", data_dir=tmp_path, group_column="who", **COLUMNS)


def test_rare_cells_stay_but_every_class_gives_one():
    split = Split([(str(i),) for i in range(6)], np.array([0, 0, 0, 0, 1, 1], np.int32))
    groups = np.array([0, 0, 0, 1, 0, 1])
    kept, cut = stable_cut(split, fraction=0.4, salt="x", label_names=("a", "b"), where="here", groups=groups)
    assert sorted([*kept, *cut]) == list(range(6))
    assert split.labels[cut].tolist() == [0, 1] and groups[cut][0] == 0


@pytest.mark.needs_data("toxigen")
def test_toxigen(data_dir, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(data_dir))
    data = load_task("toxigen")
    assert (len(data.train), len(data.dev), len(data.test)) == (6472, 706, 1782)
    assert data.task.label_names == ("benign", "toxic")
    assert len(data.task.group_names) == 13 and list(data.task.group_names) == sorted(data.task.group_names)
    assert data.task.group_names[0] == "asian" and data.task.group_names[-1] == "women"
    whole = [
        np.concatenate([s.attributes["group"] if name else s.labels for s in (data.train, data.dev, data.test)])
        for name in (0, 1)
    ]
    assert np.bincount(whole[0]).tolist() == [5592, 3368]
    assert dict(zip(data.task.group_names, np.bincount(whole[1]).tolist(), strict=True))["latino"] == 554
    for split, share in ((data.dev, 0.08), (data.test, 0.2)):
        counts = np.bincount(13 * split.labels + split.attributes["group"], minlength=26)
        everywhere = np.bincount(13 * whole[0] + whole[1], minlength=26)
        np.testing.assert_allclose(counts, share * everywhere, atol=1.5)
    assert data.notes[0].startswith("there is no split 'test': 'train' was cut by a stable hash")
