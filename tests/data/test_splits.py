from __future__ import annotations

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.splits import Split, contents_hash, stable_cut

NAMES = ("a", "b")


def numbered(n: int = 20) -> Split:
    return Split([(f"text {i}",) for i in range(n)], np.arange(n, dtype=np.int32) % 2)


def cut(split: Split, **changes):
    options = {"fraction": 0.2, "salt": "dev", "label_names": NAMES, "where": "here"} | changes
    return stable_cut(split, **options)


def test_cut_is_known_disjoint_and_stratified():
    split = numbered()
    kept, chosen = cut(split)
    # Fixed by sha256 of the texts: other figures mean that published cuts have changed.
    assert chosen.tolist() == [4, 7, 15, 16]
    assert sorted([*kept, *chosen]) == list(range(20))
    assert split.take(chosen).class_counts(2).tolist() == [2, 2]


def test_cut_does_not_depend_on_the_order():
    split = numbered()
    order = np.random.default_rng(0).permutation(20)
    chosen = {split.texts[i] for i in cut(split)[1]}
    shuffled = split.take(order)
    assert {shuffled.texts[i] for i in cut(shuffled)[1]} == chosen


def test_salts_give_independent_cuts():
    split = numbered(400)
    first, second = (set(cut(split, salt=salt)[1].tolist()) for salt in ("dev", "test"))
    assert len(first) == len(second) == 80
    assert 5 <= len(first & second) <= 30  # 16 expected


def test_duplicates_go_to_one_side_whatever_label_and_blanks():
    draw = np.random.default_rng(1)
    texts = [(f"text {draw.integers(60)}" + " " * int(draw.integers(2)),) for _ in range(300)]
    split = Split(texts, draw.integers(2, size=300).astype(np.int32))
    kept, chosen = cut(split)
    sides = [{split.texts[i][0].strip() for i in side} for side in (kept, chosen)]
    assert not sides[0] & sides[1]
    assert 40 <= len(chosen) <= 60


def test_at_most_bounds_the_cut_side():
    assert len(cut(numbered(1000), at_most=50)[1]) == 50


def test_a_small_class_gives_one_example():
    split = Split([(f"{i}",) for i in range(12)], np.asarray([1, 1] + [0] * 10, np.int32))
    kept, chosen = cut(split)
    assert split.take(chosen).class_counts(2).tolist() == [2, 1]
    assert split.take(kept).class_counts(2).tolist() == [8, 1]


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["x", "y", "z"], [0, 0, 1], "here: class 'b' has 1 distinct text; cutting it in two takes at least 2"),
        (["x", "y"], [0, 0], "here: class 'b' has 0 distinct texts; cutting it in two takes at least 2"),
        (["x", "y", "z", "z"], [0, 0, 1, 1], "here: class 'b' has 1 distinct text; cutting it in two takes at least 2"),
    ],
)
def test_a_class_that_cannot_be_cut_is_an_error(texts, labels, message):
    with pytest.raises(UserError) as caught:
        cut(Split([(t,) for t in texts], np.asarray(labels, np.int32)))
    assert str(caught.value) == message


def test_take_carries_attributes():
    split = Split([("a",), ("b",), ("c",)], np.asarray([0, 1, 0], np.int32), {"group": np.asarray([5, 6, 7])})
    taken = split.take(np.asarray([2, 0]))
    assert taken.texts == [("c",), ("a",)]
    assert taken.labels.tolist() == [0, 0]
    assert taken.attributes["group"].tolist() == [7, 5]
    with pytest.raises(ValueError, match="group has 1 entries for 2 texts"):
        Split([("a",), ("b",)], np.zeros(2, np.int32), {"group": np.zeros(1)})


def test_contents_hash_sees_texts_fields_labels_and_names():
    base = Split([("ab", "c")], np.asarray([0], np.int32))
    reference = contents_hash([("train", base)], NAMES)
    assert reference == "3d80b325cea369448e569c76f3b29f3d5871bb8410f3bf4ee655cff0f68080f5"
    others = [
        contents_hash([("train", Split([("a", "bc")], base.labels))], NAMES),
        contents_hash([("train", Split(base.texts, base.labels + np.int32(1)))], NAMES),
        contents_hash([("dev", base)], NAMES),
        contents_hash([("train", base)], ("a", "c")),
    ]
    assert len({reference, *others}) == 5
