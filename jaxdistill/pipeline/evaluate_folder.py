"""Score a distilled-set folder, ours or somebody else's."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.statistics import summarise
from jaxdistill.io import atomic
from jaxdistill.io.distilled import DistilledSet, load_distilled
from jaxdistill.io.plain import dumps
from jaxdistill.methods.registry import METHODS, method_named
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.evaluate import Evaluator, text_split
from jaxdistill.pipeline.overrides import from_plain
from jaxdistill.pipeline.prepare import load_learner, prepare


def evaluate_folder(
    folder: str | os.PathLike,
    config: ExperimentConfig,
    *,
    output: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train fresh learners on a distilled set and score them on the test split of the configured task.

    A set with learned step sizes is trained on by them; a set of plain texts by `config.evaluation.recipe`.

    Args:
      folder: of the set.
      config: task, learner and evaluation are used; the method is read from the set.
      output: JSON file for the scores.
      say: prints one line.

    Raises:
      UserError: the folder is no distilled set, or does not fit task or learner.
    """
    distilled = load_distilled(folder)
    problem = prepare(config.task, config.learner)
    if distilled.label_names != problem.data.task.label_names:
        raise UserError(
            f"distilled set {folder} has the classes {', '.join(distilled.label_names)}, task "
            f"{config.task.name!r} has {', '.join(problem.data.task.label_names)}: they must be the same"
        )
    evaluation = config.evaluation
    dropping = functools.cache(lambda: load_learner(config.learner, problem.classes, dropout=None))
    evaluator = Evaluator(problem, dropping, jax.random.fold_in(jax.random.key(config.seed), 1))
    spec = spec_of(distilled)
    if spec is not None:
        scores = evaluator.by_schedule(distilled, spec, evaluation.test_students)
    else:
        texts = text_split(distilled)
        scores = evaluator.by_recipe("distilled set", lambda i: texts, evaluation.recipe, evaluation.test_students)
    result = summarise(scores, ddof=protocol_named(evaluation.protocol).std_ddof).to_json()
    say(f"{problem.data.task.metric} on test of {config.task.name}: {result['mean']:.2f} ({result['n']} learners)")
    if result["std"] is not None:
        low, high = result["ci95"]
        say(f"standard deviation {result['std']:.2f} (ddof {result['ddof']}), 95 % interval {low:.2f} to {high:.2f}")
    if output is not None:
        atomic.write_text(output, dumps(result) + "\n")
    return result


def spec_of(distilled: DistilledSet) -> InnerSpec | None:
    """How a learner trains on a set, from its manifest; `None` for plain texts."""
    if distilled.synthetic is None or distilled.synthetic.raw_lr is None:
        return None
    name = distilled.manifest["method"]
    if name not in METHODS:
        raise UserError(f"the distilled set was made by {name!r}; known methods are {', '.join(METHODS)}")
    method = method_named(name)
    settings = from_plain(method.config(), distilled.manifest["config"])
    return method.inner_spec(settings, len(distilled.label_names))
