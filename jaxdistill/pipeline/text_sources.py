"""Sets of texts that models of several kinds train on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdistill.data.splits import Split
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods.base import Problem
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline.baselines import baseline_sets, random_sets
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig
from jaxdistill.pipeline.training import text_split


class LabelledTexts(NamedTuple):
    """What a model trains on.

    Attributes:
      split: texts and classes.
      soft_labels: targets of the texts in place of their classes, or `None`.
    """

    split: Split
    soft_labels: Float[np.ndarray, "n c"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Sets of texts under one name.

    Attributes:
      name: in result and score files.
      draws: gives the sets, see `sets`; asked only where a score is missing. Training i takes set i modulo `number`.
      number: of the sets.
      seeds: trainings of a model that is seeded.
      everything: whether it is the whole training split, on which learners train by another recipe.
    """

    name: str
    draws: Callable[[], list[LabelledTexts]]
    number: int
    seeds: int
    everything: bool = False

    @functools.cached_property
    def sets(self) -> list[LabelledTexts]:
        """The sets, made once for all models."""
        return self.draws()

    def trainings(self, seeded: bool) -> int:
        """Trainings of a model: one a set where nothing but the set differs."""
        return max(self.number, self.seeds) if seeded else self.number


def set_source(name: str, distilled: DistilledSet, evaluation: EvaluationConfig) -> Source:
    """One distilled set, with its soft labels where it has them."""
    return Source(
        name, lambda: [LabelledTexts(text_split(distilled), distilled.soft_labels)], 1, evaluation.target_seeds
    )


def run_sources(
    config: ExperimentConfig,
    problem: Problem,
    sets: Sequence[DistilledSet],
    folder: Workdir,
    stop: Callable[[], bool],
) -> tuple[list[Source], list[Source]]:
    """What the targets of a run train on.

    Args:
      config, problem: of the run.
      sets: of the method.
      folder: of the run, where baselines are kept.
      stop: asked while a baseline is made.

    Returns:
      the sets of the method; and the baselines, each the very texts that learners train on: several random subsets for
      `random`, one set for any other coreset, and all training texts ("full") unless `full_epochs` is 0.
    """
    evaluation = config.evaluation
    own = [set_source(f"{config.method}/{i}", distilled, evaluation) for i, distilled in enumerate(sets)]
    others = []
    for name in evaluation.baselines:
        if name != config.method:
            number = evaluation.target_seeds if name == "random" else 1
            draws = functools.partial(_baseline_draws, name, config, problem, folder, stop, number)
            others.append(Source(name, draws, number, evaluation.target_seeds))
    if evaluation.full_epochs:
        others.append(Source("full", lambda: [LabelledTexts(problem.data.train)], 1, evaluation.full_students, True))
    return own, others


def random_source(config: ExperimentConfig, problem: Problem, distilled: DistilledSet) -> Source:
    """Random subsets that are as large as a distilled set: those of the baseline `random` of a run with as many texts a
    class. Of a set with unlike numbers, the subsets have its largest number of each class.

    Args:
      config, problem: see `run_sources`.
      distilled: the set.
    """
    per_class = int(np.bincount(distilled.labels, minlength=problem.classes).max())
    settings = method_named("random").config(per_class=per_class)
    config, number = dataclasses.replace(config, method="random", settings=settings), config.evaluation.target_seeds

    def draws() -> list[LabelledTexts]:
        return [LabelledTexts(text_split(drawn)) for drawn in random_sets(config, problem, lambda: False, number)]

    return Source("random", draws, number, number)


def _baseline_draws(
    name: str, config: ExperimentConfig, problem: Problem, folder: Workdir, stop: Callable[[], bool], number: int
) -> list[LabelledTexts]:
    sets = baseline_sets(name, config, problem, folder, stop, number)
    return [LabelledTexts(text_split(distilled), distilled.soft_labels) for distilled in sets]
