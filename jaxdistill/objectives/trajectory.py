"""Trajectory matching: training on the distilled set should end where training on real data ended.

Source: Cazenavette et al. 2022 (MTT); in constant memory, approximately, Cui et al. 2023 (TESLA), by the adjoint
`tesla`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.core import tree
from jaxdistill.core.adjoints import MIXED, Adjoint
from jaxdistill.core.types import Key, Learner, Objective, PyTree, Synthetic, pytree
from jaxdistill.core.unroll import unroll
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule
from jaxdistill.objectives.meta_model import MetaModelConstants


@pytree
class Segment:
    """A stretch of one expert's training: what takes the place of a real batch here.

    Attributes:
      start: trainable parameters before it.
      target: and after it.
    """

    start: PyTree
    target: PyTree


def trajectory_matching(learner: Learner, spec: InnerSpec, adjoint: Adjoint = MIXED) -> Objective:
    """Objective: |θ_T − θ*|² / |θ_0 − θ*|², with θ_0 and θ* the ends of a `Segment`, θ_T after T steps from θ_0.

    Constants are `MetaModelConstants`, of which only frozen parameters and support are read; there is no state.
    Metrics: "expert_distance", |θ_0 − θ*|.
    """
    inner = make_inner(learner, spec)

    def objective(synthetic: Synthetic, state: tuple[()], constants: MetaModelConstants, real_batch: Segment, key: Key):
        window_key, order_key = jax.random.split(key)
        schedule = make_schedule(spec, synthetic, constants.support, constants.base.frozen, order_key)
        end = unroll(inner, real_batch.start, schedule, adjoint, key=window_key)
        missed = jax.tree.map(jnp.subtract, end, real_batch.target)
        moved = jax.tree.map(jnp.subtract, real_batch.start, real_batch.target)
        squared = tree.dot(moved, moved)
        return tree.dot(missed, missed) / squared, (state, {"expert_distance": jnp.sqrt(squared)})

    return objective
