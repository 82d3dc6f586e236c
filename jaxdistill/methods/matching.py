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
from jaxdistill.core.types import Batch, Key, Objective, PyTree, Synthetic, Variables
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.embedding_set import EmbeddingSet, embedding_method
from jaxdistill.methods.experts import Experts, Library, PrivateSteps, train_experts
from jaxdistill.methods.meta_learning import Match
from jaxdistill.methods.private_matching import Private, Use, make_private
from jaxdistill.objectives.combine import restricted, weighted_sum
from jaxdistill.objectives.distribution import DistributionMatching, distribution_matching, feature_size
from jaxdistill.objectives.fairness import even_groups
from jaxdistill.objectives.gradient import GradientMatching, gradient_matching, initial_state, matched_size
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.meta_model import meta_model, private_meta_model
from jaxdistill.objectives.trajectory import Segment, trajectory_matching
from jaxdistill.privacy.training import TrainingPrivacy

FAMILIES = ("meta_model", "gradient", "trajectory", "distribution")
STEP_SIZES = "step_sizes"
EXPERTS = "experts"


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
      privacy: of the training texts. Dev texts, on which the set is chosen, are read as they are.
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
    privacy: TrainingPrivacy = TrainingPrivacy()

    def __post_init__(self):
        super().__post_init__()
        weights = {family: getattr(self, family) for family in FAMILIES}
        for family, weight in weights.items():
            if not 0.0 <= weight < float("inf"):
                raise UserError(f"{family} is {weight}: accepted is a weight from 0")
        if not any(weights.values()):
            raise UserError(f"nothing is matched: give one of {', '.join(FAMILIES)} a weight above 0")
        if self.privacy.private:
            _check_private(self)

    @property
    def families(self) -> tuple[str, ...]:
        """Those at work."""
        return tuple(family for family in FAMILIES if getattr(self, family))


def _check_private(config: Matching) -> None:
    """What reads training texts by other ways than noisy sums."""
    refused = {
        "initial_inputs texts": (config.initial_inputs == "texts", "normal"),
        "groupwise": (config.groupwise, "False"),
        "made_for": (bool(config.made_for), "all classes"),
        f"outer.inits {config.outer.inits}": (config.outer.inits > 1, "1, for each is a sum of its own"),
        "gradients.advance real": (bool(config.gradient) and config.gradients.advance == "real", "synthetic or none"),
        f"distributions.kernel {config.distributions.kernel}": (
            bool(config.distribution) and config.distributions.kernel != "mean",
            "mean",
        ),
    }
    for setting, (there, accepted) in refused.items():
        if there:
            raise UserError(f"privacy: {setting} reads training texts as they are; accepted is {accepted}")


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
    private = None
    if config.privacy.private:
        # Without a run nothing is released: the size of the work alone is asked for.
        private = make_private(config.privacy, problem, _uses(config, problem), run=run or Run(say=lambda line: None))
    library = None
    if config.trajectory and run is not None:
        assert key is not None
        library = train_experts(
            config.experts,
            problem,
            key=key,
            run=run,
            groupwise=config.groupwise,
            private=private
            and PrivateSteps(
                private.sums, private.batches[EXPERTS], _expected(config, problem), _private_epoch(config)
            ),
        )
    parts = _parts(config, problem, spec, adjoint, private)
    compared = None
    if adjoint.approximate and private is None:
        exact = _parts(config, problem, spec, adjoints.nested())
        unrolled = [name for name in parts if name in ("meta_model", "trajectory", STEP_SIZES)]
        if unrolled:
            ours, theirs = (weighted_sum({name: some[name] for name in unrolled}) for some in (parts, exact))
            compared = ours, theirs
    states: dict[str, Any] = dict.fromkeys(parts, ())
    if config.gradient:
        states["gradient"] = initial_state(config.gradients, base)

    def batch(step: int, real) -> dict[str, Any]:
        shown = real() if private is None and set(parts) != {"trajectory"} else None
        segment = _segment(step, library, base) if config.trajectory else None
        return {
            name: segment if name == "trajectory" else shown if private is None else private.batches[name](step)
            for name in parts
        }

    return Match(
        weighted_sum(parts),
        states,
        lambda constants: dict.fromkeys(parts, constants),
        batch,
        compared=compared,
        privacy=None if private is None else private.facts,
    )


def _names(config: Matching) -> tuple[str, ...]:
    """Of the objectives at work."""
    own = () if config.meta_model or config.trajectory or not config.learn_step_sizes else (STEP_SIZES,)
    return (*config.families, *own)


def _uses(config: Matching, problem: Problem) -> dict[str, Use]:
    """What a private run has to release."""
    learner, base = problem.pretrained.learner, problem.base()
    everything = sum(x.size for x in jax.tree.leaves(base.trainable))
    sizes = {
        "meta_model": everything,
        STEP_SIZES: everything,
        "gradient": matched_size(learner, config.gradients, base.trainable),
        "distribution": 1 + feature_size(learner, config.distributions, base) if config.distribution else 0,
    }
    uses = {name: Use(config.outer.updates, sizes[name]) for name in _names(config) if name != "trajectory"}
    if config.trajectory:
        experts = config.experts
        uses[EXPERTS] = Use(experts.count * experts.kept[-1] * _private_epoch(config), everything)
    return uses


def _private_epoch(config: Matching) -> int:
    """Updates of an expert's epoch, a public number."""
    return config.experts.epoch_steps or round(1.0 / config.privacy.rate)


def _expected(config: Matching, problem: Problem) -> float:
    """Training texts in a sample on average, by the public estimate."""
    return config.privacy.rate * config.privacy.records * problem.classes


def _parts(
    config: Matching,
    problem: Problem,
    spec: InnerSpec,
    adjoint: adjoints.Adjoint,
    private: Private | None = None,
) -> dict[str, tuple[float, Objective]]:
    """The objectives at work with their weights, by name."""
    learner = problem.pretrained.learner
    noisy = None if private is None else private.sums

    def meta() -> Objective:
        if noisy is None:
            return meta_model(learner, spec, adjoint)
        return private_meta_model(learner, spec, noisy, _expected(config, problem), adjoint)

    made = {
        "meta_model": meta,
        "gradient": lambda: gradient_matching(learner, spec, config.gradients, noisy),
        "trajectory": lambda: trajectory_matching(learner, spec, adjoint),
        "distribution": lambda: distribution_matching(
            learner, spec, config.distributions, noisy, config.privacy.feature_bound
        ),
        STEP_SIZES: lambda: restricted(meta(), "raw_lr"),
    }
    parts = {name: (getattr(config, name) if name in FAMILIES else 1.0, made[name]()) for name in _names(config)}
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
