"""One update of what is learned, a distilled set or a model: gradient, optax, a guard against non-finite numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxdistill.core import tree
from jaxdistill.core.types import Key, Objective, PyTree, pytree

SeedAxis = Literal["map", "vmap"]


@pytree
class OuterState:
    """Everything that changes from one outer step to the next; what a checkpoint holds.

    Attributes:
      learned: a distilled set (`core.types.Synthetic`), the parameters of a model, or any other pytree of arrays.
      optimizer: optax state.
      objective: the objective's own state (see `Objective`).
      step: outer steps done.
      skipped: updates skipped so far because the loss or the meta-gradient was not finite.
      skipped_in_a_row: of these, how many were the last ones.
    """

    learned: PyTree
    optimizer: PyTree
    objective: PyTree
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def init_outer(learned: PyTree, optimizer: optax.GradientTransformation, objective_state: PyTree = ()) -> OuterState:
    """State before the first outer step."""
    # Three arrays, not one: the state is donated, and a buffer can be donated once.
    counts = [jnp.zeros((), jnp.int32) for _ in range(3)]
    return OuterState(learned, optimizer.init(learned), objective_state, *counts)


def default_seed_axis() -> SeedAxis:
    """`map` on CPU, where batching over seeds costs memory and gains nothing; `vmap` on accelerators."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def over_seeds(function: Callable, seeds: PyTree, axis: SeedAxis) -> PyTree:
    """`function` of each entry along the leading axis of `seeds` (keys, or stacked parameters), results stacked: one
    after another or all at once."""
    if jax.tree.leaves(seeds)[0].shape[0] == 1:
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], seeds)))
    return jax.vmap(function)(seeds) if axis == "vmap" else jax.lax.map(function, seeds)


def apply_optimizer(
    optimizer: optax.GradientTransformation, gradient: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """(new parameters, new optimiser state)."""
    # optax raises floats to integer powers, which strict promotion, used in tests, forbids.
    with jax.numpy_dtype_promotion("standard"):
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state


Metrics = dict[str, Array]
Update = Callable[[OuterState, PyTree, PyTree, Key], tuple[OuterState, Metrics]]


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    inits: int = 1,
    seed_axis: SeedAxis | None = None,
    micro_batches: int = 1,
) -> Update:
    """One outer step as a pure function, to be jitted by the caller with its first argument donated.

    The key of step k is `fold_in(key, k)`, so a resumed run draws what an unbroken one would have drawn.

    With several micro-batches, every leaf of the real batch has them along its leading axis, and they are gone through
    one after another, in the memory of one. Losses, gradients and metrics are summed, gradients in float32 at least,
    so the objective must say of a micro-batch what it *contributes* to the whole: with weights that sum to 1 over all
    of them, the result is that of the whole batch at once, up to rounding. Micro-batch i draws from `fold_in(key, i)`.

    Args:
      objective: loss to descend.
      optimizer: gradient transformation over what is learned, clipping and schedule included.
      inits: independent draws of the objective (fresh learners) averaged in each step.
      seed_axis: how the draws are run; by default by backend.
      micro_batches: leading axis of the real batch; 1 for a real batch without such an axis.

    Returns:
      `update(state, constants, real_batch, key) -> (state, metrics)`; metrics holds "loss", "gradient_norm" (before
      any clipping), "skipped" and the objective's own.
    """
    axis = seed_axis or default_seed_axis()

    def update(
        state: OuterState, constants: PyTree, real_batch: PyTree, key: Key
    ) -> tuple[OuterState, dict[str, Array]]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), inits)

        def evaluate(batch: PyTree, objective_state: PyTree, key: Key) -> tuple[tuple[PyTree, Metrics], PyTree]:
            """((gradient, metrics), objective's state) of a batch or micro-batch."""

            def loss_of(learned: PyTree):
                return objective(learned, objective_state, constants, batch, key)

            (loss, (went_on, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.learned)
            return (gradient, metrics | {"loss": loss}), went_on

        def draw(key: Key):
            if micro_batches == 1:
                return evaluate(real_batch, state.objective, key)

            def add(carry: tuple, numbered: tuple) -> tuple[tuple, None]:
                sums, objective_state = carry
                number, batch = numbered
                found, objective_state = evaluate(batch, objective_state, jax.random.fold_in(key, number))
                return (jax.tree.map(lambda x, y: x + y.astype(x.dtype), sums, found), objective_state), None

            first = jax.tree.map(lambda x: x[0], real_batch)
            shapes, _ = jax.eval_shape(evaluate, first, state.objective, key)
            wide = {jnp.dtype("float64"): jnp.float64}
            sums = jax.tree.map(lambda x: jnp.zeros(x.shape, wide.get(x.dtype, jnp.float32)), shapes)
            numbers = jnp.arange(micro_batches)
            (sums, objective_state), _ = jax.lax.scan(add, (sums, state.objective), (numbers, real_batch))
            return jax.tree.map(lambda x, like: x.astype(like.dtype), sums, shapes), objective_state

        (gradients, metrics), objective_states = over_seeds(draw, keys, axis)
        gradient, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), (gradients, metrics))
        objective_state = jax.tree.map(lambda x: x[-1], objective_states)

        finite = tree.all_finite(gradient) & jnp.isfinite(metrics["loss"])
        # Zeros in place of bad numbers, so that nothing non-finite can reach the discarded branch's arithmetic.
        safe = tree.select(finite, gradient, jax.tree.map(jnp.zeros_like, gradient))
        learned, optimizer_state = apply_optimizer(optimizer, safe, state.optimizer, state.learned)
        kept = tree.select(finite, (learned, optimizer_state), (state.learned, state.optimizer))
        # The objective goes on all the same: it may be its own state that was the matter.
        went_on = tree.select(tree.all_finite(objective_state), objective_state, state.objective)
        bad = 1 - finite.astype(jnp.int32)
        new = OuterState(*kept, went_on, state.step + 1, state.skipped + bad, (state.skipped_in_a_row + 1) * bad)
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "skipped": new.skipped}
        return new, metrics

    return update


def warmup_schedule(
    peak: float,
    updates: int,
    warmup: float,
    *,
    shape: Literal["linear", "cosine"] = "linear",
    first_is_zero: bool = False,
) -> optax.Schedule:
    """Linear warm-up over a share of the updates, then decay to 0.

    Args:
      peak: learning rate at the end of the warm-up.
      updates: number of updates K.
      warmup: share of them spent warming up; W = int(warmup K).
      shape: of the decay, in (k - W) / (K - W): a straight line, or half a cosine wave.
      first_is_zero: update k takes factor k/W during warm-up, as published code does (update 0 changes nothing);
        otherwise (k+1)/W.
    """
    steps = int(warmup * updates)

    def schedule(count):
        k = jnp.asarray(count, jnp.float32)
        rise = (k if first_is_zero else k + 1.0) / max(steps, 1)
        fall = (updates - k) / max(updates - steps, 1)
        if shape == "cosine":
            fall = 0.5 * (1.0 - jnp.cos(jnp.pi * jnp.clip(fall, 0.0, 1.0)))
        return peak * jnp.clip(jnp.where(k < steps, rise, fall), 0.0, 1.0)

    return schedule
