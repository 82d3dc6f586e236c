"""The numbers of a run: everything scored on test, put together in `result.json` and the report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.report import write_report
from jaxdistill.evaluation.statistics import Summary, crossed_difference, paired_difference, summarise
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.metrics import read_metrics
from jaxdistill.io.plain import plain
from jaxdistill.io.versions import device, versions
from jaxdistill.io.workdir import Workdir
from jaxdistill.methods.base import Problem
from jaxdistill.objectives.labels import step_sizes
from jaxdistill.pipeline.baselines import baseline_outcomes
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.nearest import nearest_words, snapped
from jaxdistill.pipeline.scores import OF_GROUPS, Outcome, Scores, divergence_note, parts, values
from jaxdistill.pipeline.targets import score_targets, target_lines, target_notes
from jaxdistill.pipeline.text_sources import run_sources
from jaxdistill.pipeline.texts import judge_texts, text_lines
from jaxdistill.pipeline.training import training_plan

SNAPPED = "nearest words"
# Of data with protected groups the terminal shows gap and DTO; all measures are in the result and the report.
UNPRINTED = tuple(name for name in OF_GROUPS if name not in ("gap", "dto"))


def evaluate_run(
    config: ExperimentConfig,
    problem: Problem,
    folder: Workdir,
    sets: list[DistilledSet],
    mesh: Mesh | None,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Score everything on test, once, and write report and result. Scores already in the folder are not taken again.

    Beside the coresets stands "nearest words": learned vectors replaced by those of real words, trained on as before.

    Raises:
      UserError: a set cannot be trained on as the configuration asks.
      Stopped: `stop()` said so; the scores so far are kept.
    """
    evaluation = config.evaluation
    evaluator = Evaluator(problem, named_key(config.seed, "evaluate"), mesh=mesh, stop=stop)
    kept = Scores(folder.path / "scores.json", folder.path / "seconds.json")
    plans = [training_plan(distilled, problem, evaluation.train_by) for distilled in sets]
    own: list[list[Outcome]] = []
    for i, (distilled, plan) in enumerate(zip(sets, plans, strict=True)):
        train = functools.partial(evaluator.by_plan, config.method, distilled, plan, evaluation.recipe)
        own.append(kept.get(f"{config.method}/{i}", evaluation.test_students, train))
    baselines: dict[str, list[Outcome]] = {}
    for name in evaluation.baselines:
        if name != config.method:
            train = functools.partial(baseline_outcomes, name, config, problem, evaluator, folder, stop)
            baselines[name] = kept.get(name, evaluation.baseline_students, train)
    if evaluation.baselines and (spec := plans[0].spec) and (text := snapped(sets[0], problem)):
        train = functools.partial(evaluator.by_schedule, SNAPPED, text, spec)
        baselines[SNAPPED] = kept.get(SNAPPED, evaluation.baseline_students, train)
    if evaluation.full_epochs:
        train = functools.partial(evaluator.full, evaluation.full_epochs, evaluation.full_lr)
        baselines["full"] = kept.get("full", evaluation.full_students, train)
    targets = score_targets(config, problem, *run_sources(config, problem, sets, folder, stop), kept, stop)
    notes = [*problem.notes, *dict.fromkeys(note for plan in plans for note in plan.notes)]
    notes += [*target_notes(config, problem, targets), *shortfalls(config)]
    result = _result(config, problem, sets, own, baselines, notes, kept.seconds) | {"targets": targets}
    written = judge_texts(evaluation, problem, sets, folder.path / "text_scores")
    if written is not None:
        result["texts"] = written.entry
    # The scores are safe in the folder by now. The result comes last: it is what says that the run has finished.
    words = nearest_words(sets[0], problem)
    write_report(
        folder.report,
        result,
        read_metrics(folder.metrics),
        sets[0],
        nearest_words=words,
        written=written and written.first,
    )
    folder.write_result(result)
    say(summary(result))
    say(f"report: {folder.report}")
    return result


def shortfalls(config: ExperimentConfig) -> list[str]:
    """Sentences on what the protocol asks for and the run does not have."""
    protocol, students = protocol_named(config.evaluation.protocol), config.evaluation.test_students
    sentences = []
    if config.seeds < protocol.distillation_seeds:
        sentence = f"{protocol.name} asks for {protocol.distillation_seeds} distillations, this run has {config.seeds}"
        if config.seeds == 1:
            sentence += ": the interval says nothing of how much another distillation would differ"
        sentences.append(sentence)
    if students < protocol.students_test:
        sentences.append(
            f"{protocol.name} asks for {protocol.students_test} learners of each distilled set, this run has {students}"
        )
    return sentences


def _result(
    config: ExperimentConfig,
    problem: Problem,
    sets: list[DistilledSet],
    own: list[list[Outcome]],
    baselines: dict[str, list[Outcome]],
    notes: list[str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """What `result.json` holds."""
    protocol = protocol_named(config.evaluation.protocol)
    scores = [values(outcomes) for outcomes in own]
    everyone = {config.method: [made for row in own for made in row]} | baselines
    diverged = {name: sum(made.diverged for made in outcomes) for name, outcomes in everyone.items()}
    diverged = {name: count for name, count in diverged.items() if count}
    result = {
        "task": problem.data.task.name,
        "method": config.method,
        "learner": config.learner.name,
        "per_class": config.settings.per_class,
        "metric": problem.data.task.metric,
        "protocol": protocol.name,
        "test": summarise(scores, ddof=protocol.std_ddof).to_json(),
        "also": {name: summarise(rows, ddof=protocol.std_ddof).to_json() for name, rows in parts(own).items()},
        "baselines_also": {
            name: {part: summarise(rows, ddof=protocol.std_ddof).to_json() for part, rows in parts([o]).items()}
            for name, o in baselines.items()
        },
        "dev": _selection(sets),
        "baselines": {name: summarise(values(o), ddof=protocol.std_ddof).to_json() for name, o in baselines.items()},
        "paired": _differences(scores, {name: values(outcomes) for name, outcomes in baselines.items()}),
        "diverged": diverged,
        "cost": _cost(sets, sum(seconds[f"{config.method}/{i}"] for i in range(len(sets)))),
        "seconds": seconds,
        "notes": notes + [divergence_note(name, count, len(everyone[name])) for name, count in diverged.items()],
        "versions": versions(),
        "device": device(),
        "config": plain(config),
    }
    if (rates := _learning_rates(sets[0], problem)) is not None:
        result["learning_rates"] = rates
    return result


def _differences(own: list[list[float]], baselines: dict[str, list[float]]) -> dict[str, Any]:
    """Difference of the method to each baseline, learner i of one to learner i of the other."""
    differences = {}
    for name, scores in baselines.items():
        rows = own[:1] if name == SNAPPED else own  # it is made of the first set
        count = min(len(own[0]), len(scores))
        if count > 1:
            entry = difference([row[:count] for row in rows], scores[:count]).to_json()
            differences[name] = {key: entry[key] for key in ("mean", "std", "n", "ci95", "clustered")}
    return differences


def difference(own: list[list[float]], base: list[float]) -> Summary:
    """Difference of scores [distillation seeds, learners] to those of the same learners under a baseline."""
    return crossed_difference(own, base) if len(own) > 1 else paired_difference(own, [base])


def _selection(sets: list[DistilledSet]) -> dict[str, Any] | None:
    """Score on dev of the selected checkpoint of every seed; `None` where nothing was selected by the metric on dev."""
    selections = [s.manifest["selection"] for s in sets if "selection" in s.manifest]
    scores = [chosen["score"] for chosen in selections if (chosen["split"], chosen["by"]) == ("dev", "metric")]
    return summarise([[score] for score in scores]).to_json() if scores else None


def _cost(sets: list[DistilledSet], evaluate_seconds: float) -> dict[str, Any]:
    """Of all distillations together; a step's seconds and a set's bytes are those of the first."""
    costs = [CostRecord(**distilled.manifest["cost"]) for distilled in sets]

    def total(field: str) -> Any:
        figures = [getattr(cost, field) for cost in costs]
        return None if None in figures else sum(figures)

    peaks = [peak_memory_bytes(), *(cost.peak_bytes or 0 for cost in costs)]
    summed = {field: total(field) for field in ("distill_seconds", "flops", "real_examples")}
    return dataclasses.replace(costs[0], **summed, evaluate_seconds=evaluate_seconds, peak_bytes=max(peaks)).to_json()


def _learning_rates(distilled: DistilledSet, problem: Problem) -> dict[str, Any] | None:
    synthetic = distilled.synthetic
    if synthetic is None or synthetic.raw_lr is None:
        return None
    rates = np.atleast_2d(np.asarray(step_sizes(jnp.asarray(synthetic.raw_lr))))
    if np.ndim(synthetic.raw_lr) == 1:
        return {"names": ["all"], "values": rates.T.tolist()}
    return {"names": list(problem.pretrained.learner.group_names), "values": rates.tolist()}


def summary(result: dict[str, Any]) -> str:
    """The result as lines for a terminal."""

    def line(name: str, entry: dict[str, Any]) -> str:
        interval = "" if entry["ci95"] is None else "  95 % interval {:.1f} to {:.1f}".format(*entry["ci95"])
        spread = "" if entry["std"] is None else f" +- {entry['std']:.1f}"
        return f"  {name:<18}{entry['mean']:6.1f}{spread}  ({entry['n']} learners){interval}"

    lines = [f"{result['task']}, {result['metric']} on test, {result['per_class']} a class:"]
    lines += [line(result["method"], result["test"])]
    lines += [line(f"  {name}", entry) for name, entry in result["also"].items() if name not in UNPRINTED]
    for name, entry in result["baselines"].items():
        lines.append(line(name, entry))
        also = result["baselines_also"][name]
        lines += [line(f"  {part}", entry) for part, entry in also.items() if part not in UNPRINTED]
    for name, entry in result["paired"].items():
        low, high = entry["ci95"]
        lines.append(f"  minus {name}: {entry['mean']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}, paired")
    lines += target_lines(result)
    lines += text_lines(result.get("texts"))
    lines += [f"note: {note}" for note in result["notes"]]
    return "\n".join(lines)
