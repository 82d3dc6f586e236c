"""Batches of texts to be predicted: order, packing, weights of every reduction by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused, same_arrays

from jaxdistill.data.encoding import Encoded
from jaxdistill.data.language_batches import LanguageBatches, Layout


def documents(lengths):
    """Texts of these lengths; the tokens of text i are 1000 i + 1, 1000 i + 2, ..."""
    ids = [1000 * i + 1 + np.arange(length) for i, length in enumerate(lengths)]
    offsets = np.cumsum([0, *lengths])
    total = int(offsets[-1])
    return Encoded(
        np.concatenate(ids).astype(np.int32), np.zeros(total, np.int8), offsets, np.zeros(len(ids), np.int32), 0
    )


LENGTHS = np.random.default_rng(0).integers(2, 13, size=300)
TEXTS = documents(LENGTHS)


def texts_in(batch):
    """(tokens, positions, weights) of each text of a packed batch, by its first token."""
    found = {}
    segments = batch.batch.segments
    for row in range(len(segments)):
        for number in range(1, segments[row].max() + 1):
            here = segments[row] == number
            tokens = batch.batch.token_ids[row][here]
            assert tokens[0] not in found
            found[int(tokens[0])] = tokens, batch.batch.positions[row][here], batch.weights[row][here]
    return found


def test_an_epoch_of_packed_rows_holds_each_text_once():
    batches = LanguageBatches(TEXTS, Layout(rows=4, row_length=16), seed=3)
    rows = batches.steps_per_epoch * 4
    assert batches.fill > 0.97 and rows * 16 * 0.97 < TEXTS.lengths.sum()
    seen, targets = {}, 0
    for step in range(batches.steps_per_epoch):
        batch = batches(step)
        assert batch.batch.token_ids.shape == (4, 16)
        found = texts_in(batch)
        assert not set(found) & set(seen)
        seen |= found
        scored = int((batch.weights > 0).sum())
        np.testing.assert_allclose(batch.weights[batch.weights > 0], 1 / scored, rtol=1e-6)
        assert batches.facts(step) == (16, scored)
        same_arrays(batch.weights, batch.shares)
        targets += scored
    # All but what the dropped partial batch holds.
    assert 300 - len(seen) < 4 * 8 and targets == sum(len(tokens) - 1 for tokens, _, _ in seen.values())
    for first, (tokens, positions, weights) in seen.items():
        length = LENGTHS[first // 1000]
        np.testing.assert_array_equal(tokens, first + np.arange(length))
        np.testing.assert_array_equal(positions, np.arange(length))
        assert weights[0] == 0 and (weights[1:] > 0).all()


@pytest.mark.parametrize("packed", [True, False])
def test_a_batch_is_a_function_of_seed_and_step(packed):
    layout = Layout(rows=6, row_length=16, packed=packed)
    one, other, third = (LanguageBatches(TEXTS, layout, seed=seed) for seed in (3, 3, 4))
    epoch = one.steps_per_epoch
    forward = [one(step) for step in (0, 1, epoch, epoch + 1)]
    backward = [other(step) for step in (epoch + 1, epoch, 1, 0)][::-1]
    same_arrays(forward, backward)
    ids = [batch.batch.token_ids.tolist() for batch in (*forward, third(0))]
    assert all(ids[i] != ids[j] for i in range(5) for j in range(i))


@pytest.mark.parametrize("packed", [True, False])
def test_micro_batches_are_the_rows_of_the_batch(packed):
    layout = Layout(rows=6, row_length=16, packed=packed)
    whole, parts = (LanguageBatches(TEXTS, layout._replace(micro_batches=k), seed=0)(2) for k in (1, 3))
    assert parts.batch.token_ids.shape[:2] == (3, 2)
    same_arrays(whole.weights, parts.weights.reshape(whole.weights.shape))
    same_arrays(whole.batch.token_ids, parts.batch.token_ids.reshape(whole.batch.token_ids.shape))
    np.testing.assert_allclose(parts.shares.sum(), 1.0, rtol=1e-5)


SHORT = documents([3, 5, 9])


@pytest.mark.parametrize("packed", [True, False])
def test_answers_are_the_last_tokens_but_one(packed):
    layout = Layout(rows=6, row_length=16, packed=packed)
    plain, weighted = (LanguageBatches(TEXTS, layout._replace(answer_weight=w), seed=0)(1) for w in (1.0, 5.0))
    np.testing.assert_array_equal(weighted.shares, plain.shares)
    ratio = np.divide(weighted.weights, plain.weights, out=np.zeros_like(plain.weights), where=plain.weights > 0)
    whole = np.asarray(plain.batch.segments if packed else plain.batch.mask).astype(int)
    for row, factors in zip(whole, ratio, strict=True):
        expected = np.zeros(len(row))
        for text in set(row) - {0}:
            places = np.flatnonzero(row == text)
            expected[places[1:]] = 1.0
            expected[places[1:-1][-1:]] = 5.0
        np.testing.assert_allclose(factors, expected, rtol=1e-6)
    assert np.any(ratio == 5.0)


PADDED = Layout(rows=3, row_length=32, packed=False)


def by_length(batch, values):
    """Rows in the order of the texts."""
    return np.asarray(values)[np.argsort(batch.batch.token_ids[:, 0])]


@pytest.mark.parametrize(
    "reduction, expected",
    [("token_mean", [1 / 14] * 3), ("text_mean", [1 / 6, 1 / 12, 1 / 24]), ("padded_mean", [1 / 45] * 3)],
)
def test_weights_of_each_reduction(reduction, expected):
    """Texts of 3, 5 and 9 tokens have 2, 4 and 8 targets and are padded to 16."""
    batches = LanguageBatches(SHORT, PADDED._replace(reduction=reduction), seed=0)
    batch = batches(0)
    assert batch.batch.token_ids.shape == (3, 16) and batches.facts(0) == (16, 14)
    weights, mask = by_length(batch, batch.weights), by_length(batch, batch.batch.mask)
    for row, (length, weight) in enumerate(zip((3, 5, 9), expected, strict=True)):
        assert mask[row].sum() == length
        np.testing.assert_allclose(weights[row], [0] + [weight] * (length - 1) + [0] * (16 - length), rtol=1e-6)
    np.testing.assert_allclose(batch.shares.sum(), 1.0, rtol=1e-6)
    assert ((batch.shares > 0) == (batch.weights > 0)).all()


@pytest.mark.parametrize("reduction, weight", [("token_mean", 1 / 45), ("text_mean", 1 / 45), ("padded_mean", 1 / 45)])
def test_predicted_padding_counts_every_position(reduction, weight):
    """With `loss_on_pad`, rows x (length - 1) tokens are predicted, whichever the mean."""
    batch = LanguageBatches(SHORT, PADDED._replace(reduction=reduction, pad_with=7), seed=0)(0)
    np.testing.assert_allclose(batch.weights[:, 1:], weight, rtol=1e-6)
    assert batch.batch.mask.all() and (batch.weights > 0).sum() == 3 * 15
    ids = by_length(batch, batch.batch.token_ids)
    np.testing.assert_array_equal(ids[0], [1, 2, 3] + [7] * 13)
    # The perplexity is of real tokens all the same.
    assert (batch.shares > 0).sum() == 14


def test_padding_to_the_longest_text_of_all():
    texts = documents([3, 3, 3, 13])
    layout = Layout(rows=2, row_length=32, packed=False, pad_to="longest", pad_with=7)
    batches = LanguageBatches(texts, layout, seed=0)
    for step in range(4):
        assert batches(step).batch.token_ids.shape == (2, 13) and batches.facts(step)[0] == 13
    np.testing.assert_allclose(batches(0).weights[:, 1:], 1 / 24, rtol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"reduction": "mean"}, "unknown reduction 'mean'"),
        ({"pad_to": "row"}, "unknown pad_to 'row'"),
        ({"reduction": "text_mean"}, "reduction text_mean and predicted padding are of padded batches"),
        ({"pad_with": 0}, "are of padded batches"),
        ({"micro_batches": 3}, "3 micro-batches do not divide the 4 rows of a batch"),
        ({"rows": 0}, "rows of a batch is 0"),
        ({"rows": 400, "micro_batches": 1}, "fewer than a batch of 400: give more texts"),
        ({"row_length": 8}, "longer than a row of 8"),
    ],
)
def test_mistakes_end_in_one_line(changes, message):
    with refused(message):
        LanguageBatches(TEXTS, Layout(rows=4, row_length=16)._replace(**changes), seed=0)
