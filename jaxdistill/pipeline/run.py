"""One command: distil, evaluate beside the baselines, write the run folder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key
from jaxdistill.evaluation.cost import CostRecord, Stopwatch, peak_memory_bytes
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.report import write_report
from jaxdistill.evaluation.statistics import paired_difference, summarise
from jaxdistill.io import atomic
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.distilled import DistilledSet, load_distilled, save_distilled
from jaxdistill.io.metrics import ConsoleWriter, JsonlWriter, MultiWriter, TensorBoardWriter, read_metrics
from jaxdistill.io.plain import dumps, fingerprint, plain
from jaxdistill.io.progress import Progress
from jaxdistill.io.versions import device, versions
from jaxdistill.io.workdir import Workdir, open_workdir
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.registry import method_named
from jaxdistill.objectives.labels import step_sizes
from jaxdistill.parallel.distributed import is_main_process
from jaxdistill.parallel.mesh import make_mesh
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.evaluate import Evaluator, text_split
from jaxdistill.pipeline.nearest import nearest_words
from jaxdistill.pipeline.prepare import load_learner, prepare


def run_experiment(
    config: ExperimentConfig,
    workdir: str | Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run an experiment in a run folder; the same call goes on where an interrupted one stopped.

    Args:
      config: the experiment.
      workdir: run folder, new or of this same configuration.
      stop: asked after every outer step.
      say: prints one line.

    Returns:
      what `result.json` holds; of several processes, only the main one evaluates, and the others return nothing.

    Raises:
      UserError: see `io.workdir.open_workdir` and the parts.
      Stopped: `stop()` said so; a checkpoint is kept.
    """
    watch = Stopwatch()
    mesh = make_mesh(None if config.devices < 0 else config.devices) if config.devices else None
    say(f"{config.method} on {config.task.name} with {config.learner.name}, run folder {workdir}")
    # Everything a user can get wrong comes before the first file is written.
    problem = prepare(config.task, config.learner)
    folder = open_workdir(workdir, config) if is_main_process() else Workdir(Path(workdir))
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    sizes = ", ".join(f"{name} {len(getattr(problem, name)):,}" for name in ("train", "dev", "test"))
    say(f"{sizes} examples; {problem.classes} classes; mean length {problem.train.lengths.mean():.1f} tokens")
    for note in problem.notes:
        say(f"note: {note}")
    try:
        sets = [distil(config, problem, folder, seed, mesh, watch, stop, say) for seed in range(config.seeds)]
    except UserError:
        if is_main_process():
            folder.remove_if_empty()
        raise
    if not is_main_process():
        return {}
    # Evaluation is the main process's alone: its learners are independent of each other.
    return _evaluate(config, problem, folder, sets, mesh if jax.process_count() == 1 else None, watch, say)


def distil(
    config: ExperimentConfig,
    problem: Problem,
    folder: Workdir,
    number: int,
    mesh: Mesh | None,
    watch: Stopwatch,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> DistilledSet:
    """The distilled set of one distillation seed: read from its folder when it is there, made otherwise."""
    part = folder if number == 0 else Workdir(folder.path / f"seed_{number}")
    if part.distilled.exists():
        distilled = load_distilled(part.distilled, expect={"config": plain(config.settings)})
        say(f"distilled set found in {part.distilled}")
        return distilled
    main = is_main_process()
    if main:
        part.path.mkdir(exist_ok=True)
    run = Run(
        make_writer=functools.partial(_writers, config, part) if main else None,
        checkpoints=Checkpoints(part.checkpoints, config_hash=fingerprint(config)),
        checkpoint_seconds=config.checkpoint_seconds,
        mesh=mesh,
        protocol=protocol_named(config.evaluation.protocol),
        stop=stop,
        say=say,
        stopwatch=watch,
    )
    method = method_named(config.method)
    distilled = method.distill(config.settings, problem, key=jax.random.key(config.seed + number), run=run)
    if main:
        save_distilled(part.distilled, distilled)
    say(f"distilled set written to {part.distilled} ({distilled.size_in_bytes:,} bytes)")
    return distilled


def _writers(config: ExperimentConfig, folder: Workdir, start: int) -> MultiWriter:
    updates = getattr(getattr(config.settings, "outer", None), "updates", 0)
    shown = ("loss", "real_accuracy", "dev_metric", "test_loss", "skipped")
    console = ConsoleWriter(Progress("outer step", updates, start=start), names=shown)
    return MultiWriter(
        [
            JsonlWriter(folder.metrics, resume_at=start),
            TensorBoardWriter(folder.tensorboard, resume_at=start),
            console,
        ]
    )


def _evaluate(
    config: ExperimentConfig,
    problem: Problem,
    folder: Workdir,
    sets: list[DistilledSet],
    mesh: Mesh | None,
    watch: Stopwatch,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Score everything on test, once, and write result and report. Scores already in the folder are not taken again."""
    evaluation = config.evaluation
    protocol = protocol_named(evaluation.protocol)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    dropping = functools.cache(lambda: load_learner(config.learner, problem.classes, dropout=None))
    evaluator = Evaluator(problem, dropping, key, mesh)
    kept = Scores(folder.path / "scores.json")
    spec = method_named(config.method).inner_spec(config.settings, problem.classes)

    def of_set(distilled: DistilledSet) -> list[float]:
        if spec is not None:
            return evaluator.by_schedule(distilled, spec, evaluation.test_students)
        texts = text_split(distilled)
        return evaluator.by_recipe(config.method, lambda i: texts, evaluation.recipe, evaluation.test_students)

    with watch.stage("evaluate"):
        own = [kept.get(f"{config.method}/{i}", lambda s=s: of_set(s)) for i, s in enumerate(sets)]
    baselines: dict[str, list[float]] = {}
    for name in evaluation.baselines:
        if name != config.method:
            with watch.stage("baselines"):
                baselines[name] = kept.get(name, lambda name=name: _baseline(name, config, problem, evaluator))
    if evaluation.full_epochs:
        with watch.stage("full"):
            baselines["full"] = kept.get(
                "full", lambda: evaluator.full(evaluation.full_epochs, evaluation.full_students)
            )
    result = {
        "task": problem.data.task.name,
        "method": config.method,
        "learner": config.learner.name,
        "per_class": config.settings.per_class,
        "metric": problem.data.task.metric,
        "protocol": protocol.name,
        "test": summarise(own, ddof=protocol.std_ddof).to_json(),
        "dev": _selection(sets),
        "baselines": {name: summarise(s, ddof=protocol.std_ddof).to_json() for name, s in baselines.items()},
        "paired": _paired(own, baselines),
        "cost": _cost(sets, watch),
        "stages": watch.seconds,
        "notes": list(problem.notes),
        "versions": versions(),
        "device": device(),
        "config": plain(config),
    }
    if (rates := _learning_rates(sets[0], problem)) is not None:
        result["learning_rates"] = rates
    words = nearest_words(sets[0], problem)
    folder.write_result(result)
    write_report(folder.report, result, read_metrics(folder.metrics), sets[0], nearest_words=words)
    say(summary(result))
    say(f"report: {folder.report}")
    return result


class Scores:
    """Scores by name in a JSON file, so that an interrupted evaluation goes on where it stopped."""

    def __init__(self, path: Path):
        import json

        self._path = path
        self._known: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, make: Callable[[], list[float]]) -> list[float]:
        """The scores of that name, made now if they are not there."""
        if name not in self._known:
            self._known[name] = make()
            atomic.write_text(self._path, dumps(self._known))
        return self._known[name]


def _baseline(name: str, config: ExperimentConfig, problem: Problem, evaluator: Evaluator) -> list[float]:
    """Scores of a coreset of the same size under the fixed recipe; `random` draws a new subset for each learner."""
    method = method_named(name)
    students = config.evaluation.baseline_students
    settings = dataclasses.replace(method.config(), per_class=config.settings.per_class)
    run = Run(say=lambda line: None)

    @functools.cache
    def texts(draw: int):
        key: Key = jax.random.fold_in(jax.random.key(config.seed), 1000 + draw)
        return text_split(method.distill(settings, problem, key=key, run=run))

    return evaluator.by_recipe(name, lambda i: texts(i if name == "random" else 0), config.evaluation.recipe, students)


def _paired(own: list[list[float]], baselines: dict[str, list[float]]) -> dict[str, Any]:
    """Difference of the method to each baseline, learner i of one to learner i of the other."""
    paired = {}
    for name, scores in baselines.items():
        count = min(len(own[0]), len(scores))
        if count > 1:
            difference = summarise_pairs(own, scores, count)
            paired[name] = {key: difference[key] for key in ("mean", "std", "n", "ci95", "clustered")}
    return paired


def summarise_pairs(own: list[list[float]], scores: list[float], count: int) -> dict[str, Any]:
    """Paired difference over the first `count` learners of every distillation seed."""
    first = [row[:count] for row in own]
    return paired_difference(first, [scores[:count]] * len(first)).to_json()


def _selection(sets: list[DistilledSet]) -> dict[str, Any] | None:
    """Score of the selected checkpoint of every seed on the selection split, in percent."""
    scores = [s.manifest["selection"]["score"] for s in sets if "selection" in s.manifest]
    return summarise([[score] for score in scores]).to_json() if scores else None


def _cost(sets: list[DistilledSet], watch: Stopwatch) -> dict[str, Any]:
    cost = dict(sets[0].manifest["cost"])
    cost |= {"evaluate_seconds": watch.seconds.get("evaluate"), "peak_bytes": peak_memory_bytes()}
    return CostRecord(**cost).to_json()


def _learning_rates(distilled: DistilledSet, problem: Problem) -> dict[str, Any] | None:
    synthetic = distilled.synthetic
    if synthetic is None or synthetic.raw_lr is None:
        return None
    rates = np.atleast_2d(np.asarray(step_sizes(synthetic.raw_lr)))
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
    lines += [line(name, entry) for name, entry in result["baselines"].items()]
    for name, entry in result["paired"].items():
        low, high = entry["ci95"]
        lines.append(f"  minus {name}: {entry['mean']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}, paired")
    return "\n".join(lines)
