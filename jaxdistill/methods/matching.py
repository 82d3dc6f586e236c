"""The four families of matching as methods, each alone or in a weighted sum, on learned input embeddings.

The four methods differ in nothing but their default weights: give one a second weight, and it descends the sum.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.core import adjoints
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Learner, Objective, PyTree, Synthetic, Variables
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.embedding_set import EmbeddingSet, embedding_method
from jaxdistill.methods.experts import Experts, Library, train_experts
from jaxdistill.methods.meta_learning import Match
from jaxdistill.objectives.combine import restricted, weighted_sum
from jaxdistill.objectives.distribution import DistributionMatching, distribution_matching
from jaxdistill.objectives.fairness import even_groups
from jaxdistill.objectives.gradient import GradientMatching, gradient_matching, initial_state
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.meta_model import meta_model
from jaxdistill.objectives.trajectory import Segment, trajectory_matching

FAMILIES = ("meta_model", "gradient", "trajectory", "distribution")
STEP_SIZES = "step_sizes"


@dataclasses.dataclass(frozen=True)
class Matching(EmbeddingSet):
    """Settings.

    Attributes:
      meta_model, gradient, trajectory, distribution: weight of each family; 0 leaves it out.
      learn_step_sizes: where no family at work teaches step sizes (gradient and distribution matching do not), learn
        them, and them alone, by the meta-model objective beside it.
      groupwise: of data with protected groups: those of a class weigh alike in what is matched, see
        `objectives.fairness.even_groups`.
      gradients, distributions, experts: settings of a family.
    """

    meta_model: float = 0.0
    gradient: float = 0.0
    trajectory: float = 0.0
    distribution: float = 0.0
    learn_step_sizes: bool = True
    groupwise: bool = False
    gradients: GradientMatching = GradientMatching()
    distributions: DistributionMatching = DistributionMatching()
    experts: Experts = Experts()

    def __post_init__(self):
        super().__post_init__()
        weights = {family: getattr(self, family) for family in FAMILIES}
        for family, weight in weights.items():
            if not 0.0 <= weight < float("inf"):
                raise UserError(f"{family} is {weight}: accepted is a weight from 0")
        if not any(weights.values()):
            raise UserError(f"nothing is matched: give one of {', '.join(FAMILIES)} a weight above 0")

    @property
    def families(self) -> tuple[str, ...]:
        """Those at work."""
        return tuple(family for family in FAMILIES if getattr(self, family))


@dataclasses.dataclass(frozen=True)
class MetaModelMatching(Matching):
    """`Matching` of the loss on real data of a learner trained on the set (Sucholutsky & Schonlau 2021)."""

    meta_model: float = 1.0


@dataclasses.dataclass(frozen=True)
class GradientMatchingSet(Matching):
    """`Matching` of gradients (Zhao, Mopuri & Bilen 2021)."""

    gradient: float = 1.0


@dataclasses.dataclass(frozen=True)
class TrajectoryMatching(Matching):
    """`Matching` of where training leads (Cazenavette et al. 2022)."""

    trajectory: float = 1.0
    steps: int = 8


@dataclasses.dataclass(frozen=True)
class DistributionMatchingSet(Matching):
    """`Matching` of features (Zhao & Bilen 2023)."""

    distribution: float = 1.0


def make_match(
    config: Matching, problem: Problem, spec: InnerSpec, *, key: Key | None = None, run: Run | None = None
) -> Match:
    """What the settings descend.

    Args:
      config: settings.
      problem: data and learner.
      spec: how learners train on the set.
      key, run: for the training of experts, where trajectories are matched. Without `run` none are trained, and a
        segment of the right shape stands for theirs: enough to count the work of a step.
    """
    base, adjoint = problem.base(), adjoints.parse(config.outer.adjoint)
    if config.groupwise and not problem.data.task.group_names:
        lacking = f"groupwise matching needs groups, and {problem.data.task.name} has none"
        raise UserError(f"{lacking}: give task.group_column")
    library = None
    if config.trajectory and run is not None:
        assert key is not None
        library = train_experts(config.experts, problem, key=key, run=run, groupwise=config.groupwise)
    parts = _parts(config, problem.pretrained.learner, spec, adjoint)
    compared = None
    if adjoint.approximate:
        exact = _parts(config, problem.pretrained.learner, spec, adjoints.nested())
        unrolled = [name for name in parts if name in ("meta_model", "trajectory", STEP_SIZES)]
        if unrolled:
            ours, theirs = (weighted_sum({name: some[name] for name in unrolled}) for some in (parts, exact))
            compared = ours, theirs
    states: dict[str, Any] = dict.fromkeys(parts, ())
    if config.gradient:
        states["gradient"] = initial_state(config.gradients, base)

    def batch(step: int, real) -> dict[str, Any]:
        shown = real() if set(parts) != {"trajectory"} else None
        segment = _segment(step, library, base) if config.trajectory else None
        return {name: segment if name == "trajectory" else shown for name in parts}

    return Match(
        weighted_sum(parts),
        states,
        lambda constants: dict.fromkeys(parts, constants),
        batch,
        compared=compared,
    )


def _parts(
    config: Matching, learner: Learner, spec: InnerSpec, adjoint: adjoints.Adjoint
) -> dict[str, tuple[float, Objective]]:
    """The objectives at work with their weights, by name."""
    made = {
        "meta_model": lambda: meta_model(learner, spec, adjoint),
        "gradient": lambda: gradient_matching(learner, spec, config.gradients),
        "trajectory": lambda: trajectory_matching(learner, spec, adjoint),
        "distribution": lambda: distribution_matching(learner, spec, config.distributions),
    }
    parts = {family: (getattr(config, family), made[family]()) for family in config.families}
    if config.learn_step_sizes and not (config.meta_model or config.trajectory):
        parts[STEP_SIZES] = (1.0, restricted(meta_model(learner, spec, adjoint), "raw_lr"))
    if not config.groupwise:
        return parts
    # The experts of trajectory matching have seen even groups already.
    return {name: (w, part if name == "trajectory" else _with_even_groups(part)) for name, (w, part) in parts.items()}


def _with_even_groups(part: Objective) -> Objective:
    def objective(synthetic: Synthetic, state: PyTree, constants: PyTree, real_batch: Batch, key: Key):
        return part(synthetic, state, constants, even_groups(real_batch), key)

    return objective


def _segment(step: int, library: Library | None, base: Variables) -> Segment:
    if library is not None:
        return library.segment(step)
    return Segment(base.trainable, jax.tree.map(lambda x: x + jnp.ones_like(x), base.trainable))


METHODS = {
    name: embedding_method(name, settings, match=make_match)
    for name, settings in {
        "meta_model_matching": MetaModelMatching,
        "gradient_matching": GradientMatchingSet,
        "trajectory_matching": TrajectoryMatching,
        "distribution_matching": DistributionMatchingSet,
    }.items()
}
