# The fields of a Batch may be None for a type checker; those read here are not.
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportOptionalOperand=false
# pyright: reportOptionalIterable=false, reportArgumentType=false
from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.batching import TrainBatches, eval_batches
from jaxdistill.data.packing import place


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("packed", [True, False])
def test_batch_is_a_pure_function_of_seed_and_step(make_encoded, packed):
    encoded = make_encoded(100)
    options = {"batch_size": 8, "row_length": 32, "packed": packed}
    forward = TrainBatches(encoded, seed=3, **options)
    batches = [forward(step) for step in range(30)]
    backward = TrainBatches(encoded, seed=3, **options)
    assert all(same(backward(step), batches[step]) for step in reversed(range(30)))
    assert not same(TrainBatches(encoded, seed=4, **options)(0), batches[0])
    assert all(batch.token_ids.shape in forward.shapes for batch in batches)
    assert forward.max_rows == forward.shapes[-1][0]


def test_epochs_cover_the_split_in_fresh_orders(make_encoded):
    batches = TrainBatches(make_encoded(100), batch_size=8, seed=0, row_length=32)
    assert batches.steps_per_epoch == 12
    first, second = (np.concatenate([batches.indices(e * 12 + i) for i in range(12)]) for e in (0, 1))
    assert len(set(first)) == len(set(second)) == 96
    assert (first != second).any()


def test_a_batch_holds_the_examples_it_names(make_encoded):
    encoded = make_encoded(100)
    for packed in (True, False):
        batches = TrainBatches(encoded, batch_size=8, seed=0, row_length=32, packed=packed)
        batch, indices = batches(5), batches.indices(5)
        np.testing.assert_array_equal(batch.labels, encoded.labels[indices])
        assert sorted(batch.token_ids[batch.mask]) == sorted(np.concatenate([encoded.tokens(i) for i in indices]))


def test_only_given_indices_are_drawn(make_encoded):
    encoded = make_encoded(100)
    batches = TrainBatches(encoded, batch_size=8, seed=0, row_length=32, indices=np.flatnonzero(encoded.labels == 2))
    assert {int(label) for step in range(10) for label in batches(step).labels} == {2}


def test_shapes_are_few_and_hold_all(make_encoded):
    encoded = make_encoded(2000, longest=30)
    batches = TrainBatches(encoded, batch_size=32, seed=0, row_length=32)
    assert len(batches.shapes) == 4
    assert batches.max_rows == 32  # two examples of the longest never share a row
    rows = np.asarray([batches(step).token_ids.shape[0] for step in range(500)])
    assert (rows <= batches.shapes[-2][0]).all()
    longest = np.argsort(-encoded.lengths)[:32]
    worst = TrainBatches(encoded, batch_size=32, seed=0, row_length=32, indices=longest)
    assert worst(0).token_ids.shape[0] <= 32
    divided = TrainBatches(encoded, batch_size=32, seed=0, row_length=32, rows_multiple_of=8)
    assert all(r % 8 == 0 for r, _ in divided.shapes)


def test_more_shapes_pad_less(make_encoded):
    encoded = make_encoded(2000, longest=30)
    planned = [TrainBatches(encoded, batch_size=32, seed=0, row_length=32, usual_shapes=usual) for usual in range(4)]
    assert planned[0].shapes == planned[2].shapes[2:]
    rows = [np.mean([batches(step).token_ids.shape[0] for step in range(500)]) for batches in planned]
    assert rows == sorted(rows, reverse=True)
    # What a shape for every number of rows would leave.
    needed = [place(encoded.lengths[planned[0].indices(step)], 32).rows for step in range(500)]
    least = np.mean(needed)
    assert least <= rows[3] < least + (rows[0] - least) / 4


def test_padded_lengths_are_multiples_of_eight(make_encoded):
    encoded = make_encoded(500, longest=42)
    batches = TrainBatches(encoded, batch_size=4, seed=0, row_length=64, packed=False, usual_shapes=1)
    assert batches.shapes == ((4, 40), (4, 48))
    for step in range(20):
        needed = encoded.lengths[batches.indices(step)].max()
        assert batches(step).token_ids.shape == (4, 40 if needed <= 40 else 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, "batch size 11 must be from 1 to 10, the number of examples"),
        ({"batch_size": 0}, "batch size 0 must be from 1 to 10, the number of examples"),
        (
            {"batch_size": 6, "packed": False, "rows_multiple_of": 4},
            "batch size 6 must be a multiple of 4, to divide over devices",
        ),
        ({"batch_size": 5, "row_length": 10}, "an example of 18 tokens is longer than a row of 10"),
    ],
)
def test_bad_arguments(make_encoded, options, message):
    with pytest.raises(UserError) as caught:
        TrainBatches(make_encoded(10), **({"seed": 0, "row_length": 32} | options))
    assert str(caught.value) == message


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rows_multiple_of", [1, 4])
def test_evaluation_covers_each_example_once_in_one_shape(make_encoded, packed, rows_multiple_of):
    encoded = make_encoded(101)
    result = eval_batches(encoded, row_length=32, rows=9, packed=packed, rows_multiple_of=rows_multiple_of)
    assert sorted(np.concatenate(result.indices)) == list(range(101))
    shapes = {tuple(leaf.shape for leaf in jax.tree.leaves(batch)) for batch in result.batches}
    assert len(shapes) == 1
    rows = result.batches[0].token_ids.shape[0]
    assert rows <= 9 and rows % rows_multiple_of == 0
    assert sum(float(batch.weights.sum()) for batch in result.batches) == 101
    for batch, indices in zip(result.batches, result.indices, strict=True):
        assert (batch.weights[: len(indices)] == 1).all()
        np.testing.assert_array_equal(batch.labels[: len(indices)], encoded.labels[indices])
    positions = sum(batch.mask.size for batch in result.batches)
    assert result.fill == pytest.approx(sum(int(batch.mask.sum()) for batch in result.batches) / positions)
    assert result.fill > (0.9 if packed and rows_multiple_of == 1 else 0.4)


def test_evaluation_packs_rows_whole(make_encoded):
    encoded = make_encoded(64)
    result = eval_batches(encoded, row_length=32, rows=8)
    for batch, indices in zip(result.batches, result.indices, strict=True):
        flat = batch.token_ids.reshape(-1)
        for i, start in zip(indices, batch.starts, strict=False):
            np.testing.assert_array_equal(flat[start : start + encoded.lengths[i]], encoded.tokens(i))


def test_evaluation_needs_a_row_for_each_device(make_encoded):
    with pytest.raises(UserError, match="^evaluation rows 3 must be at least 4$"):
        eval_batches(make_encoded(10), row_length=32, rows=3, rows_multiple_of=4)
