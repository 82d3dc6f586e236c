"""Real texts that stand beside a method: made with default settings, trained on by the recipe of the run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxdistill.io.distilled import DistilledSet, load_distilled, save_distilled
from jaxdistill.io.plain import plain
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.scores import Outcome
from jaxdistill.pipeline.training import text_split


def baseline_outcomes(
    name: str,
    config: ExperimentConfig,
    problem: Problem,
    evaluator: Evaluator,
    folder: Workdir,
    stop: Callable[[], bool],
    numbers: Sequence[int],
) -> Iterator[Outcome]:
    """Outcomes of as many real texts under the fixed recipe, with soft labels where they have some, as they come.

    `random` draws new texts for each learner; the set of any other is made once and kept in the run folder.

    Args:
      name: in `methods.registry.BASELINES`.
      config: of the run.
      problem: data and learner.
      evaluator: of the run.
      folder: of the run.
      stop: asked while a set is made.
      numbers: of the learners.

    Raises:
      UserError: a class has too few texts, a learner of the baseline diverged, or the kept set is damaged.
      Stopped: `stop()` said so; the set is made anew the next time.
    """
    recipe = config.evaluation.recipe
    if name == "random":
        texts = functools.partial(_drawn, name, config, problem, stop)
        return evaluator.by_recipe(name, lambda i: text_split(texts(i)), recipe, numbers)
    distilled = baseline_sets(name, config, problem, folder, stop, 1)[0]
    texts = text_split(distilled)
    return evaluator.by_recipe(name, lambda i: texts, recipe, numbers, soft_labels=distilled.soft_labels)


def baseline_sets(
    name: str, config: ExperimentConfig, problem: Problem, folder: Workdir, stop: Callable[[], bool], number: int
) -> list[DistilledSet]:
    """The sets of a baseline: `number` subsets of `random`, those of its first learners, and one set of any other,
    kept in the run folder. Arguments and errors as for `baseline_outcomes`."""
    if name == "random":
        return random_sets(config, problem, stop, number)
    path = folder.baseline(name)
    if not path.exists():
        save_distilled(path, _drawn(name, config, problem, stop, 0))
    return [load_distilled(path, expect={"config": plain(_settings(name, config))})]


def random_sets(
    config: ExperimentConfig, problem: Problem, stop: Callable[[], bool], number: int
) -> list[DistilledSet]:
    """The random subsets of the first `number` learners. Arguments and errors as for `baseline_outcomes`."""
    return [_drawn("random", config, problem, stop, draw) for draw in range(number)]


def _settings(name: str, config: ExperimentConfig) -> Any:
    return dataclasses.replace(method_named(name).config(), per_class=config.settings.per_class)


def _drawn(name: str, config: ExperimentConfig, problem: Problem, stop: Callable[[], bool], draw: int) -> DistilledSet:
    run = Run(recipe=config.evaluation.recipe, full_lr=config.evaluation.full_lr, stop=stop, say=lambda line: None)
    # A teacher's labels are compared with the hard ones of the same texts: those of the first learner of `random`.
    source = "random" if name == "teacher_labels" else name
    key = named_key(config.seed, f"baseline/{source}/{draw}")
    return method_named(name).distill(_settings(name, config), problem, key=key, run=run)
