"""Batches of a language model's training, each a pure function of (seed, step), with the weight of every token."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, pytree
from jaxdistill.data.batching import TrainBatches
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import Placement, fill, pad, place

Reduction = Literal["token_mean", "text_mean", "padded_mean"]
PadTo = Literal["batch", "longest"]
# Texts that are put into rows together: enough for rows without gaps.
_WINDOW = 1024
_LENGTH_MULTIPLE = 8


@pytree
class LanguageBatch:
    """Rows of text, or micro-batches of them along a further leading axis.

    The loss is linear in the tokens' negative log-likelihoods, whatever the reduction; so its parts can be summed.

    Attributes:
      batch: token ids, and what tells rows and texts apart.
      weights: factor of each token's negative log-likelihood in the loss; 0 where nothing is predicted.
      shares: 1 over the number of real tokens predicted in the whole batch for each of these, 0 elsewhere: factors of
        the mean over tokens, whose exponential is the perplexity.
    """

    batch: Batch
    weights: Float[Array, "r l"]
    shares: Float[Array, "r l"]


class Layout(NamedTuple):
    """How a batch lies in rows.

    Attributes:
      rows: of a batch, all micro-batches together; without packing, texts of a batch.
      row_length: positions of a row at most.
      micro_batches: parts that the rows are cut into; 1 for batches without that axis.
      packed: several texts in a row, without attention across them; else one a row.
      reduction: "token_mean" over all tokens of the batch; "text_mean", the mean over texts of the mean over tokens;
        "padded_mean", the mean over texts of the sum over tokens divided by (padded length - 1).
      pad_to: length that a batch is padded to: its longest text, rounded up to a multiple of 8, or the longest of all.
      pad_with: token that fills rows up to that length and is then read and predicted as any other; `None` hides
        padding.
      answer_weight: factor of the last token but one of each text in the loss: of texts that end with an answer of one
        token and the end token, how much the answer counts.
    """

    rows: int
    row_length: int
    micro_batches: int = 1
    packed: bool = True
    reduction: Reduction = "token_mean"
    pad_to: PadTo = "batch"
    pad_with: int | None = None
    answer_weight: float = 1.0


class LanguageBatches:
    """Shuffled batches: `batches(step)` is a pure function of (seed, step).

    Packed texts are put into rows once; each epoch is a fresh permutation of the rows. Otherwise it is one of the
    texts, and batches have one of a few lengths (`data.batching.TrainBatches`). The last partial batch is dropped.

    Attributes:
      steps_per_epoch: batches in one pass.
      fill: share of the positions of packed rows that hold a token; 1 without packing.
    """

    def __init__(self, encoded: Encoded, layout: Layout, *, seed: int):
        """
        Args:
          encoded: documents, see `data.documents.encode_documents`.
          layout: see there.
          seed: not negative.

        Raises:
          UserError: an unknown reduction; one of texts, or predicted padding, with packed rows; rows that the
            micro-batches do not divide; too few texts for a batch; a text longer than a row.
        """
        self._encoded, self._layout, self._seed = encoded, layout, seed
        _check(layout)
        self.fill = 1.0
        if layout.packed:
            self._pack()
            return
        options = {"row_length": layout.row_length, "packed": False, "min_length": 2, "usual_shapes": 1}
        self._texts = TrainBatches(encoded, batch_size=layout.rows, seed=seed, **options)
        self.steps_per_epoch = self._texts.steps_per_epoch

    def __call__(self, step: int) -> LanguageBatch:
        """The batch of a step, counted from 0 over all epochs; numpy leaves."""
        found = self._packed(step) if self._layout.packed else self._padded(step)
        parts = self._layout.micro_batches
        if parts == 1:
            return found
        return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), found)

    def facts(self, step: int) -> tuple[int, int]:
        """(positions of a row, real tokens predicted) in the batch of a step."""
        if self._layout.packed:
            return self._layout.row_length, int(self._targets[self._rows(step)].sum())
        lengths = self._encoded.lengths[self._texts.indices(step)]
        return self._columns(lengths), int(lengths.sum()) - len(lengths)

    def _pack(self) -> None:
        """Put all texts into rows, a window of shuffled texts at a time."""
        layout, lengths = self._layout, self._encoded.lengths
        order = np.random.default_rng(self._seed).permutation(len(self._encoded))
        placed: list[Placement] = []
        rows = 0
        for at in range(0, len(order), _WINDOW):
            part = place(lengths[order[at : at + _WINDOW]], layout.row_length)
            placed.append(part._replace(row=part.row + rows))
            rows += part.rows
        row, column, segment = (np.concatenate([getattr(p, name) for p in placed]) for name in Placement._fields[:3])
        by_row = np.argsort(row, kind="stable")
        self._order, self._column, self._segment = order[by_row], column[by_row], segment[by_row]
        self._bounds = np.searchsorted(row[by_row], np.arange(rows + 1))
        self._targets = np.bincount(row, weights=lengths[order] - 1, minlength=rows).astype(np.int64)
        if rows < layout.rows:
            raise UserError(
                f"{len(self._encoded):,} texts fill {rows} rows of {layout.row_length} tokens, fewer than a batch of "
                f"{layout.rows}: give more texts, fewer rows a batch or shorter rows"
            )
        self.steps_per_epoch = rows // layout.rows
        self.fill = int(lengths.sum()) / (rows * layout.row_length)
        self._epoch, self._permutation = -1, np.arange(rows)

    def _rows(self, step: int) -> Int[np.ndarray, " r"]:
        """The rows of a step."""
        epoch, place_in_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            # A cache of the pure function (seed, epoch) -> permutation, nothing more.
            self._permutation = np.random.default_rng([self._seed, epoch]).permutation(len(self._targets))
            self._epoch = epoch
        return self._permutation[place_in_epoch * self._layout.rows :][: self._layout.rows]

    def _packed(self, step: int) -> LanguageBatch:
        layout, rows = self._layout, self._rows(step)
        members = [np.arange(*self._bounds[row : row + 2]) for row in rows]
        chosen = np.concatenate(members)
        own_rows = np.repeat(np.arange(len(rows)), [len(part) for part in members])
        placement = Placement(own_rows, self._column[chosen], self._segment[chosen], len(rows))
        filled = fill(self._encoded, self._order[chosen], placement, row_length=layout.row_length)
        segments = np.asarray(filled.segments)
        real = np.zeros(segments.shape, bool)
        real[:, 1:] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
        batch = Batch(token_ids=filled.token_ids, positions=filled.positions, segments=filled.segments)
        shares = _shares(real)
        answers = np.zeros(segments.shape, bool)
        ends = np.pad(segments, ((0, 0), (0, 1)))[:, 1:] != segments  # the last token of a text, or padding
        answers[:, :-1] = real[:, :-1] & ends[:, 1:] & ~ends[:, :-1]
        return LanguageBatch(batch, self._weighted(shares, answers), shares)

    def _padded(self, step: int) -> LanguageBatch:
        layout, indices = self._layout, self._texts.indices(step)
        lengths = self._encoded.lengths[indices]
        padded = self._padded_length(lengths)
        filled = pad(self._encoded, indices, length=self._columns(lengths))
        token_ids, mask = np.asarray(filled.token_ids), np.asarray(filled.mask)
        columns = np.arange(mask.shape[1])[None]
        real = targets = mask & (columns > 0)
        if layout.pad_with is not None:
            mask = np.broadcast_to(columns < padded, mask.shape).copy()
            token_ids = np.where(mask & (columns >= lengths[:, None]), np.int32(layout.pad_with), token_ids)
            targets = mask & (columns > 0)
        count = len(lengths)
        divisors = {
            "token_mean": np.full((count, 1), targets.sum()),
            "text_mean": targets.sum(axis=1, keepdims=True) * count,
            "padded_mean": np.full((count, 1), (padded - 1) * count),
        }
        weights = (targets / divisors[layout.reduction]).astype(np.float32)
        weights = self._weighted(weights, real & (columns == lengths[:, None] - 2))
        return LanguageBatch(Batch(token_ids=token_ids, mask=mask), weights, _shares(real))

    def _weighted(self, weights: Float32[np.ndarray, "r l"], answers: Bool[np.ndarray, "r l"]) -> np.ndarray:
        return np.where(answers, np.float32(self._layout.answer_weight) * weights, weights)

    def _padded_length(self, lengths: Int[np.ndarray, " n"]) -> int:
        """What the batch counts as padded to; its arrays may be longer."""
        if self._layout.pad_to == "longest":
            return int(self._encoded.lengths.max())
        return min(_round_up(int(lengths.max())), self._layout.row_length)

    def _columns(self, lengths: Int[np.ndarray, " n"]) -> int:
        padded = self._padded_length(lengths)
        if self._layout.pad_to == "longest":
            return padded
        return next(length for _, length in self._texts.shapes if length >= padded)


def _shares(real: Bool[np.ndarray, "r l"]) -> Float32[np.ndarray, "r l"]:
    return (real / real.sum()).astype(np.float32)


def _round_up(length: int) -> int:
    return -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE


def _check(layout: Layout) -> None:
    for name in ("rows", "micro_batches"):
        if (value := getattr(layout, name)) < 1:
            raise UserError(f"{name} of a batch is {value}: accepted is 1 or more")
    if layout.rows % layout.micro_batches:
        raise UserError(f"{layout.micro_batches} micro-batches do not divide the {layout.rows} rows of a batch")
    if layout.reduction not in get_args(Reduction):
        raise UserError(f"unknown reduction {layout.reduction!r}: accepted are {', '.join(get_args(Reduction))}")
    if layout.pad_to not in get_args(PadTo):
        raise UserError(f"unknown pad_to {layout.pad_to!r}: accepted are {', '.join(get_args(PadTo))}")
    if layout.packed and (layout.reduction != "token_mean" or layout.pad_with is not None):
        raise UserError(f"reduction {layout.reduction} and predicted padding are of padded batches, not of packed ones")
