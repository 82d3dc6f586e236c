"""The outer loop's update: meta-gradient, clipping, optax, and a guard against non-finite numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxdistill.core import tree
from jaxdistill.core.types import Key, Objective, PyTree, Synthetic, pytree

SeedAxis = Literal["map", "vmap"]


@pytree
class OuterState:
    """Everything that changes from one outer step to the next; what a checkpoint holds.

    Attributes:
      synthetic: the distilled set.
      optimizer: optax state.
      objective: the objective's own state (see `Objective`).
      step: outer steps done.
      skipped: updates skipped so far because the loss or the meta-gradient was not finite.
      skipped_in_a_row: of these, how many were the last ones.
    """

    synthetic: Synthetic
    optimizer: PyTree
    objective: PyTree
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def init_outer(
    synthetic: Synthetic, optimizer: optax.GradientTransformation, objective_state: PyTree = ()
) -> OuterState:
    """State before the first outer step."""
    # Three arrays, not one: the state is donated, and a buffer can be donated once.
    counts = [jnp.zeros((), jnp.int32) for _ in range(3)]
    return OuterState(synthetic, optimizer.init(synthetic), objective_state, *counts)


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
) -> Update:
    """One outer step as a pure function, to be jitted by the caller with its first argument donated.

    The key of step k is `fold_in(key, k)`, so a resumed run draws what an unbroken one would have drawn.

    Args:
      objective: loss to descend.
      optimizer: gradient transformation over `Synthetic`, clipping and schedule included.
      inits: independent draws of the objective (fresh learners) averaged in each step.
      seed_axis: how the draws are run; by default by backend.

    Returns:
      `update(state, constants, real_batch, key) -> (state, metrics)`; metrics holds "loss", "gradient_norm" (before
      any clipping), "skipped" and the objective's own.
    """
    axis = seed_axis or default_seed_axis()

    def update(
        state: OuterState, constants: PyTree, real_batch: PyTree, key: Key
    ) -> tuple[OuterState, dict[str, Array]]:
        keys = jax.random.split(jax.random.fold_in(key, state.step), inits)

        def draw(key: Key):
            def loss_of(synthetic):
                return objective(synthetic, state.objective, constants, real_batch, key)

            (loss, (objective_state, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.synthetic)
            return gradient, objective_state, metrics | {"loss": loss}

        gradients, objective_states, metrics = over_seeds(draw, keys, axis)
        gradient, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), (gradients, metrics))
        objective_state = jax.tree.map(lambda x: x[-1], objective_states)

        finite = tree.all_finite(gradient) & jnp.isfinite(metrics["loss"])
        # Zeros in place of bad numbers, so that nothing non-finite can reach the discarded branch's arithmetic.
        safe = tree.select(finite, gradient, jax.tree.map(jnp.zeros_like, gradient))
        synthetic, optimizer_state = apply_optimizer(optimizer, safe, state.optimizer, state.synthetic)
        kept = tree.select(finite, (synthetic, optimizer_state), (state.synthetic, state.optimizer))
        # The objective goes on all the same: it may be its own state that was the matter.
        went_on = tree.select(tree.all_finite(objective_state), objective_state, state.objective)
        bad = 1 - finite.astype(jnp.int32)
        new = OuterState(*kept, went_on, state.step + 1, state.skipped + bad, (state.skipped_in_a_row + 1) * bad)
        metrics |= {"gradient_norm": optax.tree.norm(gradient), "skipped": new.skipped}
        return new, metrics

    return update


def linear_schedule(peak: float, updates: int, warmup: float, *, first_is_zero: bool = False) -> optax.Schedule:
    """Linear warm-up over a share of the updates, then linear decay to 0.

    Args:
      peak: learning rate at the end of the warm-up.
      updates: number of updates K.
      warmup: share of them spent warming up; W = int(warmup K).
      first_is_zero: update k takes factor k/W during warm-up, as the published code does (update 0 changes nothing);
        otherwise (k+1)/W.
    """
    steps = int(warmup * updates)

    def schedule(count):
        k = jnp.asarray(count, jnp.float32)
        rise = (k if first_is_zero else k + 1.0) / max(steps, 1)
        fall = (updates - k) / max(updates - steps, 1)
        return peak * jnp.clip(jnp.where(k < steps, rise, fall), 0.0, 1.0)

    return schedule
