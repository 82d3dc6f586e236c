"""Fair distillation (Han et al., SustaiNLP 2022): soft-label distillation whose outer loss also looks at groups.

Learned vectors, labels and step sizes train a small network, as in `soft_label`. To the loss on real data come, each
with its weight, an adversary that must not tell the group from the hidden features, contrastive terms, and the
difference of the groups' losses. Balanced training is a property of the data (`pipeline.config.BalanceConfig`), and
composes with all of these as with every other method. Learners start afresh; the choice on dev goes by DTO.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.core import adjoints
from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import example_cross_entropy, weighted_mean
from jaxdistill.core.types import Batch, Key, Outputs, PyTree
from jaxdistill.evaluation.fairness import dto, gap
from jaxdistill.evaluation.scoring import Score
from jaxdistill.methods import soft_label
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.embedding_set import embedding_method
from jaxdistill.methods.meta_learning import Match
from jaxdistill.objectives.fairness import (
    adversary_init,
    adversary_loss,
    adversary_step,
    group_difference,
    supervised_contrastive,
)
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LabelKind, LabelStart
from jaxdistill.objectives.meta_model import RealLoss, meta_model


@dataclasses.dataclass(frozen=True)
class Fair(soft_label.SoftLabel):
    """Settings: those of `SoftLabel`, and the weights of the terms; all 0 is the vanilla run.

    Attributes:
      adversary: weight λ of the adversary's loss, subtracted.
      adversary_lr: of its Adam step before each outer step.
      adversary_units: of its two hidden layers.
      contrastive: weight of the supervised contrastive loss of classes, added, and of groups, subtracted.
      temperature: of both.
      group_difference: weight α of the differences of the groups' losses within each class.
      preset: what the settings are called in result and report.
    """

    length: int = 1
    label_kind: LabelKind = "soft"
    label_start: LabelStart = "zeros"
    initial_lr: float = 0.01
    adversary: float = 0.0
    adversary_lr: float = 1e-4
    adversary_units: int = 256
    contrastive: float = 0.0
    temperature: float = 0.01
    group_difference: float = 0.0
    preset: str = "clean"

    def __post_init__(self):
        super().__post_init__()
        for field in ("adversary", "contrastive", "group_difference"):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"{field} is {value}: accepted is a weight from 0")
        for field in ("adversary_lr", "temperature"):
            if not 0.0 < (value := getattr(self, field)) < float("inf"):
                raise UserError(f"{field} is {value}: accepted is a number above 0")
        if self.adversary_units < 1:
            raise UserError(f"adversary_units is {self.adversary_units}: accepted is 1 or more")


def clean(*, outer: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Fair:
    """Settings in the words of the paper; labels are probabilities, learners start afresh, 8 an outer step.

    Args:
      outer: changes to the outer loop.
      **settings: of `soft_label.clean` and of `Fair`.
    """
    return soft_label.clean(Fair, outer={"inits": 8} | dict(outer), **settings)


def reference(*, epoch: int, outer: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> Fair:
    """The published code: labels are any numbers (one of two classes), the learning rate falls an epoch early, the last
    iterate counts. That learners always start from the same weights and call a class from a logit of 0.5 on are options
    of the network. Its scripts for the vanilla and the balanced variant run the adversary too, since they read the flag
    "False" as true: see `released_vanilla`.

    Args:
      epoch: outer steps of one pass over the real data.
      outer: changes to the outer loop.
      **settings: of `soft_label.clean` and of `Fair`.
    """
    quirks = {"inits": 1, "selections": 1, "decay_ahead": epoch}
    changes: dict[str, Any] = {"label_kind": "unrestricted", "preset": "reference"} | settings
    return soft_label.clean(Fair, outer=quirks | dict(outer), **changes)


def released_vanilla(*, epoch: int, **settings: Any) -> Fair:
    """`reference` as the released script for the vanilla variant in fact runs it: with the adversary."""
    return reference(epoch=epoch, adversary=0.8, preset="released_vanilla", **settings)


def fair_loss(settings: Fair, classes: int) -> RealLoss:
    """Loss on real data: cross-entropy − λ CE(adversary) + contrastive and group-difference terms.

    The state is that of the adversary, (parameters, Adam state), or `()` without one. It takes its step on the features
    before it judges them. Its gradient in the features is that of a gradient-reversal layer. Metrics: the terms.
    """

    def loss(outputs: Outputs, batch: Batch, state: PyTree):
        assert batch.groups is not None and batch.labels is not None
        groups, weights = jnp.argmax(batch.groups, axis=-1), batch.weights
        losses = example_cross_entropy(outputs.logits, batch.labels)
        hidden = outputs.features if outputs.hidden is None else outputs.hidden
        total, metrics = weighted_mean(losses, weights), {}
        if settings.adversary:
            params, moments = state
            params, moments, _ = adversary_step(params, moments, hidden, groups, settings.adversary_lr, weights)
            state = (params, moments)
            judged = adversary_loss(jax.lax.stop_gradient(params), hidden, groups, weights)
            total -= settings.adversary * judged
            metrics["adversary_loss"] = judged
        if settings.contrastive:
            of_classes = supervised_contrastive(hidden, batch.labels, settings.temperature, weights)
            of_groups = supervised_contrastive(hidden, groups, settings.temperature, weights)
            total += settings.contrastive * (of_classes - of_groups)
            metrics |= {"contrastive_classes": of_classes, "contrastive_groups": of_groups}
        if settings.group_difference:
            sizes = {"num_classes": classes, "num_groups": batch.groups.shape[-1]}
            difference = group_difference(losses, batch.labels, groups, weights, **sizes)
            total += settings.group_difference * difference
            metrics["group_difference"] = difference
        return total, (state, metrics)

    return loss


def make_match(
    config: Fair, problem: Problem, spec: InnerSpec, *, key: Key | None = None, run: Run | None = None
) -> Match:
    """What the settings descend; `key` draws the adversary.

    Raises:
      UserError: the data have no groups.
    """
    groups = problem.data.task.group_names
    if not groups:
        raise UserError(
            f"fair distillation needs the group of each example, and {problem.data.task.name} has none: "
            "give task.group_column"
        )
    learner = problem.pretrained.learner
    state: PyTree = ()
    if config.adversary:
        ids = jnp.zeros((1, learner.min_length), jnp.int32)
        outputs = jax.eval_shape(learner.apply, problem.base(), Batch(token_ids=ids, mask=ids == 0))
        hidden = outputs.features if outputs.hidden is None else outputs.hidden
        state = adversary_init(
            jax.random.key(0) if key is None else key,
            hidden.shape[-1],
            len(groups),
            hidden=config.adversary_units,
        )
    loss, adjoint = fair_loss(config, spec.classes), adjoints.parse(config.outer.adjoint)
    objective = meta_model(learner, spec, adjoint, loss)
    compared = (objective, meta_model(learner, spec, adjoints.nested(), loss)) if adjoint.approximate else None
    return Match(objective, state, select_by="dto", select=_closeness, compared=compared)


def _closeness(score: Score) -> float:
    """1 − DTO: 1 for a learner that makes no mistake."""
    assert score.by_group is not None
    hits = float(score.confusion.trace() / score.confusion.sum())
    return 1.0 - dto(hits, gap(score.by_group))


METHOD = embedding_method("fair", Fair, match=make_match)
