"""Inversion in a toy language where it can be exact, with its corrections; what an inverter learns from."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.methods.base import Run
from jaxdistill.methods.inversion import (
    START,
    UNKNOWN,
    Correcting,
    Models,
    _corrected,
    _repeated,
    _start,
    choose_tokens,
    cosines,
    embed_texts,
    invert,
)
from jaxdistill.methods.inverter_training import InverterTraining, Pairs, _batch, _Plan, make_guesses, train_inverter
from jaxdistill.models.inverter import Guess, Inverter, init_corrector, init_inverter
from jaxdistill.models.t5_config import T5Config

WORDS, LENGTH, WIDTH = 40, 2, 32
CONFIG = T5Config(
    vocabulary=WORDS + 4,
    width=64,
    heads=2,
    head_width=32,
    intermediate=128,
    encoder_layers=1,
    decoder_layers=1,
    buckets=8,
    farthest=16,
    dropout=0.0,
    start=1,
    end=2,
)
INVERTER = Inverter(CONFIG, WIDTH, soft_tokens=4)
CORRECTOR = INVERTER.clone(corrects=True)
SETTINGS = InverterTraining(updates=500, corrector_updates=60, rows=64, lr=5e-3, noise=0.0, selections=1)


@functools.cache
def language():
    """Vectors of the words at each place; special tokens have none."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(LENGTH, WORDS + 4, WIDTH)).astype(np.float32)
    table[:, :4] = 0.0
    return jnp.asarray(table)


def embed(table, token_ids, mask):
    places = jnp.arange(token_ids.shape[1])
    vectors = table[places[None], token_ids] * mask[..., None].astype(jnp.float32)
    total = vectors.sum(axis=1)
    return total / jnp.maximum(jnp.linalg.norm(total, axis=1, keepdims=True), 1e-6)


def models(params=None, corrector_params=None):
    params = init_inverter(INVERTER, jax.random.key(0)) if params is None else params
    return Models(
        INVERTER,
        params,
        None if corrector_params is None else CORRECTOR,
        corrector_params,
        jnp.arange(WORDS + 4),
        embed,
        language(),
        LENGTH,
    )


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH + 1, count).astype(np.int32)
    ids = rng.integers(4, WORDS + 4, (count, LENGTH)).astype(np.int32)
    ids = np.where(np.arange(LENGTH) < lengths[:, None], ids, 0).astype(np.int32)
    found = embed_texts(models(), jnp.asarray(ids), jnp.asarray(lengths))
    return Pairs(np.asarray(found.embeddings), ids, lengths)


def quiet():
    return Run(say=lambda line: None)


@pytest.fixture(scope="module")
def learned():
    """(parameters of the inverter, of the corrector) after 5,000 sentences, which are most of all."""
    train, dev = sentences(5000, 0), sentences(200, 1)
    first = init_inverter(INVERTER, jax.random.key(0))
    key = jax.random.key(1)
    params = train_inverter(
        SETTINGS, INVERTER, first, train, dev, updates=SETTINGS.updates, key=key, run=quiet()
    ).learned
    pairs = [part._replace(guesses=make_guesses(models(params), part, 500, label="guesses")) for part in (train, dev)]
    start = init_corrector(CORRECTOR, params, jax.random.key(2))
    corrector = train_inverter(
        SETTINGS, CORRECTOR, start, *pairs, updates=SETTINGS.corrector_updates, key=key, run=quiet()
    ).learned
    return params, corrector


def test_exact_inversion_of_a_toy_language(learned):
    held_out = sentences(200, 3)
    first = invert(models(learned[0]), held_out.embeddings, Correcting(steps=0, rows=200))
    found = invert(models(*learned), held_out.embeddings, Correcting(steps=4, beams=3, rows=200))
    exact = np.mean(np.all(found.token_ids == held_out.token_ids, axis=1))
    assert exact >= 0.95
    assert first.cosines.mean() < found.cosines.mean() and found.cosines.mean() > 0.98
    assert np.all(np.diff(found.history, axis=0) >= 0)
    np.testing.assert_allclose(found.history[0], first.cosines, rtol=1e-5)
    np.testing.assert_allclose(found.history[-1], found.cosines)
    np.testing.assert_array_equal(np.sum(found.token_ids > 0, axis=1), found.lengths)


def test_rows_that_stop_gaining_are_left(learned):
    held_out = sentences(6, 3)
    found = invert(models(*learned), held_out.embeddings, Correcting(steps=6, beams=2, rows=4, tolerance=3.0))
    np.testing.assert_allclose(found.history[1:], np.repeat(found.history[1:2], 6, axis=0))  # one step, and no more
    patient = Correcting(steps=2, beams=2, rows=6, tolerance=0.0)
    whole = invert(models(*learned), held_out.embeddings, patient)
    parts = invert(models(*learned), held_out.embeddings, dataclasses.replace(patient, rows=4))
    np.testing.assert_array_equal(whole.token_ids, parts.token_ids)
    assert whole.history.shape == (3, 6)


def test_a_perfect_text_stays_and_beams_differ(learned):
    held_out = sentences(4, 4)
    own, targets = models(*learned), jnp.asarray(held_out.embeddings)
    texts = embed_texts(own, jnp.asarray(held_out.token_ids), jnp.asarray(held_out.lengths))
    search = _start(own, targets, 3)
    beams = jax.tree.map(lambda x, y: x.at[:, 0].set(y), search.beams, texts)
    search = dataclasses.replace(search, beams=beams, cosines=search.cosines.at[:, 0].set(1.0))
    after = _corrected(own, targets, search, 3, 0.0)
    np.testing.assert_array_equal(after.beams.token_ids[:, 0], held_out.token_ids)
    np.testing.assert_allclose(after.cosines[:, 0], 1.0, atol=1e-5)
    assert not np.any(np.asarray(_repeated(after.beams.token_ids)) & np.isfinite(after.cosines))
    assert np.all(np.diff(after.cosines, axis=1) <= 0)


def test_what_stands_behind_a_text_changes_nothing():
    own = models()
    ids, lengths = jnp.array([[5, 9], [5, 0]]), jnp.array([1, 1])
    found = embed_texts(own, ids, lengths)
    np.testing.assert_array_equal(found.token_ids, [[5, 0], [5, 0]])
    np.testing.assert_array_equal(found.embeddings[0], found.embeddings[1])
    corrector = init_inverter(CORRECTOR, jax.random.key(1))
    guesses = [Guess(jnp.array([[5, other]]), jnp.array([[True, False]]), found.embeddings[:1]) for other in (0, 77)]
    logits = [
        CORRECTOR.apply({"params": corrector}, found.embeddings[:1], jnp.array([[1, 5]]), guess) for guess in guesses
    ]
    np.testing.assert_array_equal(*logits)


def test_special_tokens_are_never_written():
    """Not even by a decoder to which one of two is always the likeliest."""
    params = init_inverter(INVERTER, jax.random.key(0))
    head = params["t5"]["head"]["kernel"]
    head = head.at[:, START].set(100 * head[:, 5]).at[:, UNKNOWN].set(-100 * head[:, 5])
    params = params | {"t5": params["t5"] | {"head": {"kernel": head}}}
    found = invert(models(params), sentences(16, 3).embeddings, Correcting(steps=0, beams=1, rows=16))
    written = np.arange(LENGTH) < found.lengths[:, None]
    assert found.token_ids[written].min() > UNKNOWN and found.lengths.min() > 0


def test_what_a_corrector_reads():
    params = init_inverter(INVERTER, jax.random.key(0))
    start = init_corrector(CORRECTOR, params, jax.random.key(1))
    np.testing.assert_array_equal(start["sequence_1"]["first"]["kernel"], params["sequence_0"]["first"]["kernel"])
    assert start["segments"].shape == (4, CONFIG.width)
    guess = Guess(jnp.array([[5, 6], [7, 0]]), jnp.array([[True, True], [True, False]]), jnp.zeros((2, WIDTH)))
    memory, mask = CORRECTOR.apply({"params": start}, jnp.ones((2, WIDTH)), guess, method="read")
    assert memory.shape == (2, 3 * 4 + 2, CONFIG.width)
    np.testing.assert_array_equal(mask[:, 12:], guess.mask)
    memory, mask = INVERTER.apply({"params": params}, jnp.ones((2, WIDTH)), method="read")
    assert memory.shape == (2, 4, CONFIG.width) and mask.all()


def test_batches_hold_every_text_once_an_epoch_and_like_lengths():
    pairs = sentences(40, 5)
    plan = _Plan(pairs, 8, seed=0)
    batches = [plan(step) for step in range(10)]
    seen = np.concatenate([batch["embeddings"] for batch in batches[:5]])
    assert len({row.tobytes() for row in seen}) == len({row.tobytes() for row in pairs.embeddings})
    lengths = [int((batch["weights"] > 0).sum()) for batch in batches[:5]]
    assert max(lengths) - min(lengths) >= 4  # sorted: short ones together
    assert not np.array_equal(batches[0]["embeddings"], batches[5]["embeddings"])
    np.testing.assert_array_equal(batches[3]["targets"], plan(3)["targets"])


def test_a_batch_by_hand():
    pairs = Pairs(np.zeros((2, WIDTH), np.float32), np.array([[5, 6], [7, 0]], np.int32), np.array([2, 1], np.int32))
    batch = _batch(pairs, np.array([0, 1]))
    np.testing.assert_array_equal(batch["inputs"][:, :3], [[1, 5, 6], [1, 7, 0]])
    np.testing.assert_array_equal(batch["targets"][:, :3], [[5, 6, 2], [7, 2, 0]])
    np.testing.assert_allclose(batch["weights"][:, :3], [[0.2, 0.2, 0.2], [0.2, 0.2, 0.0]], rtol=1e-6)
    assert batch["weights"].sum() == pytest.approx(1.0) and batch["inputs"].shape == (2, 8)


def test_tokens_of_a_corpus():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[PAD]", "x", "[CLS]", "[SEP]", "[UNK]", "good", "film", "bad", "plot"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    texts = ["good film", "bad film", "film"]
    tokens = choose_tokens(tokenizer, texts, (0, 2, 3), 4, 6)
    assert tokens.embedder_ids == (4, 4, 4, 4, 6, 5)  # the two most frequent
    ids, lengths = tokens.encode(tokenizer, ["film good bad", "plot"], 2)
    np.testing.assert_array_equal(ids, [[4, 5], [3, 0]])
    np.testing.assert_array_equal(lengths, [2, 1])
    assert tokens.decode(tokenizer, ids, lengths)[0] == "film good"
    assert choose_tokens(tokenizer, texts, (0, 2, 3), 4, 0).embedder_ids == (4, 4, 4, 4, 6, 5, 7)


def test_cosines():
    found = cosines(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([[2.0, 2.0], [1.0, 0.0]]))
    np.testing.assert_allclose(found, [0.5**0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"), [({"beams": 0}, "beams is 0"), ({"steps": -1}, "steps is -1"), ({"rows": 0}, "rows is 0")]
)
def test_corrections_out_of_range_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        Correcting(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": 0}, "updates is 0"),
        ({"corrector_updates": 1}, "two halves"),
        ({"lr": 0.0}, "lr is 0"),
        ({"noise": -0.1}, "noise is -0.1"),
        ({"dtype": "float16"}, "float16"),
    ],
)
def test_trainings_out_of_range_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        InverterTraining(**change)


def test_texts_that_cannot_be_learned_from_are_refused():
    good = sentences(4, 6)
    none, empty = good._replace(lengths=good.lengths[:0]), good._replace(lengths=np.array([1, 0, 1, 1], np.int32))
    broken = good._replace(embeddings=np.where(np.arange(WIDTH) == 3, np.nan, good.embeddings).astype(np.float32))
    for pairs, message in ((none, "no training texts"), (empty, "text 1 has no token"), (broken, "not finite")):
        with pytest.raises(UserError, match=message):
            train_inverter(SETTINGS, INVERTER, {}, pairs, good, updates=1, key=jax.random.key(0), run=quiet())
    with pytest.raises(UserError, match="not finite"):
        invert(models(), broken.embeddings, Correcting())
