"""One command: fine-tune an encoder as a classifier, choose on dev, write a folder that can judge texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import PyTree, Variables
from jaxdistill.evaluation.metrics import metric_named, percent
from jaxdistill.evaluation.recipes import Step, full_data_recipe
from jaxdistill.evaluation.scoring import Scorer, split_batches
from jaxdistill.io import atomic
from jaxdistill.io.plain import plain
from jaxdistill.io.progress import Progress, duration
from jaxdistill.io.versions import versions
from jaxdistill.io.workdir import open_workdir
from jaxdistill.methods.base import Problem
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.huggingface import save_folder
from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare


def run_classifier(
    config: ClassifierConfig, workdir: str | Path, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train a classifier in a run folder; one that is finished is not trained again, an interrupted one starts anew.

    `model/` of the folder is read by `evaluation.attribute_scorer.load_attribute_scorer`, and by transformers. Its
    labels have the names of the task's classes.

    Args:
      config: see there.
      workdir: run folder, new or of this same configuration.
      say: prints one line.

    Returns:
      what `result.json` holds: "dev" and "test" are in percent; test is read once.

    Raises:
      UserError: see `pipeline.prepare.prepare` and `io.workdir.open_workdir`; a learner that is no encoder; every
        training diverged.
    """
    began = time.monotonic()
    problem = prepare(config.task, config.learner)
    encoder = problem.pretrained.config
    if not isinstance(encoder, EncoderConfig):
        raise UserError(f"learner.name is {config.learner.name!r}: accepted are encoders (BERT, RoBERTa, DistilBERT)")
    folder = open_workdir(workdir, plain(config) | {"source_hash": problem.data.source_hash})
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    for note in problem.notes:
        say(f"note: {note}")
    try:
        params, record = train_classifier(config, problem)
    except UserError:
        folder.remove_if_empty()
        raise
    task = problem.data.task
    result = {
        "task": task.name,
        "learner": config.learner.name,
        "metric": task.metric,
        "labels": list(task.label_names),
        **record,
        "seconds": time.monotonic() - began,
        "notes": list(problem.notes),
        "versions": versions(),
    }
    if folder.model.exists():  # a killed run left it before its result
        atomic.remove_folder(folder.model)
    source = problem.pretrained.folder
    own: dict[str, Any] = {"tokenizer_from": source} if source else {"tokenizer": problem.pretrained.tokenizer}
    save_folder(folder.model, encoder, params, label_names=task.label_names, **own)
    folder.write_result(result)
    say(f"{summary(result)}\nmodel: {folder.model}")
    return result


def train_classifier(config: ClassifierConfig, problem: Problem) -> tuple[PyTree, dict[str, Any]]:
    """Fine-tune with each learning rate; keep what is best on dev, the earlier of equals, and score it on test.

    Returns:
      all parameters of the encoder, on the host, and "train_texts", "lr", "epoch", "dev", "dev_loss", "test", "trials".

    Raises:
      UserError: no loss on dev was finite.
    """
    trainer, key = problem.trainer(), named_key(config.seed, "train")
    reader, row_length = problem.pretrained.learner, problem.row_length
    dev, test = (split_batches(split, reader, row_length=row_length) for split in (problem.dev, problem.test))
    members = _members(config, len(problem.train))
    epoch_steps = max(1, len(members) // config.batch_size)
    recipes = [full_data_recipe(config.epochs * epoch_steps, lr, config.batch_size) for lr in config.lrs]
    scorer, metric = Scorer(trainer.learner(recipes[0])), metric_named(problem.data.task.metric)
    trials: list[dict[str, Any]] = []
    best: tuple[float, int, Variables] | None = None
    for recipe in recipes:
        progress = Progress(f"lr {recipe.lr:g}: steps", recipe.steps)

        def on_step(
            step: Step, indices: Int[np.ndarray, " n"], progress: Progress = progress, lr: float = recipe.lr
        ) -> None:
            nonlocal best
            progress.update(step.done)
            if step.done % epoch_steps:
                return
            score = scorer(step.variables, dev)
            value = 0.0 if score.diverged else percent(metric(score.confusion))
            if not score.diverged and (best is None or value > best[0]):
                best = value, len(trials), jax.device_get(step.variables)
            trials.append({"lr": lr, "epoch": step.done // epoch_steps, "dev": value, "dev_loss": score.loss})

        try:
            trainer.on_split(problem.train, recipe, key, members=members, on_step=on_step)
        finally:
            progress.close()
    if best is None:
        raise UserError(f"every training diverged: lower config.lrs, now {', '.join(f'{lr:g}' for lr in config.lrs)}")
    chosen, variables = best[1:]
    score = percent(metric(scorer(variables, test).confusion))
    record = {"train_texts": len(members), **trials[chosen], "test": score, "trials": trials}
    return tree.merge(variables.trainable, variables.frozen), record


def summary(result: dict[str, Any]) -> str:
    """The numbers of a result in a line."""
    return (
        f"{result['task']}, {result['metric']} of {result['learner']}: test {result['test']:.2f}, dev "
        f"{result['dev']:.2f} (lr {result['lr']:g}, epoch {result['epoch']}, {result['train_texts']:,} texts), "
        f"{duration(result['seconds'])}"
    )


def _members(config: ClassifierConfig, available: int) -> Int[np.ndarray, " m"]:
    """Which training texts are seen."""
    if not 0 < config.train_texts < available:
        return np.arange(available)
    draw = np.random.default_rng(numpy_seed(named_key(config.seed, "train texts")))
    return np.sort(draw.permutation(available)[: config.train_texts])
