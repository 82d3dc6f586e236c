"""Score a distilled-set folder, ours or somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.statistics import summarise
from jaxdistill.io import atomic
from jaxdistill.io.distilled import load_distilled
from jaxdistill.io.plain import dumps
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import mesh_for, prepare
from jaxdistill.pipeline.scores import Scores, divergence_note, parts, values
from jaxdistill.pipeline.targets import check_targets, score_targets, target_lines, target_notes
from jaxdistill.pipeline.text_sources import random_source, set_source
from jaxdistill.pipeline.training import training_plan


def evaluate_folder(
    folder: str | os.PathLike,
    config: ExperimentConfig,
    *,
    output: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train fresh learners on a distilled set and score them on the test split of the configured task.

    `config.evaluation.train_by` says whether by the set's learned step sizes or by a recipe. The models that
    `config.evaluation.targets` names train on its texts beside them, and where `random` is among
    `config.evaluation.baselines` on random subsets of the same size.

    Args:
      folder: of the set.
      config: task, learner, evaluation and devices are used; the method is read from the set.
      output: JSON file for the scores.
      say: prints one line.

    Returns:
      the summary of the scores, with "also" where the metric is a mean of others, "diverged", "notes", and of targets
      "targets" and "seconds".

    Raises:
      UserError: the folder is no distilled set, or does not fit task or learner.
    """
    mesh = mesh_for(config.devices)
    distilled = load_distilled(folder)
    problem = prepare(config.task, config.learner)
    if distilled.label_names != problem.data.task.label_names:
        raise UserError(
            f"distilled set {folder} has the classes {', '.join(distilled.label_names)}, task "
            f"{config.task.name!r} has {', '.join(problem.data.task.label_names)}: they must be the same"
        )
    evaluation = config.evaluation
    plan = training_plan(distilled, problem, evaluation.train_by)
    check_targets(evaluation.targets, problem, "the distilled set", distilled.texts is not None)
    notes = [*problem.notes, *plan.notes]
    if (made_with := distilled.manifest["learner"]) != (source := problem.pretrained.source):
        notes.append(f"the set was made with the learner {made_with!r} and is evaluated with {source!r}")
    for note in notes:
        say(f"note: {note}")
    evaluator = Evaluator(problem, named_key(config.seed, "evaluate"), mesh=mesh)
    numbers = range(evaluation.test_students)
    outcomes = list(evaluator.by_plan("distilled set", distilled, plan, evaluation.recipe, numbers))
    ddof = protocol_named(evaluation.protocol).std_ddof
    result = summarise(values(outcomes), ddof=ddof).to_json()
    result["also"] = {name: summarise(rows, ddof=ddof).to_json() for name, rows in parts([outcomes]).items()}
    result["diverged"] = sum(made.diverged for made in outcomes)
    if result["diverged"]:
        notes.append(divergence_note("the distilled set", result["diverged"], len(outcomes)))
        say(f"note: {notes[-1]}")
    result["targets"] = {}
    if evaluation.targets:
        own = [set_source("distilled set", distilled, evaluation)]
        others = [random_source(config, problem, distilled)] if "random" in evaluation.baselines else []
        kept = Scores()
        result |= {"targets": score_targets(config, problem, own, others, kept), "seconds": kept.seconds}
        for note in target_notes(config, problem, result["targets"], full=False):
            notes.append(note)
            say(f"note: {note}")
    result["notes"] = notes
    say(f"{problem.data.task.metric} on test of {config.task.name}: {result['mean']:.2f} ({result['n']} learners)")
    for name, entry in result["also"].items():
        say(f"{name}: {entry['mean']:.2f}")
    if result["std"] is not None:
        interval = "" if result["ci95"] is None else ", 95 % interval {:.2f} to {:.2f}".format(*result["ci95"])
        say(f"standard deviation {result['std']:.2f} (ddof {result['ddof']}){interval}")
    for line in target_lines({"method": "distilled set"} | result):
        say(line)
    if output is not None:
        atomic.write_text(output, dumps(result) + "\n")
    return result
