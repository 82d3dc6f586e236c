"""Meta-model matching: the loss on real data of a learner trained on the distilled set."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float

from jaxdistill.core import tree
from jaxdistill.core.adjoints import MIXED, Adjoint
from jaxdistill.core.losses import cross_entropy, weighted_mean
from jaxdistill.core.types import Batch, Learner, Objective, Outputs, PyTree, Synthetic, Variables, pytree
from jaxdistill.core.unroll import unroll
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule
from jaxdistill.objectives.private import NoisySums, as_params, example_gradients


@pytree
class MetaModelConstants:
    """What the objective reads and never changes.

    Attributes:
      base: the learner's variables before `Learner.refresh`.
      support: texts of a text-level set; an empty `Batch` when inputs are learned.
    """

    base: Variables
    support: Batch


@runtime_checkable
class RealLoss(Protocol):
    def __call__(
        self, outputs: Outputs, batch: Batch, state: PyTree
    ) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
        """What a trained learner is judged by on a real batch: loss, (new state, scalar metrics by name)."""
        ...


def real_cross_entropy(
    outputs: Outputs, batch: Batch, state: PyTree
) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
    """Weighted mean cross-entropy; leaves the state alone."""
    return cross_entropy(outputs.logits, batch.labels, batch.weights), (state, {})


def meta_model(
    learner: Learner, spec: InnerSpec, adjoint: Adjoint = MIXED, real_loss: RealLoss = real_cross_entropy
) -> Objective:
    """Objective: train a fresh learner on the distilled set, take its loss on real data.

    Source: Sucholutsky & Schonlau 2021; Maekawa et al. 2023, section 3. Constants are `MetaModelConstants`; the
    state is that of `real_loss`, `()` for cross-entropy. Metrics: "real_accuracy", a share, and those of `real_loss`.
    """
    inner = make_inner(learner, spec)

    def objective(synthetic: Synthetic, state: PyTree, constants: MetaModelConstants, real_batch: Batch, key):
        refresh_key, window_key, order_key = jax.random.split(key, 3)
        start = learner.refresh(constants.base, refresh_key)
        schedule = make_schedule(spec, synthetic, constants.support, start.frozen, order_key)
        trained = unroll(inner, start.trainable, schedule, adjoint, key=window_key)
        outputs = learner.apply(Variables(trained, start.frozen), real_batch)
        loss, (state, metrics) = real_loss(outputs, real_batch, state)
        hits = (learner.decision_scores(outputs.logits).argmax(-1) == real_batch.labels).astype(outputs.logits.dtype)
        return loss, (state, {"real_accuracy": weighted_mean(hits, real_batch.weights)} | metrics)

    return objective


def private_meta_model(
    learner: Learner, spec: InnerSpec, noisy: NoisySums, expected: float, adjoint: Adjoint = MIXED
) -> Objective:
    """`meta_model` whose real examples are read once, as a noisy sum of clipped gradients at the trained parameters.

    The meta-gradient is that sum, over the number of examples expected in it, pulled back through the training. The
    value is only what has this gradient, their inner product with the trained parameters: it tells how well nothing is
    learned. No metrics.

    Args:
      learner, spec, adjoint: see `meta_model`.
      noisy: of the real examples.
      expected: how many a sum has on average, a public number.
    """
    inner = make_inner(learner, spec)

    def objective(synthetic: Synthetic, state: tuple[()], constants: MetaModelConstants, real_batch: PyTree, key):
        refresh_key, window_key, order_key = jax.random.split(key, 3)
        start = learner.refresh(constants.base, refresh_key)
        schedule = make_schedule(spec, synthetic, constants.support, start.frozen, order_key)
        trained = unroll(inner, start.trainable, schedule, adjoint, key=window_key)
        there = jax.lax.stop_gradient(trained)
        total = noisy(example_gradients(learner, start.frozen, there), real_batch, by_class=False)
        gradient = jax.tree.map(lambda x: jax.lax.stop_gradient(x[0]), as_params(total / expected, there))
        return tree.dot(gradient, trained), (state, {})

    return objective
