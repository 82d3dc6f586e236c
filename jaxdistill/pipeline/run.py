"""One command: distil, evaluate beside the baselines, write the run folder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.distilled import DistilledSet, load_distilled, save_distilled
from jaxdistill.io.metrics import MultiWriter
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.io.workdir import Workdir, open_workdir
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.registry import BASELINES, method_named
from jaxdistill.parallel.distributed import is_main_process
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import mesh_for, prepare
from jaxdistill.pipeline.result import evaluate_run, summary
from jaxdistill.pipeline.targets import check_targets
from jaxdistill.pipeline.texts import check_text_scorers
from jaxdistill.pipeline.writers import run_writers
from jaxdistill.privacy.noise import forget


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
      stop: asked after every outer step, and in the evaluation between learners and steps.
      say: prints one line.

    Returns:
      what `result.json` holds; of several processes, only the main one evaluates, and the others return nothing.

    Raises:
      UserError: see `io.workdir.open_workdir` and the parts.
      Stopped: `stop()` said so; a checkpoint is kept.
    """
    mesh = mesh_for(config.devices)
    main = is_main_process()
    say = say if main else lambda line: None
    say(f"{config.method} on {config.task.name} with {config.learner.name}, run folder {workdir}")
    # Everything a user can get wrong comes before the first file is written.
    problem = prepare(config.task, config.learner)
    check_class_sizes(config, problem)
    check_training(config, problem)
    makes_texts = method_named(config.method).makes_texts
    check_targets(config.evaluation.targets, problem, config.method, makes_texts)
    check_text_scorers(config.evaluation, config.method, makes_texts)
    folder = open_workdir(workdir, identity(config, problem)) if main else Workdir(Path(workdir))
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    sizes = ", ".join(f"{name} {len(getattr(problem, name)):,}" for name in ("train", "dev", "test"))
    say(f"{sizes} examples; {problem.classes} classes; mean length {problem.train.lengths.mean():.1f} tokens")
    for note in problem.notes:
        say(f"note: {note}")
    try:
        sets = [distil(config, problem, folder, seed, mesh, stop, say) for seed in range(config.seeds)]
    except UserError:
        if main:
            folder.remove_if_empty()
        raise
    if not main:
        return {}
    # Evaluation is the main process's alone: its learners are independent of each other.
    return evaluate_run(config, problem, folder, sets, mesh if jax.process_count() == 1 else None, stop, say)


def identity(config: ExperimentConfig, problem: Problem) -> dict[str, Any]:
    """What a run is: its configuration and its data. Other texts under the same name make another run."""
    return plain(config) | {"source_hash": problem.data.source_hash}


def check_class_sizes(config: ExperimentConfig, problem: Problem) -> None:
    """Whether every class has enough training texts for the sets of real texts of a run.

    Raises:
      UserError: a class has fewer than `per_class`.
    """
    asked = config.settings.per_class
    if config.method not in BASELINES and not config.evaluation.baselines:
        return
    counts = problem.data.train.class_counts(problem.classes)
    for name, count in zip(problem.data.task.label_names, counts, strict=True):
        if count < asked:
            raise UserError(
                f"class {name!r} has {count} training examples, {asked} per class asked: accepted is at most {count}, "
                "or a method that makes its samples, without baselines"
            )


def check_training(config: ExperimentConfig, problem: Problem) -> None:
    """Whether learners can train on what the method makes as `evaluation.train_by` asks.

    Raises:
      UserError: by step sizes where none are learned, or by a recipe on vectors.
    """
    method, train_by = method_named(config.method), config.evaluation.train_by
    if train_by == "schedule" and method.inner_spec(config.settings, problem.classes) is None:
        raise UserError(f"train_by is 'schedule', but {config.method!r} learns no step sizes here: give auto or recipe")
    if train_by == "recipe" and not method.makes_texts:
        raise UserError(f"train_by is 'recipe', but {config.method!r} makes vectors, not texts: give auto or schedule")


def distil(
    config: ExperimentConfig,
    problem: Problem,
    folder: Workdir,
    number: int,
    mesh: Mesh | None,
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
        make_writer=_writers(config, problem, part) if main else None,
        checkpoints=Checkpoints(part.checkpoints, config_hash=fingerprint(identity(config, problem))),
        checkpoint_seconds=config.checkpoint_seconds,
        mesh=mesh,
        protocol=protocol_named(config.evaluation.protocol),
        recipe=config.evaluation.recipe,
        full_lr=config.evaluation.full_lr,
        stop=stop,
        say=say,
        folder=part.path,
    )
    method = method_named(config.method)
    distilled = method.distill(config.settings, problem, key=named_key(config.seed + number, "distill"), run=run)
    # What made the set, evaluation included: the folder alone is enough to repeat it.
    distilled = dataclasses.replace(distilled, manifest=distilled.manifest | {"experiment": plain(config)})
    if main:
        save_distilled(part.distilled, distilled)
        forget(part.path)
    say(f"distilled set written to {part.distilled} ({distilled.size_in_bytes:,} bytes)")
    return distilled


def _writers(config: ExperimentConfig, problem: Problem, folder: Workdir) -> Callable[[int], MultiWriter]:
    # Whatever a method's loop is called in its settings.
    loops = (getattr(config.settings, name, None) for name in ("outer", "matching"))
    updates = next((loop.updates for loop in loops if loop is not None), getattr(config.settings, "outer_steps", 0))
    shown = (
        "loss",
        "distance",
        "text_distance",
        "real_accuracy",
        "text_loss",
        f"dev_{problem.data.task.metric}",
        "test_loss",
        "skipped",
    )
    return functools.partial(run_writers, folder, label="outer step", total=updates, shown=shown)
