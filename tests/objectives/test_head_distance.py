"""Distances of head gradients in closed form against autodiff through the head; sketches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.objectives.head_distance import (
    DenseTarget,
    FactoredTarget,
    SketchedTarget,
    each_distance,
    head_distance,
)
from jaxdistill.objectives.head_matching import HeadParts
from jaxdistill.objectives.head_sketch import kronecker, label_rows, make_sketch

N, M, V, D = 4, 3, 7, 5


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def numbers(double):
    """Hidden states of texts and real texts, the head, labels; in float64."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))  # noqa: E731
    labels = jnp.asarray([2, 2, 5, 0]), jnp.asarray([2, 1, 6])
    return draw(N, D), draw(M, D), draw(V, D), draw(V), *labels


def parts_of(hidden, matrix, vector, labels, bias=True):
    logits = hidden @ matrix.T + (vector[None] if bias else 0.0)
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(labels, V, dtype=logits.dtype)
    return HeadParts(errors, jnp.concatenate([hidden, jnp.full((len(hidden), 1), float(bias), hidden.dtype)], axis=1))


def gradients(hidden, matrix, vector, labels):
    """Of the mean loss in matrix and bias, by autodiff."""

    def loss(matrix, vector):
        return jnp.mean(example_cross_entropy(hidden @ matrix.T + vector[None], labels))

    return jax.grad(loss, (0, 1))(matrix, vector)


def cosine(a, b):
    return jnp.sum(a * b) / jnp.sqrt(jnp.sum(a * a) * jnp.sum(b * b))


def by_autodiff(kind, own, real):
    if kind == "cos":
        return 1.0 - (cosine(own[0], real[0]) + cosine(own[1], real[1])) / 2
    differences = [a - b for a, b in zip(own, real, strict=True)]
    return sum(jnp.sum(x**2) for x in differences) + (
        0.01 * sum(jnp.sum(jnp.abs(x)) for x in differences) if kind == "tag" else 0.0
    )


@pytest.mark.parametrize(
    ("kind", "form"), [(k, f) for k in ("cos", "l2") for f in ("factors", "dense")] + [("tag", "dense")]
)
def test_distances_and_their_derivatives_are_those_of_autodiff(numbers, kind, form):
    hidden, real_hidden, matrix, vector, labels, real_labels = numbers
    real = gradients(real_hidden, matrix, vector, real_labels)
    weights = jnp.full(M, 1 / M)
    target = FactoredTarget(parts_of(real_hidden, matrix, vector, real_labels), weights)
    if form == "dense":
        target = DenseTarget(jnp.concatenate([real[0], real[1][:, None]], axis=1))

    def closed(hidden):
        return head_distance(target, parts_of(hidden, matrix, vector, labels), kind)

    def built(hidden):
        return by_autodiff(kind, gradients(hidden, matrix, vector, labels), real)

    found, expected = jax.value_and_grad(closed)(hidden), jax.value_and_grad(built)(hidden)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("form", ["factors", "dense", "sketch"])
@pytest.mark.parametrize("bias", [True, False])
def test_each_distance_is_that_of_one_text_alone(numbers, form, bias):
    hidden, real_hidden, matrix, vector, labels, real_labels = numbers
    parts = parts_of(hidden, matrix, vector, labels, bias)
    real = parts_of(real_hidden, matrix, vector, real_labels, bias)
    sketch = label_rows(jnp.asarray([2, 5]))
    target = {
        "factors": FactoredTarget(real, jnp.full(M, 1 / M)),
        "dense": DenseTarget(real.gradient(jnp.full(M, 1 / M))),
        "sketch": SketchedTarget(jnp.sum(sketch(real), axis=0)),
    }[form]
    found = each_distance(target, parts, bias=bias, sketch=sketch)
    for i, each in enumerate(found):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], parts)
        np.testing.assert_allclose(each, head_distance(target, one, bias=bias, sketch=sketch), rtol=1e-10)


def test_head_without_bias_counts_its_matrix_alone(numbers):
    hidden, real_hidden, matrix, vector, labels, real_labels = numbers
    target = FactoredTarget(parts_of(real_hidden, matrix, vector, real_labels, False), jnp.full(M, 1 / M))
    found = head_distance(target, parts_of(hidden, matrix, vector, labels, False), bias=False)
    no_bias = jnp.zeros(V)
    own = gradients(hidden, matrix, no_bias, labels)[0]
    np.testing.assert_allclose(
        found, 1.0 - cosine(own, gradients(real_hidden, matrix, no_bias, real_labels)[0]), rtol=1e-12
    )


@pytest.mark.parametrize("kind", ["label_rows", "kron", "label_rows+gauss"])
def test_sketches_are_linear_and_of_the_gradient(numbers, kind):
    """The sketch of a sum is the sum of sketches: it depends on the gradient alone."""
    hidden, _, matrix, vector, labels, _ = numbers
    parts = parts_of(hidden, matrix, vector, labels)
    sketch, size = make_sketch(kind, 12, jnp.asarray([2, 5]), V, D + 1, jax.random.key(0))
    each = sketch(parts)
    assert each.shape == (N, size) == (N, {"label_rows": 2 * (D + 1), "kron": 3 * 4, "label_rows+gauss": 12}[kind])
    # Any factors of the same gradient: here those of its singular values.
    whole = parts.gradient(jnp.ones(N))
    left, values, right = jnp.linalg.svd(whole, full_matrices=False)
    others = HeadParts((left * values[None]).T, right)
    np.testing.assert_allclose(jnp.sum(sketch(others), axis=0), jnp.sum(each, axis=0), rtol=1e-9, atol=1e-9)


def test_label_rows_are_rows_of_the_gradient(numbers):
    hidden, _, matrix, vector, labels, _ = numbers
    parts = parts_of(hidden, matrix, vector, labels)
    rows = label_rows(jnp.asarray([5, 2]))(parts).sum(axis=0).reshape(2, D + 1)
    np.testing.assert_allclose(rows, parts.gradient(jnp.ones(N))[jnp.asarray([5, 2])], rtol=1e-12)


def test_kronecker_keeps_inner_products_on_average(numbers):
    hidden, _, matrix, vector, labels, _ = numbers
    parts = parts_of(hidden, matrix, vector, labels)
    draws = []
    for seed in range(200):
        own = kronecker(jax.random.key(seed), 4, 4, V, D + 1)(parts)
        draws.append(own[0] @ own[2])
    draws = np.asarray(draws)
    exact = (parts.errors[0] @ parts.errors[2]) * (parts.inputs[0] @ parts.inputs[2])
    assert abs(draws.mean() - exact) < 4 * draws.std() / np.sqrt(len(draws))


def test_large_vocabularies_are_projected_in_blocks(monkeypatch):
    """Drawn anew in blocks and kept: the same projection."""
    from jaxdistill.objectives import head_sketch

    monkeypatch.setattr(head_sketch, "_BLOCK", 3)
    rng = np.random.default_rng(1)
    parts = HeadParts(jnp.asarray(rng.normal(size=(2, V))), jnp.ones((2, 3)))
    kept = kronecker(jax.random.key(3), 4, 2, V, 3)(parts)
    monkeypatch.setattr(head_sketch, "_KEPT", 0)
    np.testing.assert_allclose(kronecker(jax.random.key(3), 4, 2, V, 3)(parts), kept, rtol=1e-5)


def test_zero_gradients_have_a_distance_and_a_derivative(numbers):
    hidden, _, matrix, vector, labels, _ = numbers
    parts = jax.tree.map(jnp.zeros_like, parts_of(hidden, matrix, vector, labels))
    target = FactoredTarget(parts, jnp.full(N, 1 / N))
    value, slope = jax.value_and_grad(lambda x: head_distance(target, HeadParts(x, parts.inputs)))(parts.errors)
    assert value == 1.0 and np.all(np.isfinite(slope))


def test_what_cannot_be(numbers):
    hidden, _, matrix, vector, labels, _ = numbers
    parts = parts_of(hidden, matrix, vector, labels)
    sketched, factored = SketchedTarget(jnp.ones(12)), FactoredTarget(parts, jnp.ones(N))
    with pytest.raises(UserError, match="a noisy sum has a direction alone, give cos"):
        head_distance(sketched, parts, "l2", sketch=label_rows(jnp.asarray([2, 5])))
    with pytest.raises(UserError, match="needs a dense target"):
        head_distance(factored, parts, "tag")
    with pytest.raises(UserError, match="sketch size is 0"):
        make_sketch("kron", 0, jnp.asarray([2]), V, D + 1, jax.random.key(0))
