"""Batches of numpy arrays out of an encoded split: several short examples in a row, or one a row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.data.encoding import Encoded


class RowsExceeded(ValueError):
    """The examples need more rows than were allowed; `needed` says how many."""

    def __init__(self, needed: int, allowed: int):
        super().__init__(f"the examples need {needed} rows; {allowed} are allowed")
        self.needed = needed


class Placement(NamedTuple):
    """Where each of n examples goes: its row, its first column there, its segment (from 1), and the rows used."""

    row: Int[np.ndarray, " n"]
    column: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " n"]
    rows: int


def place(lengths: Int[np.ndarray, " n"], row_length: int) -> Placement:
    """First-fit decreasing: longest example first, each in the first row with room. Deterministic.

    Rows used are at most 11/9 of the fewest possible, plus one; and at most ceil(n / (row_length // longest)).
    Cost is O(n * rows) in vectorised comparisons.

    Raises:
      UserError: an example is longer than a row.
    """
    _check_fits(lengths, row_length)
    n = len(lengths)
    row, column, segment = (np.zeros(n, np.int64) for _ in range(3))
    free = np.full(n + 1, row_length, np.int64)
    count = np.zeros(n + 1, np.int64)
    used = 0
    for i in np.argsort(-lengths, kind="stable"):
        # The row after the last used one is empty, so a row with room always exists.
        target = int((free[: used + 1] >= lengths[i]).argmax())
        used = max(used, target + 1)
        row[i], column[i] = target, row_length - free[target]
        free[target] -= lengths[i]
        count[target] += 1
        segment[i] = count[target]
    return Placement(row, column, segment, used)


def pack(
    encoded: Encoded,
    indices: Int[np.ndarray, " m"],
    *,
    row_length: int,
    rows: int | tuple[int, ...] | None = None,
    examples: int | None = None,
) -> Batch:
    """Put several examples in each row.

    Attention never crosses a segment and positions restart at each, so a learner's loss of the packed batch is the
    loss of the unpacked one. Labels, weights and `starts` are in the order of `indices`.

    Args:
      indices: examples of `encoded`.
      row_length: positions of a row.
      rows: rows of the batch; of several allowed numbers (ascending), the first that suffices; `None` for as many as
        are needed.
      examples: length of the example axis; those above len(indices) are filler of weight 0, label 0 and start 0.

    Raises:
      RowsExceeded: `rows` is not enough.
      UserError: an example is longer than a row.
    """
    indices = np.asarray(indices, np.int64)
    placement = place(encoded.lengths[indices], row_length)
    if rows is None:
        rows = placement.rows
    allowed = (rows,) if isinstance(rows, int) else rows
    enough = [r for r in allowed if r >= placement.rows]
    if not enough:
        raise RowsExceeded(placement.rows, allowed[-1])
    return fill(encoded, indices, placement._replace(rows=enough[0]), row_length=row_length, examples=examples)


def fill(
    encoded: Encoded,
    indices: Int[np.ndarray, " m"],
    placement: Placement,
    *,
    row_length: int,
    examples: int | None = None,
) -> Batch:
    """The packed batch of a given placement; see `pack`."""
    starts = placement.row * row_length + placement.column
    source, target, within = _token_moves(encoded, indices, starts)
    size, shape = placement.rows * row_length, (placement.rows, row_length)
    ids, types, positions, segments = (np.zeros(size, np.int32) for _ in range(4))
    ids[target] = encoded.ids[source]
    types[target] = encoded.token_types[source]
    positions[target] = within
    segments[target] = np.repeat(placement.segment, encoded.lengths[indices])
    segments = segments.reshape(shape)
    facts = _facts(encoded, indices, examples)
    labels = facts["labels"]
    padded_starts = np.zeros(len(labels), np.int32)
    padded_starts[: len(indices)] = starts
    return Batch(
        token_ids=ids.reshape(shape),
        mask=segments > 0,
        token_types=types.reshape(shape),
        positions=positions.reshape(shape),
        segments=segments,
        starts=padded_starts,
        **facts,
    )


def pad(
    encoded: Encoded,
    indices: Int[np.ndarray, " m"],
    *,
    length: int,
    examples: int | None = None,
) -> Batch:
    """One example a row, padded to `length` with token 0, which the mask hides.

    Args:
      examples: rows of the batch; those above len(indices) are filler of weight 0 whose mask is all False.

    Raises:
      UserError: an example is longer than `length`.
    """
    indices = np.asarray(indices, np.int64)
    lengths = encoded.lengths[indices]
    _check_fits(lengths, length)
    facts = _facts(encoded, indices, examples)
    count = len(facts["labels"])
    source, target, _ = _token_moves(encoded, indices, np.arange(len(indices)) * length)
    ids, types = (np.zeros(count * length, np.int32) for _ in range(2))
    mask = np.zeros(count * length, bool)
    ids[target] = encoded.ids[source]
    types[target] = encoded.token_types[source]
    mask[target] = True
    ids, types, mask = (leaf.reshape(count, length) for leaf in (ids, types, mask))
    return Batch(token_ids=ids, mask=mask, token_types=types, **facts)


def _check_fits(lengths: np.ndarray, row_length: int) -> None:
    if len(lengths) and lengths.max() > row_length:
        raise UserError(
            f"an example of {lengths.max()} tokens is longer than a row of {row_length}; "
            "encode with a smaller max_length or take longer rows"
        )


def _token_moves(encoded: Encoded, indices: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each token: its place in `encoded.ids`, its place in the flattened batch, its place in the example."""
    lengths = encoded.lengths[indices]
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    source = np.repeat(encoded.offsets[indices], lengths) + within
    target = np.repeat(starts, lengths) + within
    return source, target, within


def _facts(encoded: Encoded, indices: np.ndarray, examples: int | None) -> dict[str, np.ndarray]:
    """Labels, weights and, where they are known, groups; 0 for fillers."""
    examples = len(indices) if examples is None else examples
    if examples < len(indices):
        raise ValueError(f"{len(indices)} indices do not fit in {examples} examples")
    labels, weights = np.zeros(examples, np.int32), np.zeros(examples, np.float32)
    labels[: len(indices)] = encoded.labels[indices]
    weights[: len(indices)] = 1 if encoded.weights is None else encoded.weights[indices]
    if encoded.groups is None:
        return {"labels": labels, "weights": weights}
    groups = np.zeros((examples, encoded.groups.shape[1]), np.float32)
    groups[: len(indices)] = encoded.groups[indices]
    return {"labels": labels, "weights": weights, "groups": groups}
