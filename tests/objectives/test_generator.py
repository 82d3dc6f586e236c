"""The generator's gradient: the closed form with one backward pass against differentiation of the whole."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch, Variables
from jaxdistill.models.classic_learner import ClassicOptions, classic_learner
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_families import decoder_config
from jaxdistill.objectives.generator import GeneratorBatch, generator_matching, text_losses
from jaxdistill.objectives.head_matching import head_parts

CLASSES, EACH, LENGTH, WORDS, TEMPERATURE = 3, 4, 6, 11, 0.5
CONFIG = decoder_config(
    {"model_type": "gpt2", "vocab_size": WORDS, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 24}
    | {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.3}
)
DECODER = Decoder(CONFIG, jnp.dtype("float64"))


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


@functools.cache
def learner():
    vectors = np.random.default_rng(0).normal(size=(WORDS, 4))
    options = ClassicOptions(hidden=3)
    return classic_learner("mlp", vectors, num_classes=CLASSES, length=LENGTH, options=options, dtype="float64")


def texts(count, seed):
    rng = np.random.default_rng(seed)
    mask = np.arange(LENGTH)[None] < rng.integers(2, LENGTH + 1, count)[:, None]
    return Batch(token_ids=jnp.asarray(rng.integers(1, WORDS, (count, LENGTH))), mask=jnp.asarray(mask))


@functools.cache
def problem():
    """(generator's parameters, learner's variables, batch)."""
    params = init_decoder(DECODER, jax.random.key(0))
    variables = learner().init(jax.random.key(1))
    labels = jnp.repeat(jnp.arange(CLASSES), EACH)
    some = dataclasses.replace(texts(CLASSES * EACH, 0), labels=labels)
    real = [
        head_parts(learner().apply(variables, texts(5, 1 + c)), jnp.full(5, c), bias=True).gradient(jnp.full(5, 0.2))
        for c in range(CLASSES)
    ]
    batch = GeneratorBatch(dataclasses.replace(some, labels=None), some, variables.trainable, jnp.stack(real))
    return params, variables, batch


def whole_pipeline(params, variables, batch, reduction):
    """By the definition: gradients of the head by differentiation, every text's on its own."""
    head = variables.trainable["classifier"]
    rest = {name: part for name, part in variables.trainable.items() if name != "classifier"}

    def losses_of(head):
        moved = Variables(rest | {"classifier": head}, variables.frozen)
        return example_cross_entropy(learner().apply(moved, batch.examples).logits, batch.examples.labels)

    jacobian = jax.jacrev(losses_of)(head)
    flat = jnp.concatenate([jacobian["kernel"].swapaxes(1, 2), jacobian["bias"][:, :, None]], axis=2)
    flat = flat.reshape(CLASSES, EACH, -1)
    by_class = [jax.tree.map(lambda x, c=c: x[c * EACH : (c + 1) * EACH], batch.texts) for c in range(CLASSES)]
    losses = jnp.stack([text_losses(DECODER, params, own, reduction) for own in by_class])
    weights = jax.nn.softmax(-losses / TEMPERATURE, axis=1)
    whole = jnp.einsum("cn,cnp->cp", weights, flat)
    real = batch.real.reshape(CLASSES, -1)
    norms = jnp.sqrt(jnp.sum(whole**2, axis=1) * jnp.sum(real**2, axis=1))
    return jnp.mean(1 - jnp.sum(whole * real, axis=1) / norms)


@pytest.mark.parametrize(("reduction", "micro_batch"), [("text_mean", 0), ("text_mean", 6), ("padded_mean", 0)])
def test_gradient_equals_that_of_the_whole_pipeline(reduction, micro_batch):
    params, variables, batch = problem()
    objective = generator_matching(
        DECODER, learner(), temperature=TEMPERATURE, reduction=reduction, micro_batch=micro_batch
    )

    def both(params):
        def found(p):
            loss, (_, metrics) = objective(p, (), variables.frozen, batch, jax.random.key(0))
            return loss, metrics

        return jax.value_and_grad(found, has_aux=True)(params), jax.value_and_grad(whole_pipeline)(
            params, variables, batch, reduction
        )

    ((loss, metrics), gradient), (expected, expected_gradient) = jax.jit(both)(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(metrics["cosine"], 1 - expected, rtol=1e-12)
    assert 1 <= float(metrics["likely_texts"]) <= EACH
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) > 1e-3


def test_losses_by_hand():
    """Three tokens after the first, of a text of four; the longest text of the batch makes the padded length 8."""
    params = problem()[0]
    ids = jnp.array([[1, 2, 3, 4, 0, 0], [1, 5, 6, 7, 8, 9]])
    mask = jnp.array([[True] * 4 + [False] * 2, [True] * 6])
    log_probabilities = jax.nn.log_softmax(jax.jit(DECODER.apply)({"params": params}, Batch(token_ids=ids, mask=mask)))
    total = -sum(log_probabilities[0, i, ids[0, i + 1]] for i in range(3))
    batch = Batch(token_ids=ids, mask=mask)
    losses_of = jax.jit(text_losses, static_argnums=(0, 3))
    found = {name: losses_of(DECODER, params, batch, name) for name in ("text_mean", "padded_mean")}
    np.testing.assert_allclose(found["text_mean"][0], total / 3, rtol=1e-12)
    np.testing.assert_allclose(found["padded_mean"][0], total / 7, rtol=1e-12)
    longer = Batch(token_ids=jnp.pad(ids, ((0, 0), (0, 6))), mask=jnp.pad(mask, ((0, 0), (0, 6))))
    for name in found:  # padding that no text needs changes nothing
        np.testing.assert_allclose(losses_of(DECODER, params, longer, name), found[name], rtol=1e-10)
    wide = dataclasses.replace(longer, mask=longer.mask.at[1].set(True))
    again = losses_of(DECODER, params, wide, "padded_mean")[0]
    np.testing.assert_allclose(again, total / 15, rtol=1e-10)
    np.testing.assert_allclose(losses_of(DECODER, params, wide, "text_mean")[0], total / 3, rtol=1e-10)
