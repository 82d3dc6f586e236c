# The fields of a Batch may be None for a type checker; those read here are not.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportOptionalIterable=false, reportArgumentType=false
from __future__ import annotations

import math

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.packing import RowsExceeded, pack, pad, place


@pytest.mark.parametrize("seed", range(8))
def test_packing_moves_every_token_once_and_keeps_examples_whole(make_encoded, seed):
    encoded = make_encoded(60, longest=20 + seed, seed=seed)
    indices = np.random.default_rng(seed).permutation(60)[:33]
    batch = pack(encoded, indices, row_length=32)
    assert (batch.mask == (batch.segments > 0)).all()
    expected = np.concatenate([encoded.tokens(i) for i in indices])
    assert sorted(batch.token_ids[batch.mask]) == sorted(expected)
    assert not batch.token_ids[~batch.mask].any() and not batch.positions[~batch.mask].any()
    flat = {name: getattr(batch, name).reshape(-1) for name in ("token_ids", "token_types", "positions", "segments")}
    for i, start in zip(indices, batch.starts, strict=True):
        length = int(encoded.lengths[i])
        place_of = slice(start, start + length)
        assert start // 32 == (start + length - 1) // 32
        assert flat["token_ids"][start] < 0  # the first token of an example, by construction
        np.testing.assert_array_equal(flat["token_ids"][place_of], encoded.tokens(i))
        np.testing.assert_array_equal(flat["positions"][place_of], np.arange(length))
        types = encoded.token_types[encoded.offsets[i] : encoded.offsets[i + 1]]
        np.testing.assert_array_equal(flat["token_types"][place_of], types)
        assert len(set(flat["segments"][place_of])) == 1
    for row in batch.segments:
        used = row[row > 0]
        # Numbered from 1 without gaps, left to right, padding last.
        assert (np.diff(used) >= 0).all() and set(used) == set(range(1, used.max() + 1))
        assert (row[len(used) :] == 0).all()
    np.testing.assert_array_equal(batch.labels, encoded.labels[indices])
    np.testing.assert_array_equal(batch.weights, np.ones(33, np.float32))


def test_dtypes_and_determinism(make_encoded):
    encoded = make_encoded(20)
    first, second = (pack(encoded, np.arange(20), row_length=32, rows=12, examples=24) for _ in range(2))
    for name in ("token_ids", "token_types", "positions", "segments", "starts", "labels"):
        assert getattr(first, name).dtype == np.int32
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.mask.dtype == bool and first.weights.dtype == np.float32
    assert first.token_ids.shape == (12, 32)
    assert first.weights.tolist() == [1.0] * 20 + [0.0] * 4
    assert first.starts[20:].tolist() == first.labels[20:].tolist() == [0] * 4


def test_known_placement():
    placement = place(np.asarray([3, 5, 2, 5, 4, 1]), 8)
    assert placement.rows == 3
    assert placement.row.tolist() == [0, 0, 1, 1, 2, 1]
    assert placement.column.tolist() == [5, 0, 5, 0, 0, 7]
    assert placement.segment.tolist() == [2, 1, 2, 1, 1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_rows_keep_the_stated_bounds(seed):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 21, size=100)
    placement = place(lengths, 64)
    assert placement.rows <= 11 / 9 * math.ceil(lengths.sum() / 64) + 1
    assert placement.rows <= math.ceil(100 / (64 // lengths.max()))


def test_row_counts_allowed(make_encoded):
    encoded = make_encoded(40)
    needed = pack(encoded, np.arange(40), row_length=32).token_ids.shape[0]
    allowed = (needed - 1, needed + 1, needed + 5)
    assert pack(encoded, np.arange(40), row_length=32, rows=allowed).token_ids.shape == (needed + 1, 32)
    with pytest.raises(RowsExceeded) as caught:
        pack(encoded, np.arange(40), row_length=32, rows=needed - 1)
    assert caught.value.needed == needed
    assert str(caught.value) == f"the examples need {needed} rows; {needed - 1} are allowed"


def test_padding(make_encoded):
    encoded = make_encoded(6, longest=7)
    indices = np.asarray([4, 1, 5])
    batch = pad(encoded, indices, length=8, examples=4)
    assert batch.token_ids.shape == (4, 8)
    assert batch.segments is None and batch.starts is None and batch.positions is None
    for row, i in enumerate(indices):
        np.testing.assert_array_equal(batch.token_ids[row][batch.mask[row]], encoded.tokens(i))
    assert batch.mask.sum(axis=1).tolist() == [*encoded.lengths[indices], 0]
    assert batch.weights.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_too_long_and_too_many(make_encoded):
    encoded = make_encoded(10, longest=20)
    longest = encoded.lengths.max()
    for call in (lambda: pack(encoded, np.arange(10), row_length=8), lambda: pad(encoded, np.arange(10), length=8)):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == (
            f"an example of {longest} tokens is longer than a row of 8; "
            "encode with a smaller max_length or take longer rows"
        )
    with pytest.raises(ValueError, match="10 indices do not fit in 9 examples"):
        pad(encoded, np.arange(10), length=20, examples=9)
