"""The outer update: several inits, the non-finite guard, schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.core.outer import init_outer, linear_schedule, make_update
from jaxdistill.core.types import Batch, Synthetic

BATCH = Batch(labels=np.arange(3, dtype=np.int32))


def quadratic(synthetic, state, constants, real_batch, key):
    """Distance to a random target; the state counts its calls, and is as bad as the loss."""
    target = constants + jax.random.normal(key, synthetic.labels.shape)
    loss = jnp.sum((synthetic.labels - target) ** 2)
    return loss, (state + 1 + 0 * loss, {"size": jnp.sum(synthetic.labels)})


def broken_at_first(synthetic, state, constants, real_batch, key):
    """Not finite until its state says otherwise."""
    loss = jnp.where(state > 0, jnp.sum(synthetic.labels**2), jnp.nan)
    return loss, (state + 1, {})


def start(optimizer, value=1.0):
    return init_outer(Synthetic(labels=jnp.full((2, 2), value)), optimizer, jnp.zeros(()))


@pytest.mark.parametrize("axis", ["map", "vmap"])
def test_several_inits_average_gradients(axis):
    optimizer = optax.sgd(0.1)
    update = jax.jit(make_update(quadratic, optimizer, inits=3, seed_axis=axis))
    key = jax.random.key(7)
    state, metrics = update(start(optimizer), jnp.ones(()), BATCH, key)
    keys = jax.random.split(jax.random.fold_in(key, 0), 3)
    targets = np.stack([1.0 + jax.random.normal(k, (2, 2)) for k in keys])
    gradient = 2 * (1.0 - targets).mean(axis=0)
    np.testing.assert_allclose(state.synthetic.labels, 1.0 - 0.1 * gradient, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], ((1.0 - targets) ** 2).sum(axis=(1, 2)).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-6)
    assert int(state.step) == 1 and int(state.skipped) == 0


def test_a_step_depends_on_its_number_and_not_on_the_past():
    """What a resumed run needs: the key of step k is made of (key, k) alone."""
    optimizer = optax.sgd(0.1)
    update = jax.jit(make_update(quadratic, optimizer))
    first, _ = update(start(optimizer), jnp.ones(()), BATCH, jax.random.key(0))
    again, _ = update(start(optimizer), jnp.ones(()), BATCH, jax.random.key(0))
    second, _ = update(first, jnp.ones(()), BATCH, jax.random.key(0))
    np.testing.assert_array_equal(first.synthetic.labels, again.synthetic.labels)
    step_1 = np.asarray(first.synthetic.labels) - 1.0
    step_2 = np.asarray(second.synthetic.labels) - np.asarray(first.synthetic.labels)
    assert np.abs(step_2 - step_1 * 0.8).max() > 1e-2, "both steps drew the same target"


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_non_finite_updates_are_skipped_and_counted(bad):
    optimizer = optax.adam(0.1)
    update = jax.jit(make_update(quadratic, optimizer))
    state = start(optimizer)
    state, _ = update(state, jnp.ones(()), BATCH, jax.random.key(0))
    before = jax.device_get(state)
    for count in (1, 2):
        state, metrics = update(state, jnp.asarray(bad), BATCH, jax.random.key(0))
        assert int(state.skipped) == int(state.skipped_in_a_row) == int(metrics["skipped"]) == count
    jax.tree.map(np.testing.assert_array_equal, before.synthetic, state.synthetic)
    jax.tree.map(np.testing.assert_array_equal, before.optimizer, state.optimizer)
    assert float(state.objective) == float(before.objective)
    state, _ = update(state, jnp.ones(()), BATCH, jax.random.key(0))
    assert int(state.skipped) == 2 and int(state.skipped_in_a_row) == 0
    assert np.abs(np.asarray(state.synthetic.labels) - before.synthetic.labels).max() > 1e-3


def test_an_objective_may_get_out_of_its_own_bad_state():
    optimizer = optax.sgd(0.1)
    update = jax.jit(make_update(broken_at_first, optimizer))
    first, _ = update(start(optimizer), jnp.ones(()), BATCH, jax.random.key(0))
    second, _ = update(first, jnp.ones(()), BATCH, jax.random.key(0))
    np.testing.assert_array_equal(first.synthetic.labels, 1.0)
    np.testing.assert_allclose(second.synthetic.labels, 0.8)
    assert (int(second.skipped), float(second.objective)) == (1, 2.0)


def test_linear_schedule_values():
    clean = linear_schedule(0.5, 100, 0.1)
    reference = linear_schedule(0.5, 100, 0.1, first_is_zero=True)
    np.testing.assert_allclose([clean(k) for k in (0, 4, 9, 10, 55, 99)], np.array([0.1, 0.5, 1, 1, 0.5, 1 / 90]) / 2)
    np.testing.assert_allclose([reference(k) for k in (0, 5, 10, 55)], np.array([0, 0.5, 1, 0.5]) / 2)
    assert float(clean(100)) == 0.0
    np.testing.assert_allclose(linear_schedule(1.0, 10, 0.0)(0), 1.0)
