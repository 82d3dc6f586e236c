"""Terms of fair objectives against numpy, and the adversary against a gradient-reversal layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.types import Batch
from jaxdistill.objectives.fairness import (
    adversary_init,
    adversary_loss,
    adversary_step,
    even_groups,
    group_difference,
    supervised_contrastive,
)

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(7, 4)).astype(np.float32)
LABELS = np.array([0, 1, 0, 2, 1, 0, 1])  # class 2 has a single member
GROUPS = np.array([0, 1, 1, 0, 0, 1, 1])


def contrastive(features: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """Loss of each example, by the formula."""
    features = features.astype(np.float64)
    losses = []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        scores = np.array([features[i] @ features[j] / temperature for j in others])
        log_shares = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
        positive = labels[others] == labels[i]
        losses.append(-log_shares[positive].sum() / (1 + positive.sum()))
    return np.array(losses)


value_and_slope = jax.jit(jax.value_and_grad(supervised_contrastive), static_argnums=2)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_contrastive_loss_by_the_formula(temperature):
    found, slope = value_and_slope(FEATURES, LABELS, temperature)
    np.testing.assert_allclose(found, contrastive(FEATURES, LABELS, temperature).mean(), rtol=1e-5)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_contrastive_filler_is_as_if_it_were_not_there():
    weights = jnp.array([1.0, 2.0, 1.0, 1.0, 0.5, 0.0, 0.0])
    found, slope = value_and_slope(FEATURES, LABELS, 0.5, weights)
    expected = np.average(contrastive(FEATURES[:5], LABELS[:5], 0.5), weights=weights[:5])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(slope[5:], 0)


def test_contrastive_loss_without_positives_is_zero_and_smooth():
    for labels, weights in ((np.arange(7), jnp.ones(7)), (LABELS, jnp.eye(7)[3])):
        found, slope = value_and_slope(FEATURES, labels, 0.5, weights)
        assert float(found) == 0.0
        np.testing.assert_array_equal(slope, 0)


def test_contrastive_temperature_must_be_positive():
    with pytest.raises(UserError, match="contrastive temperature 0.0 must be positive"):
        supervised_contrastive(jnp.asarray(FEATURES), jnp.asarray(LABELS), 0.0)


def cell(label: int, group: int) -> np.ndarray:
    return np.equal(LABELS, label) & np.equal(GROUPS, group)


def by_difference(losses, labels, groups, weights):
    total = 0.0
    for y in set(labels.tolist()):
        cells = [(labels == y) & (groups == g) & (weights > 0) for g in range(3)]
        means = [np.average(losses[cell], weights=weights[cell]) for cell in cells if cell.any()]
        whole = (labels == y) & (weights > 0)
        if len(means) > 1:
            overall = np.average(losses[whole], weights=weights[whole])
            total += sum(np.sign(mean - overall) * mean for mean in means)
    return total


difference = jax.jit(jax.value_and_grad(group_difference), static_argnames=("num_classes", "num_groups"))


def test_group_difference_of_two_groups_is_the_absolute_difference():
    losses = RNG.random(7).astype(np.float32)
    found, slope = difference(losses, LABELS, GROUPS, None, num_classes=4, num_groups=3)
    # Class 2 has one group in the batch, class 3 has none: both are skipped.
    expected = sum(abs(losses[cell(y, 0)].mean() - losses[cell(y, 1)].mean()) for y in (0, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    sizes = np.array([cell(y, g).sum() for y, g in zip(LABELS, GROUPS, strict=True)])
    np.testing.assert_allclose(np.abs(slope), np.where(LABELS < 2, 1 / sizes, 0), rtol=1e-6)


def test_group_difference_by_the_formula():
    for _ in range(5):
        losses, weights = RNG.random(7).astype(np.float32), RNG.integers(3, size=7).astype(np.float32)
        groups = RNG.integers(3, size=7)
        found, slope = difference(losses, LABELS, groups, jnp.asarray(weights), num_classes=4, num_groups=3)
        np.testing.assert_allclose(found, by_difference(losses, LABELS, groups, weights), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(slope)[weights == 0], 0)


def test_group_difference_of_equal_losses_is_zero():
    equal = jnp.full(7, np.float32(np.log(2)))
    found, slope = difference(equal, LABELS, GROUPS, jnp.asarray(RNG.random(7) + 0.1), num_classes=4, num_groups=3)
    assert float(found) == 0.0
    np.testing.assert_array_equal(slope, 0)


@pytest.fixture(scope="module")
def adversary():
    return jax.jit(lambda key: adversary_init(key, 4, 2, hidden=8))(jax.random.key(0))


def test_the_adversary_is_two_layers_and_an_output():
    params, _ = jax.eval_shape(lambda key: adversary_init(key, 300, 2), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 301 * 256 + 257 * 256 + 257 * 2


def test_adversary_by_the_formula(adversary):
    params = jax.tree.map(np.asarray, adversary[0])
    for layer, fan_in in (("layer_0", 4), ("layer_1", 8), ("output", 8)):
        for leaf in params[layer].values():
            assert 0 < np.abs(leaf).max() <= fan_in**-0.5
    y = FEATURES @ params["layer_0"]["kernel"] + params["layer_0"]["bias"]
    y = np.where(y > 0, y, 0.01 * y) @ params["layer_1"]["kernel"] + params["layer_1"]["bias"]
    logits = y @ params["output"]["kernel"] + params["output"]["bias"]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weights = RNG.random(7).astype(np.float32)
    expected = np.average(-log_probs[np.arange(7), GROUPS], weights=weights)
    found = adversary_loss(adversary[0], jnp.asarray(FEATURES), jnp.asarray(GROUPS), jnp.asarray(weights))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_adversarial_gradient_equals_that_of_a_reversal_layer(adversary):
    params = adversary[0]
    x, head = jnp.asarray(FEATURES), jnp.asarray(RNG.normal(size=(4, 3)).astype(np.float32))
    labels, groups, strength = jnp.asarray(LABELS), jnp.asarray(GROUPS), 0.8
    outer = jnp.asarray(RNG.normal(size=(4, 4)).astype(np.float32))

    @jax.custom_vjp
    def reverse(features):
        return features

    reverse.defvjp(lambda features: (features, None), lambda _, cotangent: (-strength * cotangent,))

    def loss(weights, through_layer):
        features = jnp.tanh(x @ weights)
        of_task = cross_entropy(features @ head, labels)
        if through_layer:
            return of_task + adversary_loss(params, reverse(features), groups)
        return of_task - strength * adversary_loss(params, features, groups)

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    np.testing.assert_allclose(slope(outer, False), slope(outer, True), rtol=1e-5, atol=1e-7)
    plain = jax.grad(lambda w: cross_entropy(jnp.tanh(x @ w) @ head, labels))(outer)
    assert np.abs(slope(outer, False) - plain).max() > 1e-3


def test_adversary_step_is_adam_and_learns(adversary):
    params, state = adversary
    x, groups = jnp.asarray(FEATURES), jnp.asarray(GROUPS)
    step = jax.jit(adversary_step)
    new, new_state, loss = step(params, state, x, groups, jnp.float32(1e-2))
    np.testing.assert_allclose(loss, adversary_loss(params, x, groups), rtol=1e-6)
    gradient = jax.grad(adversary_loss)(params, x, groups)
    # The first step of Adam is the sign of the gradient, but for its epsilon.
    for before, after, slope in zip(*map(jax.tree.leaves, (params, new, gradient)), strict=True):
        np.testing.assert_allclose(after - before, -1e-2 * slope / (np.abs(slope) + 1e-8), atol=1e-5)
    for _ in range(60):
        new, new_state, loss = step(new, new_state, x, groups, jnp.float32(1e-2))
    assert float(loss) < 0.1
    assert int(optax.tree.get(new_state, "count")) == 61


def test_the_features_are_constants_of_an_adversary_step(adversary):
    def moved(features):
        new, _, loss = adversary_step(*adversary, features, jnp.asarray(GROUPS), 1e-2)
        return loss + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(new))

    np.testing.assert_array_equal(jax.jit(jax.grad(moved))(FEATURES), 0)


def test_an_adversary_needs_two_groups():
    with pytest.raises(UserError, match="there must be at least 2, got 1"):
        adversary_init(jax.random.key(0), 4, 1)


def test_groups_of_a_class_are_made_even():
    """Class 0 has groups of weight 3 and 1, class 1 one group only; a filler stays one."""
    groups = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1, 0]]
    groups[-1] = 0
    labels, weights = np.array([0, 0, 0, 0, 1, 1, 0]), np.array([1, 1, 1, 1, 2, 1, 0], np.float32)
    even = even_groups(jax.tree.map(jnp.asarray, Batch(labels=labels, weights=weights, groups=groups)))
    np.testing.assert_allclose(even.weights, [2 / 3, 2 / 3, 2 / 3, 2, 2, 1, 0], rtol=1e-6)
