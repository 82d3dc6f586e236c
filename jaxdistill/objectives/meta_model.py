"""Meta-model matching: the loss on real data of a learner trained on the distilled set."""

from __future__ import annotations

import jax

from jaxdistill.core.adjoints import MIXED, Adjoint
from jaxdistill.core.losses import cross_entropy, weighted_mean
from jaxdistill.core.types import Batch, Learner, Objective, Synthetic, Variables, pytree
from jaxdistill.core.unroll import unroll
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule


@pytree
class MetaModelConstants:
    """What the objective reads and never changes.

    Attributes:
      base: the learner's variables before `Learner.refresh`.
      support: texts of a text-level set; an empty `Batch` when inputs are learned.
    """

    base: Variables
    support: Batch


def meta_model(learner: Learner, spec: InnerSpec, adjoint: Adjoint = MIXED) -> Objective:
    """Objective: train a fresh learner on the distilled set, take its cross-entropy on real data.

    Source: Sucholutsky & Schonlau 2021; Maekawa et al. 2023, section 3. Constants are `MetaModelConstants`; the
    objective has no state. Metrics: "real_accuracy", a share.
    """
    inner = make_inner(learner, spec)

    def objective(synthetic: Synthetic, state, constants: MetaModelConstants, real_batch: Batch, key):
        refresh_key, window_key, order_key = jax.random.split(key, 3)
        start = learner.refresh(constants.base, refresh_key)
        schedule = make_schedule(spec, synthetic, constants.support, start.frozen, order_key)
        trained = unroll(inner, start.trainable, schedule, adjoint, key=window_key)
        logits = learner.apply(Variables(trained, start.frozen), real_batch).logits
        loss = cross_entropy(logits, real_batch.labels, real_batch.weights)
        hits = (logits.argmax(-1) == real_batch.labels).astype(logits.dtype)
        metrics = {"real_accuracy": weighted_mean(hits, real_batch.weights)}
        return loss, (state, metrics)

    return objective
