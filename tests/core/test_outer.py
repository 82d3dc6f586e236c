"""The outer update: several inits, the non-finite guard, schedules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.core.outer import init_outer, make_update, warmup_schedule
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
    np.testing.assert_allclose(state.learned.labels, 1.0 - 0.1 * gradient, rtol=1e-6)
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
    np.testing.assert_array_equal(first.learned.labels, again.learned.labels)
    step_1 = np.asarray(first.learned.labels) - 1.0
    step_2 = np.asarray(second.learned.labels) - np.asarray(first.learned.labels)
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
    jax.tree.map(np.testing.assert_array_equal, before.learned, state.learned)
    jax.tree.map(np.testing.assert_array_equal, before.optimizer, state.optimizer)
    assert float(state.objective) == float(before.objective)
    state, _ = update(state, jnp.ones(()), BATCH, jax.random.key(0))
    assert int(state.skipped) == 2 and int(state.skipped_in_a_row) == 0
    assert np.abs(np.asarray(state.learned.labels) - before.learned.labels).max() > 1e-3


def test_an_objective_may_get_out_of_its_own_bad_state():
    optimizer = optax.sgd(0.1)
    update = jax.jit(make_update(broken_at_first, optimizer))
    first, _ = update(start(optimizer), jnp.ones(()), BATCH, jax.random.key(0))
    second, _ = update(first, jnp.ones(()), BATCH, jax.random.key(0))
    np.testing.assert_array_equal(first.learned.labels, 1.0)
    np.testing.assert_allclose(second.learned.labels, 0.8)
    assert (int(second.skipped), float(second.objective)) == (1, 2.0)


def weighted_squares(learned, state, constants, real_batch, key):
    """Weighted sum of squared errors; what a micro-batch adds to that of the whole batch."""
    inputs, targets, weights = real_batch
    noise = 1.0 + constants * jax.random.normal(key, ())
    losses = weights * (inputs @ learned["kernel"] * noise - targets) ** 2
    return jnp.sum(losses), (state + 1, {"weight": jnp.sum(weights)})


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    rng = np.random.default_rng(0)
    inputs, targets = (rng.normal(size=shape).astype(np.float32) for shape in ((12, 5), (12,)))
    weights = rng.uniform(size=12).astype(np.float32)
    weights /= weights.sum()
    whole = (inputs, targets, weights)
    parts = jax.tree.map(lambda x: x.reshape(4, 3, *x.shape[1:]), whole)
    optimizer = optax.adam(0.1)
    begin = init_outer({"kernel": jnp.ones(5)}, optimizer, jnp.zeros(()))
    at_once = jax.jit(make_update(weighted_squares, optimizer))
    in_parts = jax.jit(make_update(weighted_squares, optimizer, micro_batches=4))
    key = jax.random.key(0)
    one, one_metrics = at_once(begin, jnp.zeros(()), whole, key)
    other, other_metrics = in_parts(begin, jnp.zeros(()), parts, key)
    gradient = 2 * inputs.T @ (weights * (inputs.sum(axis=1) - targets))
    for metrics in (one_metrics, other_metrics):
        np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], np.sum(weights * (inputs.sum(axis=1) - targets) ** 2), rtol=1e-5)
        np.testing.assert_allclose(metrics["weight"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(other.optimizer[0].mu["kernel"], 0.1 * gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.learned["kernel"], one.learned["kernel"], rtol=1e-5)
    assert (float(one.objective), float(other.objective)) == (1.0, 4.0)
    # Each micro-batch draws anew: four draws differ from one draw.
    noisy = [float(f(begin, jnp.ones(()), batch, key)[1]["loss"]) for f, batch in ((at_once, whole), (in_parts, parts))]
    assert abs(noisy[0] - noisy[1]) > 1e-3


def test_micro_batches_of_low_precision_are_summed_in_float32():
    """In bfloat16 256 + 1 is 256: the sum of small gradients would be lost beside a large one."""

    def linear(learned, state, constants, real_batch, key):
        return jnp.sum(learned * real_batch), (state, {})

    update = jax.jit(make_update(linear, optax.sgd(1.0), micro_batches=9))
    batch = jnp.asarray([[256.0]] + [[1.0]] * 8, jnp.bfloat16)
    state, _ = update(init_outer(jnp.zeros(1, jnp.bfloat16), optax.sgd(1.0)), (), batch, jax.random.key(0))
    assert state.learned.dtype == jnp.bfloat16 and float(state.learned[0]) == -264.0


def test_warmup_schedule_values():
    clean = warmup_schedule(0.5, 100, 0.1)
    reference = warmup_schedule(0.5, 100, 0.1, first_is_zero=True)
    np.testing.assert_allclose([clean(k) for k in (0, 4, 9, 10, 55, 99)], np.array([0.1, 0.5, 1, 1, 0.5, 1 / 90]) / 2)
    np.testing.assert_allclose([reference(k) for k in (0, 5, 10, 55)], np.array([0, 0.5, 1, 0.5]) / 2)
    assert float(clean(100)) == 0.0
    np.testing.assert_allclose(warmup_schedule(1.0, 10, 0.0)(0), 1.0)
    cosine = warmup_schedule(2.0, 100, 0.1, shape="cosine", first_is_zero=True)
    factors = [0.0, 0.5, 1.0, 0.5, 0.5 * (1 + np.cos(np.pi * 89 / 90)), 0.0]
    np.testing.assert_allclose([cosine(k) / 2 for k in (0, 5, 10, 55, 99, 100)], factors, atol=1e-6)
