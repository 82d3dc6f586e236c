"""Balanced training: cell counts after resampling, sums of weights, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.balance import BALANCE_OBJECTIVES, cell_counts, check_groups, resample, reweight, skew

MOJI = ((40_000, 9_999), (9_999, 40_000))
UNEVEN = ((30, 10, 20), (8, 40, 12), (50, 25, 5))
LACKING = ((30, 10), (0, 40), (20, 25))


def rows(counts) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled labels and groups with these cell counts [c][g]."""
    counts = np.asarray(counts)
    cells = np.repeat(np.arange(counts.size), counts.ravel())
    np.random.default_rng(1).shuffle(cells)
    return cells // counts.shape[1], cells % counts.shape[1]


def names(counts) -> dict[str, tuple[str, ...]]:
    return {"label_names": tuple("xyz"[: len(counts)]), "group_names": tuple("abc"[: len(counts[0])])}


def resampled(counts, objective: str, seed: int = 0):
    labels, groups = rows(counts)
    found = resample(labels, groups, objective, seed=seed, **names(counts))
    table = cell_counts(
        labels[found.indices], groups[found.indices], num_classes=len(counts), num_groups=len(counts[0])
    )
    return found, table


def sums_of_weights(counts, objective: str, **options):
    """(sum of the weights in each cell [c, g], weight of each row, notes)"""
    labels, groups = rows(counts)
    found = reweight(labels, groups, objective, **names(counts), **options)
    sums = np.zeros(np.shape(counts))
    np.add.at(sums, (labels, groups), found.weights.astype(np.float64))
    return sums, found.weights, found.notes


def test_the_counts_of_moji():
    found, table = resampled(MOJI, "stratified_y")
    np.testing.assert_array_equal(table, np.full((2, 2), 9_999))
    assert len(found.indices) == 39_996
    assert found.notes == ()


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        # The smallest share is 5/80: int of 3.75, 3.75 and 5.
        ("stratified_y", [[3, 3, 3], [3, 3, 3], [5, 5, 5]]),
        # Of groups with 88, 75 and 37 rows the smallest share is 8/88: int of 8, 6.8 and 3.4; 5/37 is larger.
        ("stratified_g", [[8, 6, 3]] * 3),
        ("joint", [[5] * 3] * 3),
        ("eo", [[10] * 3, [8] * 3, [5] * 3]),
    ],
)
def test_rows_of_each_cell(objective, expected):
    found, table = resampled(UNEVEN, objective)
    np.testing.assert_array_equal(table, expected)
    assert (np.diff(found.indices) > 0).all()


@pytest.mark.parametrize(("objective", "axis", "expected"), [("y", 1, [60] * 3), ("g", 0, [37] * 3)])
def test_rows_of_whole_classes_and_groups(objective, axis, expected):
    np.testing.assert_array_equal(resampled(UNEVEN, objective)[1].sum(axis=axis), expected)


def test_stratified_resampling_keeps_the_classes_and_evens_the_groups():
    for counts in (MOJI, ((900, 100), (301, 202)), ((333, 667), (5_000, 5_001))):
        _, table = resampled(counts, "stratified_y")
        before, after = (np.sum(x, axis=1) / np.sum(x) for x in (counts, table))
        np.testing.assert_array_equal(table[:, 0], table[:, 1])
        # Rounding down takes less than one row of each cell.
        np.testing.assert_allclose(after, before, atol=1 / table[:, 0].sum())
    np.testing.assert_allclose(resampled(MOJI, "stratified_y")[1].sum(axis=1) / 39_996, 0.5, atol=1 / 99_998)


def test_shares_are_exact():
    # In floating point, min(n_yg / n_y) x n_y is below the integer it should be for some of these.
    for total in range(20, 220, 7):
        for part in (3, 7, 9):
            counts = ((total - part, part), (total - part, part))
            np.testing.assert_array_equal(resampled(counts, "stratified_y")[1], min(part, total - part))
    assert any(int(part / total * total) != part for total in range(20, 220) for part in range(1, total))
    assert int(Fraction(9_999, 49_999) * 49_999) == 9_999


def test_the_draw_depends_on_the_seed_and_the_cell_alone():
    first, _ = resampled(UNEVEN, "joint", seed=3)
    again, _ = resampled(UNEVEN, "joint", seed=3)
    other, _ = resampled(UNEVEN, "joint", seed=4)
    np.testing.assert_array_equal(first.indices, again.indices)
    assert not np.array_equal(first.indices, other.indices)
    labels, groups = rows(UNEVEN)
    of_cell = first.indices[(labels[first.indices] == 2) & (groups[first.indices] == 2)]
    np.testing.assert_array_equal(of_cell, np.flatnonzero((labels == 2) & (groups == 2)))  # 5 of 5


def test_weights_sum_to_the_rows():
    total, of_class, of_group = (np.sum(UNEVEN, axis=axis) for axis in (None, 1, 0))
    sums = {objective: sums_of_weights(UNEVEN, objective)[0] for objective in BALANCE_OBJECTIVES}
    expected = {
        "stratified_y": np.repeat(of_class[:, None] / 3, 3, axis=1),
        "joint": np.full((3, 3), total / 9),
        "y": np.asarray(UNEVEN) * (total / 3 / of_class)[:, None],
        "g": np.asarray(UNEVEN) * (total / 3 / of_group)[None],
        "stratified_g": np.repeat(of_group[None] / 3, 3, axis=0),
        "eo": np.repeat(of_class[:, None], 3, axis=1),
    }
    for objective in BALANCE_OBJECTIVES:
        np.testing.assert_allclose(sums[objective], expected[objective], rtol=1e-6)
    np.testing.assert_allclose(sums["stratified_y"].sum(axis=1), of_class, rtol=1e-6)
    for objective in ("stratified_y", "joint", "y", "g", "stratified_g"):
        np.testing.assert_allclose(sums[objective].sum(), total, rtol=1e-6)


def test_weights_are_the_same_for_all_rows_of_a_cell():
    labels, groups = rows(MOJI)
    found = reweight(labels, groups, **names(MOJI)).weights
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[labels == groups], 49_999 / 2 / 40_000, rtol=1e-6)
    np.testing.assert_allclose(found[labels != groups], 49_999 / 2 / 9_999, rtol=1e-6)


@pytest.mark.parametrize("objective", ["stratified_y", "joint", "stratified_g", "eo"])
def test_a_class_that_lacks_a_group_is_noted_and_left_out(objective):
    note = ("train: class 'y' has no example of group 'a'; it is left out",)
    found, table = resampled(LACKING, objective)
    assert found.notes == note
    full = [LACKING[0], LACKING[2]]
    np.testing.assert_array_equal(table[[0, 2]], resampled(full, objective)[1])
    np.testing.assert_array_equal(table[1], 0)
    sums, _, notes = sums_of_weights(LACKING, objective)
    assert notes == note
    np.testing.assert_allclose(sums[[0, 2]], sums_of_weights(full, objective)[0])
    np.testing.assert_array_equal(sums[1], 0)


def test_a_class_that_lacks_a_group_may_be_kept_with_weights():
    sums, _, notes = sums_of_weights(LACKING, "stratified_y", keep_lacking=True)
    assert notes == ("train: class 'y' has no example of group 'a'; it is balanced among the others",)
    np.testing.assert_allclose(sums, [[20, 20], [0, 40], [22.5, 22.5]])
    np.testing.assert_allclose(sums_of_weights(LACKING, "joint", keep_lacking=True)[0][1], [0, 125 / 5])
    for objective in ("y", "g"):
        assert resampled(LACKING, objective)[0].notes == ()
        assert sums_of_weights(LACKING, objective)[2] == ()


def test_a_class_too_small_for_its_share_is_noted():
    found, table = resampled(((999, 1), (2, 2), (500, 500)), "stratified_y")
    np.testing.assert_array_equal(table, [[1, 1], [0, 0], [1, 1]])
    assert found.notes == (
        "train: class 'y' has 4 examples, too few to keep its share of a balanced split (stratified_y); it is left out",
    )


GOOD = (np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (GOOD[0], np.array([0, 1, 2, 1]), r"dev: example 2: group 2 is outside the groups 0\.\.1 \(a, b\)"),
        (GOOD[0], np.array([0, -1, 0, 1]), r"dev: example 1: group -1 is outside the groups 0\.\.1 \(a, b\)"),
        (np.array([0, 0, 5, 1]), GOOD[1], r"dev: example 2: class 5 is outside the classes 0\.\.1 \(x, y\)"),
        (GOOD[0], np.ones(4, int), "dev: fairness compares groups, at least 2 are needed; the examples have 'b' only"),
        (np.zeros(4, int), GOOD[1], "dev: class 'y' has no examples; each class needs some"),
        (GOOD[0], np.array([0, 1]), "dev: groups must be one whole number for each of the 4 examples, got 2"),
        (GOOD[0], GOOD[1] / 2, "dev: groups must be one whole number .* got 4 of type float64"),
    ],
)
def test_what_cannot_be_balanced_is_refused(labels, groups, message):
    with pytest.raises(UserError, match=message) as error:
        check_groups(labels, groups, label_names=("x", "y"), group_names=("a", "b"), where="dev")
    assert "\n" not in str(error.value)


def test_a_declared_group_needs_examples():
    with pytest.raises(UserError, match="train: group 'c' has no examples; each group needs some"):
        check_groups(*GOOD, label_names=("x", "y"), group_names=("a", "b", "c"), where="train")


def test_bad_options_are_refused():
    with pytest.raises(
        UserError, match="unknown balancing objective 'yg': give one of stratified_y, joint, y, g, strat"
    ):
        resample(*GOOD, "yg", seed=0, **names(((1, 1), (1, 1))))
    with pytest.raises(UserError, match=r"train: 1 of 2 classes have examples of every group \(a, b\); .* at least 2"):
        resampled(((5, 5), (0, 5)), "joint")
    with pytest.raises(UserError, match=r"balancing \(stratified_y\) would leave examples of 1 classes and 2 of 2 gro"):
        resampled(((999, 1), (2, 2)), "stratified_y")


def test_a_skewed_split_has_the_share_in_each_group():
    labels = np.tile([0, 0, 0, 1, 1], 300)
    groups = np.repeat(np.arange(3), 500)
    chosen = skew(labels, groups, 0.8, num_groups=3, seed=0)
    assert (np.diff(chosen) > 0).all()
    for group in range(3):
        of_group = labels[chosen][groups[chosen] == group]
        aligned = (of_group == (group + 1) % 2).mean()
        assert aligned == pytest.approx(0.8, abs=0.005)
        # All of the scarcer part is kept: 200 of class 1 in even groups, 300 of class 0 in the other.
        assert (of_group == (group + 1) % 2).sum() == (200 if group % 2 == 0 else 300)
    np.testing.assert_array_equal(chosen, skew(labels, groups, 0.8, num_groups=3, seed=0))


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [([0, 1, 2], 0.8, "two classes"), ([0, 1, 0], 1.0, "skew is 1.0"), ([0, 0, 0], 0.8, "group 0 has too few")],
)
def test_bad_skews(labels, share, message):
    with pytest.raises(UserError, match=message):
        skew(np.asarray(labels), np.zeros(3, np.int64), share, num_groups=1, seed=0)
