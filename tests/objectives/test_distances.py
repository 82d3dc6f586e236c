"""Distances against numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.objectives.distances import BANDWIDTHS, KERNELS, TREE_DISTANCES, tree_distance, weighted_mmd

RNG = np.random.default_rng(0)
A = {"body": {"w": RNG.normal(size=(2, 3, 4)), "b": RNG.normal(size=(2, 4))}, "head": RNG.normal(size=5)}
B = jax.tree.map(lambda x: RNG.normal(size=x.shape), A)
# The body stacks two layers along its first axis.
GROUPS = {"body": {"w": np.array([0, 1]), "b": np.array([0, 1])}, "head": np.array(2)}


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


def cosine(x, y):
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_tree_distances_by_hand():
    a, b = (jax.tree.map(jnp.asarray, tree) for tree in (A, B))
    layers = [jax.tree.map(lambda x, i=i: x[i], (A["body"], B["body"])) for i in (0, 1)] + [(A["head"], B["head"])]
    expected = {
        "l2": np.sum((flat(A) - flat(B)) ** 2),
        "cosine": 1 - cosine(flat(A), flat(B)),
        "cosine_layer": np.mean([1 - cosine(flat(x), flat(y)) for x, y in layers]),
    }
    for kind in TREE_DISTANCES:
        np.testing.assert_allclose(tree_distance(a, b, kind, GROUPS), expected[kind], rtol=1e-12)
        np.testing.assert_allclose(tree_distance(a, a, kind, GROUPS), 0, atol=1e-12)


@pytest.mark.parametrize("kind", TREE_DISTANCES)
def test_a_zero_gradient_has_a_finite_distance_and_derivative(kind):
    zeros = jax.tree.map(jnp.zeros_like, A)
    b = jax.tree.map(jnp.asarray, B)
    value, gradient = jax.value_and_grad(lambda a: tree_distance(a, b, kind, GROUPS))(zeros)
    assert np.isfinite(value) and np.isfinite(flat(gradient)).all()
    if kind != "l2":
        assert float(value) == 1.0


def test_only_groups_that_are_there_count():
    a, b = ({"head": jnp.asarray(tree["head"])} for tree in (A, B))
    found = tree_distance(a, b, "cosine_layer", {"head": GROUPS["head"]})
    np.testing.assert_allclose(found, 1 - cosine(A["head"], B["head"]), rtol=1e-12)


def kernels(x, p):
    squares = ((x[:, None] - x[None]) ** 2).sum(-1)
    scale, size = p @ squares @ p, p @ (x**2).sum(-1)
    return {
        "mean": lambda a, b: a @ b.T,
        "gaussian": lambda a, b: sum(
            np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1) / scale / width) for width in BANDWIDTHS
        ),
        "polynomial": lambda a, b: (1 + a @ b.T / size) ** 3,
        "energy": lambda a, b: -np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)),
    }


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_by_hand(kernel):
    x, y, p, q = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3)), RNG.random(6), RNG.random(4)
    found = weighted_mmd(*map(jnp.asarray, (x, y, 5 * p, 2 * q)), kernel)
    p, q = p / p.sum(), q / q.sum()
    k = kernels(x, p)[kernel]
    expected = p @ k(x, x) @ p - 2 * p @ k(x, y) @ q + q @ k(y, y) @ q
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found > 0
    np.testing.assert_allclose(weighted_mmd(*map(jnp.asarray, (x, x, p, p)), kernel), 0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_that_are_all_zero_stay_finite(kernel):
    x = jnp.asarray(RNG.normal(size=(3, 2)))
    value, gradient = jax.value_and_grad(lambda y: weighted_mmd(x, y, jnp.ones(3), jnp.zeros(3), kernel))(x + 1)
    assert np.isfinite(value) and np.isfinite(gradient).all()
