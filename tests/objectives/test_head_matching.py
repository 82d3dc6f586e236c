"""The closed form of head gradients and of the derivative in the samples' losses, against differentiation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import derivative_along

from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Outputs
from jaxdistill.objectives.head_matching import HeadParts, head_parts, match_head

WIDTH, SAMPLES, TEMPERATURE = 5, 7, 0.7


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


def examples(classes, count, seed):
    """(head, features, labels) drawn at random; the head is one matrix whose last column is the bias."""
    keys = jax.random.split(jax.random.key(seed), 3)
    head = jax.random.normal(keys[0], (classes, WIDTH + 1))
    return head, jax.random.normal(keys[1], (count, WIDTH)), jax.random.randint(keys[2], (count,), 0, classes)


def losses_of(head, features, labels):
    logits = features @ head[:, :-1].T + head[None, :, -1]
    return example_cross_entropy(logits, labels)


def parts(head, features, labels) -> HeadParts:
    return head_parts(
        Outputs(logits=features @ head[:, :-1].T + head[None, :, -1], features=features), labels, bias=True
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_gradients_of_a_linear_head(classes):
    head, features, labels = examples(classes, SAMPLES, 0)
    weights = jax.random.uniform(jax.random.key(9), (SAMPLES,))
    jacobian = jax.jit(jax.jacrev(losses_of))(head, features, labels)
    found = parts(head, features, labels)
    assert found.gradient(weights).shape == (classes, WIDTH + 1)
    np.testing.assert_allclose(found.gradient(weights), jnp.tensordot(weights, jacobian, 1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.along(head), jnp.sum(jacobian * head[None], axis=(1, 2)), rtol=0, atol=1e-12)


def test_norms_of_examples_and_sums_of_clipped_ones():
    """|g|^2 = |errors|^2 |inputs|^2, and a clipped sum is one product of the factors: no gradient is built."""
    head, features, labels = examples(3, SAMPLES, 0)
    jacobian = jax.jit(jax.jacrev(losses_of))(head, features, labels)
    found = parts(head, features, labels)
    norms = jnp.sqrt(jnp.sum(found.errors**2, axis=1) * jnp.sum(found.inputs**2, axis=1))
    np.testing.assert_allclose(norms, jnp.sqrt(jnp.sum(jacobian**2, axis=(1, 2))), rtol=1e-12)
    factors = jnp.minimum(1.0, 1.2 / norms)
    assert 0 < int(jnp.sum(factors < 1.0)) < SAMPLES
    clipped = jnp.sum(jacobian * factors[:, None, None], axis=0)
    np.testing.assert_allclose(found.gradient(factors), clipped, rtol=0, atol=1e-12)


def flat_cosine(losses, jacobian, real):
    """The definition: softmax of the losses, one flat vector on either side."""
    whole = jnp.tensordot(jax.nn.softmax(-losses / TEMPERATURE), jacobian, 1).ravel()
    return whole @ real.ravel() / jnp.sqrt((whole @ whole) * (real.ravel() @ real.ravel()))


@pytest.mark.parametrize("classes", [2, 3])
def test_cotangent_is_the_derivative_in_the_losses(classes):
    head, features, labels = examples(classes, SAMPLES, 0)
    real = parts(*examples(classes, 20, 1)).gradient(jnp.full(20, 0.05))
    losses = jax.random.normal(jax.random.key(4), (SAMPLES,))
    jacobian = jax.jit(jax.jacrev(losses_of))(head, features, labels)
    found = jax.jit(match_head, static_argnums=3)(parts(head, features, labels), losses, real, TEMPERATURE)
    cosine, derivative = jax.jit(jax.value_and_grad(flat_cosine))(losses, jacobian, real)
    np.testing.assert_allclose(found.cosine, cosine, rtol=0, atol=1e-12)
    assert -1 <= float(found.cosine) <= 1 and abs(float(found.cosine)) > 0.01
    np.testing.assert_allclose(found.cotangent, -derivative, rtol=0, atol=1e-12)
    assert abs(float(found.cotangent.sum())) < 1e-14 and np.abs(found.cotangent).max() > 1e-3
    direction = jax.random.normal(jax.random.key(5), (SAMPLES,))
    slope = derivative_along(jax.jit(lambda x: flat_cosine(x, jacobian, real)), losses, direction, 1e-3)
    np.testing.assert_allclose(float(found.cotangent @ direction), -slope, rtol=1e-8)


def test_the_same_texts_match_themselves():
    some = parts(*examples(3, SAMPLES, 0))
    found = match_head(some, jnp.full(SAMPLES, 2.0), some.gradient(jnp.full(SAMPLES, 1 / SAMPLES)), 1.0)
    np.testing.assert_allclose(found.cosine, 1.0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.cotangent, 0.0, atol=1e-14)


@pytest.mark.parametrize("zero", ["real", "samples"])
def test_a_zero_gradient_teaches_nothing(zero):
    some = parts(*examples(2, SAMPLES, 0))
    real = some.gradient(jnp.ones(SAMPLES))
    if zero == "real":
        real = jnp.zeros_like(real)
    else:
        some = HeadParts(jnp.zeros_like(some.errors), some.inputs)
    found = match_head(some, jnp.zeros(SAMPLES), real, 1.0)
    assert float(found.cosine) == 0.0 and not np.any(found.cotangent)


def test_a_head_without_bias():
    """Nothing for the bias: the gradient is that of the matrix alone, and so is the cosine."""
    head, features, labels = examples(3, SAMPLES, 0)
    outputs = Outputs(logits=features @ head[:, :-1].T, features=features)
    found = head_parts(outputs, labels, bias=False)
    gradient = found.gradient(jnp.ones(SAMPLES))
    assert gradient.shape == (3, WIDTH + 1) and not np.any(gradient[:, -1])
    np.testing.assert_allclose(
        gradient[:, :-1], head_parts(outputs, labels, bias=True).gradient(jnp.ones(SAMPLES))[:, :-1]
    )
