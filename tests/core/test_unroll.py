"""Meta-gradients of unrolled loops: finite differences, agreement of the exact adjoints, the approximate ones."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import adjoints, tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.inner import Inner, Schedule, adam, sgd
from jaxdistill.core.unroll import unroll

WIDTHS = {"lower": (3, 4), "upper": (4, 2)}
GROUPS = {"lower": np.array(0), "upper": np.array(1)}
OPTIMIZERS = {"sgd": sgd(), "momentum": sgd(0.9), "adam": adam()}


def inner_loss(params, data, constants):
    hidden = jnp.tanh(data["x"] @ params["lower"])
    logits = hidden @ params["upper"] + constants[1]
    return jnp.mean(-jnp.sum(data["y"] * jax.nn.log_softmax(logits), axis=-1) * constants[0])


def problem(key, steps, optimizer="sgd", per_group=False, minibatches=2):
    """(inner, params, schedule, target) in float64."""
    keys = jax.random.split(key, 6)
    params = {n: jax.random.normal(k, s) for (n, s), k in zip(WIDTHS.items(), keys[:2], strict=True)}
    schedule = Schedule(
        lr=0.1 + 0.3 * jax.random.uniform(keys[2], (steps, 2) if per_group else (steps,)),
        index=(jnp.arange(steps) % minibatches)[:, None] * 5 + jnp.arange(5)[None],
        data={
            "x": jax.random.normal(keys[3], (minibatches * 5, 3)),
            "y": jax.random.normal(keys[4], (minibatches * 5, 2)),
        },
        fixed=0.5 + 0.1 * jnp.arange(minibatches * 5.0),
        frozen=jnp.array([0.3, -0.2])[None],
    )
    target = jax.tree.map(lambda p: jnp.cos(7 * p), params)
    return Inner(inner_loss, OPTIMIZERS[optimizer], GROUPS), params, schedule, target


def outer_loss(inner, params, schedule, target, adjoint, lr, data, key=None):
    schedule = dataclasses.replace(schedule, lr=lr, data=data)
    final = unroll(inner, params, schedule, adjoint, key=key)
    return tree.dot(jax.tree.map(lambda a, b: (a - b) ** 2, final, target), jax.tree.map(jnp.ones_like, target))


@functools.cache
def gradient_program(optimizer, adjoint):
    """One jitted function an optimiser and adjoint: tests that share shapes share its programs."""
    inner = Inner(inner_loss, optimizer, GROUPS)

    @jax.jit
    def gradient(params, schedule, target, key):
        def loss(params, lr, data):
            return outer_loss(inner, params, schedule, target, adjoint, lr, data, key)

        return jax.grad(loss, argnums=(0, 1, 2))(params, schedule.lr, schedule.data)

    return gradient


def meta_gradient(inner, params, schedule, target, adjoint, key=None):
    """Gradients in (params, lr, data)."""
    return gradient_program(inner.optimizer, adjoint)(params, schedule, target, key)


def flat(x):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(x)])


def finite_differences(inner, params, schedule, target, direction, step=1e-4):
    """Central differences of fourth order: the error is about step^4."""

    @jax.jit
    def loss(shift):
        moved = jax.tree.map(lambda a, d: a + shift * d, (params, schedule.lr, schedule.data), direction)
        return outer_loss(inner, moved[0], schedule, target, adjoints.FULL, moved[1], moved[2])

    return (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("per_group", [False, True])
def test_mixed_agrees_with_finite_differences(optimizer, steps, per_group):
    inner, params, schedule, target = problem(jax.random.key(0), steps, optimizer, per_group)
    gradient = meta_gradient(inner, params, schedule, target, adjoints.MIXED)
    for seed in range(3):
        keys = iter(jax.random.split(jax.random.key(seed), 8))
        direction = jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape), gradient)  # noqa: B023
        expected = finite_differences(inner, params, schedule, target, direction)
        np.testing.assert_allclose(tree.dot(gradient, direction), expected, rtol=2e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    "adjoint", [adjoints.REMAT, adjoints.MIXED, adjoints.nested(), adjoints.nested(3), adjoints.truncated(5)], ids=str
)
def test_exact_adjoints_agree(optimizer, steps, adjoint):
    """A window as long as the loop makes `truncated` exact in all but the initial parameters, which it cuts off."""
    inner, params, schedule, target = problem(jax.random.key(1), steps, optimizer, per_group=True)
    if adjoint.kind == "truncated":
        adjoint = adjoints.truncated(steps)
    plain = meta_gradient(inner, params, schedule, target, adjoints.FULL)
    other = meta_gradient(inner, params, schedule, target, adjoint, jax.random.key(0))
    if adjoint.kind == "truncated":
        assert not flat(other[0]).any()
        plain, other = plain[1:], other[1:]
    assert np.abs(flat(plain)).max() > 1e-3
    np.testing.assert_allclose(flat(other), flat(plain), rtol=0, atol=1e-12 * max(1, np.abs(flat(plain)).max()))


@pytest.mark.parametrize("kind", ["full", "remat", "mixed", "nested", "first_order", "tesla"])
def test_forward_value_does_not_depend_on_the_adjoint(kind):
    inner, params, schedule, _ = problem(jax.random.key(2), 4)
    expected = unroll(inner, params, schedule, adjoints.FULL)
    np.testing.assert_allclose(
        flat(unroll(inner, params, schedule, adjoints.Adjoint(kind))), flat(expected), rtol=1e-13
    )


@pytest.mark.parametrize("per_group", [False, True])
def test_tesla_equals_first_order_and_neither_is_exact(per_group):
    inner, params, schedule, target = problem(jax.random.key(3), 4, per_group=per_group)
    exact = flat(meta_gradient(inner, params, schedule, target, adjoints.MIXED)[1:])
    first_order = flat(meta_gradient(inner, params, schedule, target, adjoints.FIRST_ORDER)[1:])
    tesla = flat(meta_gradient(inner, params, schedule, target, adjoints.TESLA)[1:])
    np.testing.assert_allclose(tesla, first_order, rtol=1e-12, atol=1e-13)
    cosine = exact @ tesla / np.linalg.norm(exact) / np.linalg.norm(tesla)
    assert 0.2 < cosine < 0.999


def test_approximate_adjoints_are_exact_for_one_step():
    inner, params, schedule, target = problem(jax.random.key(4), 1)
    exact = flat(meta_gradient(inner, params, schedule, target, adjoints.MIXED)[1:])
    for adjoint in (adjoints.FIRST_ORDER, adjoints.TESLA):
        approximate = flat(meta_gradient(inner, params, schedule, target, adjoint)[1:])
        np.testing.assert_allclose(approximate, exact, rtol=1e-12, atol=1e-14)


def test_truncated_is_the_full_gradient_of_its_window():
    """The window that the key draws, run by hand from the same starting point, gives the same gradient."""
    steps, window = 6, 2
    inner, params, schedule, target = problem(jax.random.key(5), steps, minibatches=6)
    starts = set()
    for seed in range(8):
        key = jax.random.key(seed)
        _, lr_bar, data_bar = meta_gradient(inner, params, schedule, target, adjoints.truncated(window), key)
        touched = np.flatnonzero(lr_bar)
        start = int(touched[0])
        starts.add(start)
        assert list(touched) == [start, start + 1]

        def part(lo, hi, s=schedule):
            return Schedule(s.lr[lo:hi], s.index[lo:hi], s.data, s.fixed, s.frozen)

        before = unroll(inner, params, part(0, start)) if start else params
        cut = part(start, start + window)
        expected = meta_gradient(inner, before, cut, target, adjoints.FULL)
        np.testing.assert_allclose(lr_bar[start : start + window], expected[1], rtol=1e-11)
        np.testing.assert_allclose(flat(data_bar), flat(expected[2]), rtol=1e-11, atol=1e-14)
    assert len(starts) > 2


def test_step_sizes_by_group_equal_one_step_size_when_equal():
    inner, params, schedule, target = problem(jax.random.key(6), 3)
    grouped = Schedule(
        jnp.stack([schedule.lr] * 2, axis=1), schedule.index, schedule.data, schedule.fixed, schedule.frozen
    )
    one = meta_gradient(inner, params, schedule, target, adjoints.MIXED)
    two = meta_gradient(inner, params, grouped, target, adjoints.MIXED)
    np.testing.assert_allclose(np.sum(two[1], axis=1), one[1], rtol=1e-12)
    np.testing.assert_allclose(flat(two[2]), flat(one[2]), rtol=1e-12)


def noisy_loss(params, data, constants):
    """Features are dropped by the key of the step."""
    kept = jax.random.bernoulli(constants.key, 0.5, data["x"].shape)
    return inner_loss(params, data | {"x": jnp.where(kept, data["x"], 0.0)}, constants)


def test_adjoints_drop_what_the_forward_pass_dropped():
    inner, params, schedule, target = problem(jax.random.key(8), 5)
    inner = inner._replace(loss=noisy_loss)
    schedule = dataclasses.replace(schedule, keys=jax.random.split(jax.random.key(9), 5))

    def gradient(adjoint, schedule):
        def loss(params, lr, data):
            return outer_loss(inner, params, schedule, target, adjoints.parse(adjoint), lr, data)

        return flat(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, schedule.lr, schedule.data))

    full = gradient("full", schedule)
    for adjoint in ("mixed", "nested(2)"):
        np.testing.assert_allclose(gradient(adjoint, schedule), full, atol=1e-12)
    np.testing.assert_allclose(gradient("tesla", schedule), gradient("first_order", schedule), atol=1e-12)
    other = dataclasses.replace(schedule, keys=jax.random.split(jax.random.key(10), 5))
    assert np.abs(gradient("full", other) - full).max() > 1e-3


def test_vmapped_loops_equal_looped_ones():
    inner, params, schedule, target = problem(jax.random.key(7), 3)
    scales = jnp.array([1.0, 0.5, -1.0])

    def gradient(scale):
        return meta_gradient(inner, jax.tree.map(lambda p: scale * p, params), schedule, target, adjoints.MIXED)[1:]

    together = jax.vmap(gradient)(scales)
    for i, scale in enumerate(scales):
        np.testing.assert_allclose(flat(jax.tree.map(lambda x, i=i: x[i], together)), flat(gradient(scale)), rtol=1e-11)


@pytest.mark.parametrize(
    "text, expected",
    [("mixed", adjoints.MIXED), ("nested", adjoints.nested()), ("nested(4)", adjoints.nested(4))]
    + [("truncated(8)", adjoints.truncated(8)), ("tesla", adjoints.TESLA)],
)
def test_adjoints_by_name(text, expected):
    assert adjoints.parse(text) == expected


@pytest.mark.parametrize("text", ["mix", "truncated", "mixed(2)", "nested(-1)", "truncated(0)", "nested(2", ""])
def test_unknown_adjoints_are_named(text):
    with pytest.raises(UserError) as error:
        adjoints.parse(text)
    assert "\n" not in str(error.value)
    assert (text or "''") in str(error.value)


def test_window_longer_than_the_loop():
    inner, params, schedule, _ = problem(jax.random.key(8), 2)
    with pytest.raises(UserError, match="longer than the inner loop of 2 steps"):
        unroll(inner, params, schedule, adjoints.truncated(3), key=jax.random.key(0))


def test_tesla_refuses_stateful_optimizers():
    inner, params, schedule, _ = problem(jax.random.key(9), 2, "momentum")
    with pytest.raises(UserError, match="plain SGD"):
        unroll(inner, params, schedule, adjoints.TESLA)
