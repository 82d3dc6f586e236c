"""Score distilled sets, ours or somebody else's: a folder, or a table of texts."""

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
from jaxdistill.pipeline.set_tables import is_table, load_sets
from jaxdistill.pipeline.targets import check_targets, score_targets, target_lines, target_notes
from jaxdistill.pipeline.text_sources import random_source, set_source
from jaxdistill.pipeline.texts import check_text_scorers, judge_texts, text_lines
from jaxdistill.pipeline.training import training_plan


def evaluate_folder(
    folder: str | os.PathLike,
    config: ExperimentConfig,
    *,
    set_column: str = "",
    output: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train fresh learners on a distilled set, or on each of several, and score them on the test split of the task.

    Learner i is the same of every set. With several sets the interval is that over their means.

    `config.evaluation.train_by` says whether by the set's learned step sizes or by a recipe. The models that
    `config.evaluation.targets` names train on its texts beside them, and where `random` is among
    `config.evaluation.baselines` on random subsets of the same size.

    Args:
      folder: of the set; or a table of texts and labels, see `pipeline.set_tables`.
      set_column: of a table: the column that tells sets apart.
      config: task, learner, evaluation and devices are used; the method is read from the set.
      output: JSON file for the scores.
      say: prints one line.

    Returns:
      the summary of the scores, with "also" where the metric is a mean of others, "diverged", "notes", and of targets
      "targets" and "seconds".

    Raises:
      UserError: the folder is no distilled set, or does not fit task or learner; see also `load_sets`.
    """
    mesh = mesh_for(config.devices)
    of_table = is_table(folder)
    if set_column and not of_table:
        raise UserError(f"a set column is for tables of texts, and {folder} is none: leave it out")
    sets = {} if of_table else {"distilled set": load_distilled(folder)}
    problem = prepare(config.task, config.learner)
    if of_table:
        sets = {f"set {name}": s for name, s in load_sets(folder, problem.data.task, set_column).items()}
    distilled = next(iter(sets.values()))
    if distilled.label_names != problem.data.task.label_names:
        raise UserError(
            f"distilled set {folder} has the classes {', '.join(distilled.label_names)}, task "
            f"{config.task.name!r} has {', '.join(problem.data.task.label_names)}: they must be the same"
        )
    evaluation = config.evaluation
    plan = training_plan(distilled, problem, evaluation.train_by)
    check_targets(evaluation.targets, problem, "the distilled set", distilled.texts is not None)
    check_text_scorers(evaluation, distilled.manifest["method"], distilled.texts is not None)
    notes = [*problem.notes, *plan.notes]
    made_with, source = distilled.manifest["learner"], problem.pretrained.source
    if made_with not in (None, source):
        notes.append(f"the set was made with the learner {made_with!r} and is evaluated with {source!r}")
    for note in notes:
        say(f"note: {note}")
    evaluator = Evaluator(problem, named_key(config.seed, "evaluate"), mesh=mesh)
    numbers = range(evaluation.test_students)
    rows = [list(evaluator.by_plan(name, s, plan, evaluation.recipe, numbers)) for name, s in sets.items()]
    ddof = protocol_named(evaluation.protocol).std_ddof
    result = summarise([values(row) for row in rows], ddof=ddof).to_json()
    result["also"] = {name: summarise(scores, ddof=ddof).to_json() for name, scores in parts(rows).items()}
    result["diverged"] = sum(made.diverged for row in rows for made in row)
    if result["diverged"]:
        notes.append(divergence_note("the distilled set", result["diverged"], result["n"]))
        say(f"note: {notes[-1]}")
    result["targets"] = {}
    if evaluation.targets:
        own = [set_source(name, s, evaluation) for name, s in sets.items()]
        others = [random_source(config, problem, distilled)] if "random" in evaluation.baselines else []
        kept = Scores()
        result |= {"targets": score_targets(config, problem, own, others, kept), "seconds": kept.seconds}
        for note in target_notes(config, problem, result["targets"], full=False):
            notes.append(note)
            say(f"note: {note}")
    result["notes"] = notes
    written = judge_texts(evaluation, problem, list(sets.values()))
    if written is not None:
        result["texts"] = written.entry
    trained_on = f" of {len(sets)} sets" if len(sets) > 1 else ""
    shown = f"{result['mean']:.2f} ({result['n']} learners{trained_on})"
    say(f"{problem.data.task.metric} on test of {config.task.name}: {shown}")
    for name, entry in result["also"].items():
        say(f"{name}: {entry['mean']:.2f}")
    if result["std"] is not None:
        interval = "" if result["ci95"] is None else ", 95 % interval {:.2f} to {:.2f}".format(*result["ci95"])
        say(f"standard deviation {result['std']:.2f} (ddof {result['ddof']}){interval}")
    for line in [*target_lines({"method": "distilled set"} | result), *text_lines(result.get("texts"))]:
        say(line)
    if output is not None:
        atomic.write_text(output, dumps(result) + "\n")
    return result
