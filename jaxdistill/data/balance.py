"""Balanced training: rows or weights of a training split that make classes and groups go together less.

A cell is one class in one group, n_yg its number of examples. What is balanced is the training stream alone, never dev
or test.

Source: Han et al., "Balancing out Bias: Achieving Fairness Through Balanced Training", EMNLP 2022.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Int, Int64

from jaxdistill.core.errors import UserError

BalanceObjective = Literal["stratified_y", "joint", "y", "g", "stratified_g", "eo"]
BALANCE_OBJECTIVES: tuple[BalanceObjective, ...] = get_args(BalanceObjective)
# These look at classes alone or groups alone, so that an empty cell is no matter to them.
_MARGINAL = ("y", "g")


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """A balanced choice of rows.

    Attributes:
      indices: rows of the split, ascending, each once.
      notes: one line for each class that was left out, to be shown to the user.
    """

    indices: Int64[np.ndarray, " m"]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Reweighted:
    """Balancing weights of all rows.

    Attributes:
      weights: of each row of the split; 0 for those of a class that is left out. They must reach the outer loss.
      notes: one line for each class that lacks a group, to be shown to the user.
    """

    weights: Float32[np.ndarray, " n"]
    notes: tuple[str, ...]


def resample(
    labels: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    objective: str = "stratified_y",
    *,
    label_names: tuple[str, ...],
    group_names: tuple[str, ...],
    seed: int,
    where: str = "train",
) -> Resampled:
    """As many random rows of each cell as balance them, none twice.

    "stratified_y" keeps p(y) and makes p(g|y) uniform: with f = min n_yg / n_y, int(f n_y) rows of each cell of class
    y. "stratified_g" is the same with classes and groups exchanged. "joint" takes as many rows of each cell as the
    smallest has, "eo" as many of each cell of a class as its smallest has. "y" and "g" do so for whole classes and
    whole groups.

    A class that lacks a group, or that has too few examples for its share to be one row, is left out and noted ("y" and
    "g" leave nothing out).

    Args:
      labels, groups: class and group of each row of the split.
      objective: what to balance.
      label_names, group_names: all classes and groups.
      seed: not negative; what is drawn of a cell depends on it and on that cell alone.
      where: what the split is called in errors and notes.

    Raises:
      UserError: as `check_groups`; an unknown objective; fewer than two classes or groups would be left.
    """
    counts, kept, notes = _cells(labels, groups, objective, label_names, group_names, where)
    counts = counts * kept[:, None]
    take = _rows_to_take(counts, objective)
    for label in np.flatnonzero(kept & ~take.any(axis=1)):
        notes += (
            f"{where}: class {label_names[label]!r} has {counts[label].sum()} examples, too few to keep its share of "
            f"a balanced split ({objective}); it is left out",
        )
    if take.any(axis=1).sum() < 2 or not take.any(axis=0).all():
        raise UserError(
            f"{where}: balancing ({objective}) would leave examples of {take.any(axis=1).sum()} classes and "
            f"{take.any(axis=0).sum()} of {len(group_names)} groups; at least 2 classes and all groups are needed"
        )
    strata = {"y": labels, "g": groups}.get(objective, labels.astype(np.int64) * len(group_names) + groups)
    sizes = {"y": take[:, 0], "g": take[0]}.get(objective, take.ravel())
    chosen = [
        np.random.default_rng([seed, stratum]).choice(np.flatnonzero(strata == stratum), size, replace=False)
        for stratum, size in enumerate(sizes)
    ]
    return Resampled(np.sort(np.concatenate(chosen)), notes)


def reweight(
    labels: Int[np.ndarray, " n"],
    groups: Int[np.ndarray, " n"],
    objective: str = "stratified_y",
    *,
    label_names: tuple[str, ...],
    group_names: tuple[str, ...],
    keep_lacking: bool = False,
    where: str = "train",
) -> Reweighted:
    """Weights under which the cells balance.

    w_yg is n_y / (G_y n_yg) for "stratified_y" (G_y groups in class y; sums to n_y within each class),
    n / (cells n_yg) for "joint" (sums to n), n_g / (C_g n_yg) for "stratified_g", n_y / n_yg for "eo",
    n / (C n_y) for "y" and n / (G n_g) for "g"; n counts the rows that are not left out.

    Args:
      labels, groups: class and group of each row of the split.
      objective: what to balance.
      label_names, group_names: all classes and groups.
      keep_lacking: a class that lacks a group is noted and balanced among the groups that it has; otherwise it is noted
        and gets weight 0. "y" and "g" do not ask.
      where: what the split is called in errors and notes.

    Raises:
      UserError: as `check_groups`; an unknown objective; fewer than two classes would be left.
    """
    counts, kept, notes = _cells(labels, groups, objective, label_names, group_names, where, keep_lacking)
    counts = counts * kept[:, None]
    of_class, of_group = counts.sum(axis=1, keepdims=True), counts.sum(axis=0, keepdims=True)
    present = counts > 0
    share, size = {
        "stratified_y": (of_class / np.maximum(present.sum(axis=1, keepdims=True), 1), counts),
        "joint": (counts.sum() / present.sum(), counts),
        "y": (counts.sum() / len(label_names), of_class),
        "g": (counts.sum() / len(group_names), of_group),
        "stratified_g": (of_group / np.maximum(present.sum(axis=0, keepdims=True), 1), counts),
        "eo": (of_class, counts),
    }[objective]
    table = np.where(present, share / np.maximum(size, 1), 0.0)
    return Reweighted(table[labels, groups].astype(np.float32), notes)


def skew(
    labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], share: float, *, num_groups: int, seed: int
) -> Int64[np.ndarray, " m"]:
    """Rows of a training split of two classes in which label and group go together, for controlled studies of bias.

    In each group a share of the rows is of one class, as in Moji: class 1 in groups of even number, class 0 in the
    others. The larger part of the two is cut.

    Args:
      labels: 0 or 1.
      groups: of each example.
      share: of the group's class, above 0 and below 1; 0.5 is even.
      num_groups: g.
      seed: of the choice.

    Returns:
      rows of the split, ascending.

    Raises:
      UserError: more than two classes, a share out of range, or a group without examples of both classes.
    """
    if len(labels) and labels.max() > 1:
        raise UserError(f"skew is for two classes; the labels go up to {labels.max()}")
    if not 0.0 < share < 1.0:
        raise UserError(f"skew is {share}: accepted is a share above 0 and below 1")
    rng = np.random.default_rng(seed)
    chosen = []
    for group in range(num_groups):
        aligned, other = (np.flatnonzero((groups == group) & (labels == y)) for y in ((group + 1) % 2, group % 2))
        size = min(len(aligned) / share, len(other) / (1.0 - share))
        taken = [rng.permutation(rows)[: int(size * part)] for rows, part in ((aligned, share), (other, 1.0 - share))]
        if not all(map(len, taken)):
            raise UserError(f"skew {share}: group {group} has too few examples of one class")
        chosen += taken
    return np.sort(np.concatenate(chosen))


def check_groups(
    labels: Int[np.ndarray, " n"],
    groups: np.ndarray,
    *,
    label_names: tuple[str, ...],
    group_names: tuple[str, ...],
    where: str,
) -> None:
    """Refuse classes and groups that fairness cannot be trained or measured with.

    Raises:
      UserError: groups that are not one whole number an example; a class or group outside the named ones; examples of
        one group only; a class or a group without examples.
    """
    if len(groups) != len(labels) or not np.issubdtype(groups.dtype, np.integer):
        raise UserError(
            f"{where}: groups must be one whole number for each of the {len(labels)} examples, "
            f"got {len(groups)} of type {groups.dtype}"
        )
    for kind, plural, values, names in (
        ("class", "classes", labels, label_names),
        ("group", "groups", groups, group_names),
    ):
        outside = np.flatnonzero((values < 0) | (values >= len(names)))
        if len(outside):
            raise UserError(
                f"{where}: example {outside[0]}: {kind} {values[outside[0]]} is outside the {plural} "
                f"0..{len(names) - 1} ({', '.join(names)})"
            )
    occurring = np.unique(groups)
    if len(occurring) < 2:
        only = ", ".join(repr(group_names[i]) for i in occurring) or "none"
        raise UserError(f"{where}: fairness compares groups, at least 2 are needed; the examples have {only} only")
    for kind, values, names in (("class", labels, label_names), ("group", groups, group_names)):
        missing = np.flatnonzero(np.bincount(values, minlength=len(names)) == 0)
        if len(missing):
            raise UserError(f"{where}: {kind} {names[missing[0]]!r} has no examples; each {kind} needs some")


def cell_counts(
    labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], *, num_classes: int, num_groups: int
) -> Int64[np.ndarray, "c g"]:
    """Number of examples of each class in each group."""
    cells = labels.astype(np.int64) * num_groups + groups
    return np.bincount(cells, minlength=num_classes * num_groups).reshape(num_classes, num_groups)


def _cells(
    labels: np.ndarray,
    groups: np.ndarray,
    objective: str,
    label_names: tuple[str, ...],
    group_names: tuple[str, ...],
    where: str,
    keep_lacking: bool = False,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(counts [c, g], which classes take part [c], notes)."""
    if objective not in BALANCE_OBJECTIVES:
        raise UserError(f"unknown balancing objective {objective!r}: give one of {', '.join(BALANCE_OBJECTIVES)}")
    check_groups(labels, groups, label_names=label_names, group_names=group_names, where=where)
    counts = cell_counts(labels, groups, num_classes=len(label_names), num_groups=len(group_names))
    if objective in _MARGINAL:
        return counts, np.ones(len(label_names), bool), ()
    full = np.min(counts, axis=1) > 0
    outcome = "it is balanced among the others" if keep_lacking else "it is left out"
    notes = tuple(
        f"{where}: class {label_names[label]!r} has no example of group "
        f"{group_names[int(np.argmin(counts[label]))]!r}; {outcome}"
        for label in np.flatnonzero(~full)
    )
    if keep_lacking:
        return counts, np.ones(len(label_names), bool), notes
    if full.sum() < 2:
        raise UserError(
            f"{where}: {full.sum()} of {len(label_names)} classes have examples of every group "
            f"({', '.join(group_names)}); balancing ({objective}) needs at least 2"
        )
    return counts, full, notes


def _rows_to_take(counts: np.ndarray, objective: str) -> np.ndarray:
    """How many rows of each cell; for "y" and "g", of each class and group, repeated along the other axis."""
    if objective in _MARGINAL:
        return np.full_like(counts, counts.sum(axis=1 if objective == "y" else 0).min())
    if objective == "stratified_g":
        return _rows_to_take(counts.T, "stratified_y").T
    present = counts > 0
    if objective == "stratified_y":
        of_class = [int(total) for total in counts.sum(axis=1)]
        # Exact: 9,999 / 49,999 x 49,999 may be a little below 9,999 in floating point, and int() would drop a row.
        share = min(Fraction(int(n), total) for row, total in zip(counts, of_class, strict=True) for n in row if n)
        take = np.array([[int(share * total)] for total in of_class])
    else:
        take = counts[present].min() if objective == "joint" else counts.min(axis=1, keepdims=True)
    return np.where(present, take, 0)
