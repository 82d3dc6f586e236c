"""Losses against their formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.losses import attention_cross_entropy, cross_entropy

RNG = np.random.default_rng(0)


def test_unrestricted_labels_are_not_normalised():
    logits = RNG.normal(size=(4, 3)).astype(np.float32)
    labels = np.array([[2.0, -1.0, 0.5]] * 4, np.float32)
    expected = -(labels * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-6)
    doubled = cross_entropy(jnp.asarray(logits), jnp.asarray(2 * labels))
    np.testing.assert_allclose(doubled, 2 * cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), rtol=1e-6)


def test_class_ids_are_one_hot_targets_and_weight_zero_drops_an_example():
    logits = jnp.asarray(RNG.normal(size=(4, 3)).astype(np.float32))
    ids = jnp.array([0, 2, 1, 1])
    np.testing.assert_allclose(cross_entropy(logits, ids), cross_entropy(logits, jax.nn.one_hot(ids, 3)), rtol=1e-6)
    weights = jnp.array([1.0, 1.0, 0.0, 1.0])
    kept = jnp.array([0, 1, 3])
    np.testing.assert_allclose(cross_entropy(logits, ids, weights), cross_entropy(logits[kept], ids[kept]), rtol=1e-6)


def test_attention_loss_is_kl_plus_entropy():
    shape = (2, 3, 4, 1, 5)
    attentions = jax.nn.log_softmax(jnp.asarray(RNG.normal(size=shape).astype(np.float32)))
    scores = jnp.asarray(RNG.normal(size=shape).astype(np.float32))
    p = np.asarray(jax.nn.softmax(scores))
    kl = (p * (np.log(p) - np.asarray(attentions))).sum(-1).mean()
    found = attention_cross_entropy(attentions, scores) - -(p * np.log(p)).sum(-1).mean()
    np.testing.assert_allclose(found, kl, rtol=1e-5)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-6)
