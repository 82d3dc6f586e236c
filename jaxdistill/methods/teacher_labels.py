"""Random real texts with the soft labels of an early-stopped teacher.

Qin, Deng and Alvarez-Melis, "A label is worth a thousand images in dataset distillation", NeurIPS 2024: random images
whose labels are what a teacher, not trained to the end, says of them come close to sets that were learned at great
cost, or beat them. Every method of learned samples should be compared with it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.coresets.scores import softmax
from jaxdistill.data.batching import EvalBatches
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.features import read_texts
from jaxdistill.evaluation.fine_tuning import Trainer
from jaxdistill.evaluation.metrics import metric_named
from jaxdistill.evaluation.recipes import Recipe, Step, full_data_recipe
from jaxdistill.evaluation.scoring import Score, Scorer, split_batches
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Method, Problem, Run, Stopped, manifest
from jaxdistill.methods.coreset import random_texts, set_of
from jaxdistill.objectives.inner_problem import InnerSpec


@dataclasses.dataclass(frozen=True)
class TeacherLabels:
    """Settings. The students that choose among the candidates train by `Run.recipe`.

    Attributes:
      per_class: texts a class.
      epochs: after which passes over the training split, or parts of one, the teacher is asked; it trains once, to the
        last of them.
      temperatures: labels are softmax(logits / temperature); students train on them at temperature 1.
      students: fresh learners of each candidate, an epoch with a temperature. They have the same heads and orders for
        all candidates, and share dev: each scores its own part.
      lr, batch_size: of the teacher: AdamW with 10 % warm-up and linear decay; lr 0 takes `Run.full_lr`.
    """

    per_class: int = 1
    epochs: tuple[float, ...] = (0.1, 0.3, 1.0)
    temperatures: tuple[float, ...] = (1.0, 4.0)
    students: int = 3
    lr: float = 0.0
    batch_size: int = 32

    def __post_init__(self):
        for field in ("per_class", "students", "batch_size"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"{field} is {value}: it must be at least 1")
        for field in ("epochs", "temperatures"):
            values = getattr(self, field)
            if not values or not all(0.0 < value < float("inf") for value in values):
                raise UserError(f"{field} is {values}: accepted is one number above 0, or several")
        if not 0.0 <= self.lr < float("inf"):
            raise UserError(f"lr is {self.lr}: accepted is a number from 0")


class Checkpoint(NamedTuple):
    """What the teacher says at some point of its training.

    Attributes:
      epoch, step: when.
      logits: of the chosen texts.
      score: its own on dev, in the task's metric; shown, not selected by.
    """

    epoch: float
    step: int
    logits: Float[np.ndarray, "n c"]
    score: float


class Candidate(NamedTuple):
    """Soft labels, and how students trained on them did on dev.

    Attributes:
      epoch, temperature: of the teacher.
      score: of the students together, in the task's metric; 0 where one of them diverged.
      loss: their mean cross-entropy on dev; infinite where one diverged.
    """

    epoch: float
    temperature: float
    score: float
    loss: float


def soft_labels(logits: Float[np.ndarray, "n c"], temperature: float) -> Float[np.ndarray, "n c"]:
    """softmax(logits / temperature), float32."""
    return softmax(logits / np.asarray(temperature, logits.dtype)).astype(np.float32)


def best_of(candidates: list[Candidate]) -> int:
    """Number of the candidate with the highest score; of several, the one with the least loss; then the first."""
    return max(range(len(candidates)), key=lambda i: (candidates[i].score, -candidates[i].loss, -i))


def distill(config: TeacherLabels, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Draw texts, train the teacher once, choose its labels on dev; see `methods.base.DistillFn`.

    The texts are those that the method `random` draws with the same key. The learners of teacher and students are those
    of ordinary fine-tuning. Nothing is kept of an interrupted teacher.

    Raises:
      UserError: a class has too few texts, or the teacher diverged.
      Stopped: the run was asked to stop.
    """
    # Cut as a coreset cuts its key, for the same texts.
    choose_key, learn_key = jax.random.split(key)
    teacher_key, student_key = jax.random.split(learn_key)
    chosen = problem.data.train.take(random_texts(config.per_class, problem, choose_key))
    encoded = encode(chosen, problem.pretrained.tokenizer, problem.longest)
    trainer = problem.trainer()
    scorer = Scorer(trainer.learner(run.recipe))
    parts = [np.arange(first, len(problem.dev), config.students) for first in range(config.students)]
    parts = [part for part in parts if len(part)]
    dev = split_batches(problem.dev, problem.pretrained.learner, row_length=problem.row_length, groups=parts)

    began = time.monotonic()
    checkpoints, recipe = train_teacher(config, problem, trainer, scorer, dev, encoded, key=teacher_key, run=run)
    taught = time.monotonic()
    pairs = list(itertools.product(checkpoints, config.temperatures))
    labels = [soft_labels(checkpoint.logits, temperature) for checkpoint, temperature in pairs]
    progress = Progress("teacher_labels: students on dev", len(pairs) * len(parts))
    candidates: list[Candidate] = []
    try:
        for (checkpoint, temperature), targets in zip(pairs, labels, strict=True):
            total = _students(problem, trainer, scorer, dev, encoded, targets, len(parts), student_key, run)
            score, loss = _judged(total, problem.data.task.metric)
            candidates.append(Candidate(checkpoint.epoch, temperature, score, loss))
            progress.update(len(candidates) * len(parts), f"dev {100 * score:.2f}")
    finally:
        progress.close()
    best = best_of(candidates)
    ended = time.monotonic()

    result = dataclasses.replace(set_of(chosen, problem), soft_labels=labels[best])
    cost = CostRecord(
        distill_seconds=ended - began,
        peak_bytes=peak_memory_bytes(),
        real_examples=recipe.steps * recipe.batch_size,
        distilled_bytes=result.size_in_bytes,
    )
    facts = manifest("teacher_labels", config, problem, key, cost.to_json())
    facts["selection"] = {
        "split": "dev",
        "by": "metric",
        "epoch": candidates[best].epoch,
        "temperature": candidates[best].temperature,
        "score": candidates[best].score,
        "candidates": [candidate._asdict() for candidate in candidates],
        "students": len(parts),
        "recipe": run.recipe,
        "teacher": [{"epoch": c.epoch, "step": c.step, "score": c.score} for c in checkpoints],
        "teacher_recipe": recipe,
        "teacher_seconds": taught - began,
        "students_seconds": ended - taught,
    }
    return dataclasses.replace(result, manifest=facts)


def train_teacher(
    config: TeacherLabels,
    problem: Problem,
    trainer: Trainer,
    scorer: Scorer,
    dev: EvalBatches,
    encoded: Encoded,
    *,
    key: Key,
    run: Run,
) -> tuple[list[Checkpoint], Recipe]:
    """Fine-tune a teacher on the training split and ask it on the way.

    Args:
      config: settings.
      problem: data and learner.
      trainer: of the learner.
      scorer, dev: for the teacher's own score.
      encoded: the chosen texts.
      key: of the teacher.
      run: whose signal stops.

    Returns:
      a checkpoint for each of `config.epochs`, and how the teacher trained.

    Raises:
      UserError: the teacher diverged.
      Stopped: the run was asked to stop.
    """
    batch_size = min(config.batch_size, len(problem.train))
    steps = {epoch: max(1, round(epoch * len(problem.train) / batch_size)) for epoch in config.epochs}
    recipe = full_data_recipe(max(steps.values()), config.lr or run.full_lr, batch_size)
    learner = trainer.learner(recipe)
    read = jax.jit(lambda variables, batch: learner.apply(variables, batch).logits)
    made: dict[float, Checkpoint] = {}
    progress = Progress("teacher_labels: teacher's steps", recipe.steps)

    def on_step(step: Step, indices: np.ndarray) -> None:
        _check_stop(run)
        for epoch in (epoch for epoch in config.epochs if steps[epoch] == step.done):
            rows = np.arange(len(encoded))
            logits = read_texts(read, learner, step.variables, encoded, rows, row_length=problem.row_length)
            if not np.isfinite(logits).all():
                raise UserError(f"the teacher diverged within {epoch:g} epochs: lower its lr, now {recipe.lr}")
            score, _ = _judged(scorer(step.variables, dev), problem.data.task.metric)
            made[epoch] = Checkpoint(epoch, step.done, logits, score)
        progress.update(step.done)

    try:
        trainer.on_split(problem.train, recipe, key, on_step=on_step)
    finally:
        progress.close()
    return [made[epoch] for epoch in config.epochs], recipe


def _students(
    problem: Problem,
    trainer: Trainer,
    scorer: Scorer,
    dev: EvalBatches,
    encoded: Encoded,
    targets: Float[np.ndarray, "n c"],
    count: int,
    key: Key,
    run: Run,
) -> Score:
    """Score on dev of fresh learners trained on the soft labels, learner i on part i."""
    scores = []
    for number in range(count):
        own = jax.random.fold_in(key, number)
        trained = trainer.on_texts(
            encoded, run.recipe, own, soft_labels=targets, on_step=lambda step, indices: _check_stop(run)
        )
        scores.append(scorer(trained, dev, group=number))
    return sum(scores[1:], start=scores[0])


def _judged(total: Score, metric: str) -> tuple[float, float]:
    """(score, loss) of learners; those that diverged predict nothing."""
    return (0.0, float("inf")) if total.diverged else (metric_named(metric)(total.confusion), total.loss)


def _check_stop(run: Run) -> None:
    if run.stop():
        raise Stopped("stopped while training the teacher or its students")


def inner_spec(config: TeacherLabels, classes: int) -> InnerSpec | None:
    """`None`: learners train on the texts by a recipe."""
    return None


def initial(config: TeacherLabels, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """There is nothing to begin with.

    Raises:
      UserError: always.
    """
    raise UserError("method 'teacher_labels' has no outer step: its labels are a teacher's")


METHOD = Method(TeacherLabels, distill, initial, inner_spec, makes_texts=True)
