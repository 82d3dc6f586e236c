"""Training batches as a pure function of the step, and the batches of one evaluation pass."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import Placement, fill, pack, pad, place

_SAMPLED_BATCHES = 1000
_LENGTH_MULTIPLE = 8


class TrainBatches:
    """Shuffled training batches: `batches(step)` is a pure function of (seed, step).

    Each epoch is a fresh permutation; its last partial batch is dropped. Since every new shape costs a compilation,
    all batches have one of a few shapes, planned from the lengths: `usual_shapes` that together leave the least
    padding on average, one that holds more than the largest of a thousand sampled batches, and one that holds any
    batch (and is hardly ever met).

    Attributes:
      shapes: the (rows, positions) a batch may have, smallest first.
      steps_per_epoch: batches in one pass over the examples.
      max_rows: rows of the largest shape.
    """

    def __init__(
        self,
        encoded: Encoded,
        *,
        batch_size: int,
        seed: int,
        row_length: int,
        packed: bool = True,
        min_length: int = 1,
        indices: Int[np.ndarray, " m"] | None = None,
        rows_multiple_of: int = 1,
        usual_shapes: int = 2,
    ):
        """
        Args:
          encoded: the training split.
          batch_size: examples of a batch.
          seed: not negative.
          row_length: positions of a packed row; without packing, most positions a row may get.
          packed: several examples in a row; without it one a row, padded to one of the planned lengths.
          min_length: fewest positions of a row.
          indices: the examples to draw from (of one class, for instance); all by default.
          rows_multiple_of: rows of every batch are a multiple of it, so that they divide over devices.
          usual_shapes: shapes below the one that holds all sampled batches; fewer compile less and pad more.

        Raises:
          UserError: fewer examples than a batch takes; an example longer than a row; without packing, a batch size
            that is no multiple of `rows_multiple_of`.
        """
        self._encoded = encoded
        self._indices = np.arange(len(encoded)) if indices is None else np.asarray(indices, np.int64)
        self._batch_size, self._seed, self._row_length, self._packed = batch_size, seed, row_length, packed
        self._min_length = min_length
        if batch_size < 1 or len(self._indices) < batch_size:
            raise UserError(f"batch size {batch_size} must be from 1 to {len(self._indices)}, the number of examples")
        if not packed and batch_size % rows_multiple_of:
            raise UserError(f"batch size {batch_size} must be a multiple of {rows_multiple_of}, to divide over devices")
        self.steps_per_epoch = len(self._indices) // batch_size
        self._cached_epoch, self._permutation = -1, self._indices
        self.shapes = self._plan(rows_multiple_of, usual_shapes)
        self.max_rows = self.shapes[-1][0]

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs; numpy leaves."""
        indices = self.indices(step)
        if self._packed:
            rows = tuple(rows for rows, _ in self.shapes)
            return pack(self._encoded, indices, row_length=self._row_length, rows=rows)
        longest = self._encoded.lengths[indices].max()
        length = next(length for _, length in self.shapes if length >= longest)
        return pad(self._encoded, indices, length=length)

    def indices(self, step: int) -> Int[np.ndarray, " n"]:
        """Which examples of the split make up the batch of a step, in its order."""
        epoch, place_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._cached_epoch:
            # A cache of the pure function (seed, epoch) -> permutation, nothing more.
            self._permutation = np.random.default_rng([self._seed, epoch]).permutation(self._indices)
            self._cached_epoch = epoch
        start = place_in_epoch * self._batch_size
        return self._permutation[start : start + self._batch_size]

    def _plan(self, multiple: int, usual_shapes: int) -> tuple[tuple[int, int], ...]:
        lengths = self._encoded.lengths[self._indices]
        longest = int(lengths.max())
        if longest > self._row_length:
            raise UserError(f"an example of {longest} tokens is longer than a row of {self._row_length}")
        # The plan must not depend on the seed: runs that differ in it alone share compiled programs.
        draw = np.random.default_rng(0)
        sampled = [draw.choice(lengths, self._batch_size, replace=False) for _ in range(_SAMPLED_BATCHES)]
        if self._packed:
            needed = np.array([place(sample, self._row_length).rows for sample in sampled])
            # First-fit opens a row only when all others are too full for the longest, so each of those holds at
            # least row_length // longest examples.
            bound = _round_up(math.ceil(self._batch_size / (self._row_length // longest)), multiple)
            # Half the way from the median to the largest sample is added: a batch beyond is then one in a million.
            ample = needed.max() + math.ceil((needed.max() - np.median(needed)) / 2)
            planned = _least_padding(_round_up(needed, multiple), _round_up(int(ample), multiple), usual_shapes)
            return tuple((r, self._row_length) for r in sorted({min(r, bound) for r in planned} | {bound}))
        needed = _round_up(np.array([sample.max() for sample in sampled]), _LENGTH_MULTIPLE)
        columns = _least_padding(needed, _round_up(longest, _LENGTH_MULTIPLE), usual_shapes)
        lengths = sorted({max(min(c, self._row_length), self._min_length) for c in columns})
        return tuple((self._batch_size, length) for length in lengths)


def _least_padding(needed: Int[np.ndarray, " m"], largest: int, count: int) -> tuple[int, ...]:
    """`largest` and up to `count` smaller sizes: those for which the least size that suffices is least on average."""
    candidates = [int(size) for size in np.unique(needed) if size < largest]
    choices = itertools.combinations(candidates, min(count, len(candidates)))

    def mean_size(choice: tuple[int, ...]) -> float:
        sizes = np.array([*choice, max(largest, needed.max())])
        return sizes[np.searchsorted(sizes, needed)].mean()

    return (*min(choices, key=mean_size), largest)


@dataclasses.dataclass(frozen=True, eq=False)
class EvalBatches:
    """One pass over a split in batches of one shape.

    Attributes:
      batches: numpy leaves; filler examples have weight 0.
      indices: for each batch, which examples of the split its first entries are.
      groups: for each batch, the number of the group its examples belong to.
      fill: share of the positions that hold a token.
    """

    batches: list[Batch]
    indices: list[Int[np.ndarray, " _"]]
    groups: list[int]
    fill: float


def eval_batches(
    encoded: Encoded,
    *,
    row_length: int,
    rows: int,
    packed: bool = True,
    min_length: int = 1,
    rows_multiple_of: int = 1,
    groups: Sequence[Int[np.ndarray, " _"]] | None = None,
) -> EvalBatches:
    """The whole split, each example once, in batches of one static shape.

    Rows are packed over a whole group at once (longest first), then dealt to its batches in turn, so that each batch
    gets long and short texts alike and little filler.

    Args:
      row_length: positions of a row.
      rows: most rows of a batch; fewer are taken when that leaves less filler for the same number of batches.
      packed: several examples in a row; without it one a row, padded to the longest example of the split.
      min_length: fewest positions of a row.
      rows_multiple_of: rows are a multiple of it, so that they divide over devices.
      groups: disjoint sets of examples that never share a batch; by default one group of all examples.

    Raises:
      UserError: an example longer than a row; no rows that are a multiple of `rows_multiple_of` up to `rows`.
    """
    if rows < rows_multiple_of or rows < 1:
        raise UserError(f"evaluation rows {rows} must be at least {max(1, rows_multiple_of)}")
    rows -= rows % rows_multiple_of
    groups = [np.arange(len(encoded))] if groups is None else groups
    placements = [_place(encoded.lengths[group], row_length, packed) for group in groups]
    counts = [math.ceil(placement.rows / rows) for placement in placements]
    needed = max(math.ceil(placement.rows / count) for placement, count in zip(placements, counts, strict=True))
    rows = _round_up(needed, rows_multiple_of)
    members, parts, numbers = [], [], []
    for number, (group, placement, count) in enumerate(zip(groups, placements, counts, strict=True)):
        for b in range(count):
            mine = np.flatnonzero(placement.row % count == b)
            members.append(group[mine])
            row, column, segment = (part[mine] for part in placement[:3])
            parts.append(Placement(row // count, column, segment, rows))
            numbers.append(number)
    if packed:
        examples = max(map(len, members))
        batches = [
            fill(encoded, indices, part, row_length=row_length, examples=examples)
            for indices, part in zip(members, parts, strict=True)
        ]
    else:
        row_length = max(min_length, min(row_length, _round_up(int(encoded.lengths.max()), _LENGTH_MULTIPLE)))
        batches = [pad(encoded, indices, length=row_length, examples=rows) for indices in members]
    tokens = sum(int(encoded.lengths[indices].sum()) for indices in members)
    return EvalBatches(batches, members, numbers, fill=tokens / (len(batches) * rows * row_length))


def _place(lengths: Int[np.ndarray, " m"], row_length: int, packed: bool) -> Placement:
    if packed:
        return place(lengths, row_length)
    order = np.argsort(np.argsort(-lengths, kind="stable"), kind="stable")
    return Placement(order, np.zeros_like(order), np.ones_like(order), len(lengths))


def _round_up(value, multiple: int):
    """The least multiple of `multiple` from `value`; of each element of an array."""
    return -(-value // multiple) * multiple
