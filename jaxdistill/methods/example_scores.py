"""How hard real texts are to learn, told from learners trained on them: what the coresets of scores choose by."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.types import Batch, Key, Learner, Outputs, PyTree, Variables
from jaxdistill.coresets.scores import (
    Keep,
    error_norms,
    example_gradient_norms,
    forgetting_counts,
    head_gradient_norms,
)
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import Encoded
from jaxdistill.evaluation.features import read_texts
from jaxdistill.evaluation.fine_tuning import Trainer
from jaxdistill.evaluation.recipes import Recipe, Step, full_data_recipe
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem, Run, Stopped

# Texts whose gradients in all parameters are taken by one program; between two of these a run can be stopped.
_GRADIENTS = 64


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Settings.

    Attributes:
      keep: which texts of a class are taken: the "easy" ones of the lowest scores, the "hard" ones of the highest, or
        the "middle" ones around the median. The published works keep the hardest, of sets that stay large; where little
        is kept, easy ones do better (Sorscher et al., "Beyond neural scaling laws", NeurIPS 2022), and distilled sets
        are tiny.
      learners: trained, whose scores are averaged.
      epochs: passes over the pool before the score is taken (0: at the start), or, of `forgetting`, during which texts
        are watched.
      lr, batch_size: of AdamW with 10 % warm-up and linear decay; lr 0 takes `Run.full_lr`.
      gradients: of `grand`: the gradient in "all" parameters, as published, which takes about as long as a training
        epoch without packing, or in the classification "head" alone, in closed form and about as cheap as `el2n`. Where
        the features of all texts are of one length, as behind an encoder's tanh, the latter ranks as `el2n` does.
    """

    keep: Keep = "easy"
    learners: int = 3
    epochs: float = 1.0
    lr: float = 0.0
    batch_size: int = 32
    gradients: Literal["all", "head"] = "all"

    def __post_init__(self):
        if self.keep not in ("easy", "middle", "hard"):
            raise UserError(f"scoring.keep is {self.keep!r}: give easy, middle or hard")
        if self.gradients not in ("all", "head"):
            raise UserError(f"scoring.gradients is {self.gradients!r}: give all or head")
        for field in ("learners", "batch_size"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"scoring.{field} is {value}: it must be at least 1")
        if not 0.0 <= self.epochs < float("inf"):
            raise UserError(f"scoring.epochs is {self.epochs}: accepted is a number from 0")
        if not 0.0 <= self.lr < float("inf"):
            raise UserError(f"scoring.lr is {self.lr}: accepted is a number from 0")


class ScoreFn(Protocol):
    def __call__(
        self, scoring: Scoring, problem: Problem, members: Int[np.ndarray, " m"], *, key: Key, run: Run
    ) -> Float[np.ndarray, " m"]:
        """Score training texts; the higher, the harder.

        Args:
          scoring: settings.
          problem: data and learner.
          members: which training texts; learners train on them and on no others.
          key: of the learners.
          run: whose signal stops.

        Raises:
          UserError: a learner diverged.
          Stopped: the run was asked to stop; nothing is kept.
        """
        ...


def el2n(
    scoring: Scoring, problem: Problem, members: Int[np.ndarray, " m"], *, key: Key, run: Run
) -> Float[np.ndarray, " m"]:
    """Mean over learners of `coresets.scores.error_norms`; see `ScoreFn`."""
    labels = problem.train.labels[members]
    outputs = _outputs("el2n", scoring, problem, members, key, run)
    return _mean(error_norms(output.logits, labels) for output in outputs)


def grand(
    scoring: Scoring, problem: Problem, members: Int[np.ndarray, " m"], *, key: Key, run: Run
) -> Float[np.ndarray, " m"]:
    """Mean over learners of the norm of each text's gradient; see `ScoreFn`."""
    if scoring.gradients == "head":
        labels = problem.train.labels[members]
        outputs = _outputs("grand", scoring, problem, members, key, run)
        bias = "bias" in problem.pretrained.learner.groups["classifier"]
        return _mean(head_gradient_norms(output.logits, output.features, labels, bias=bias) for output in outputs)
    trainer = problem.trainer()
    recipe, _ = _recipe(scoring, len(members), run)
    norms = GradientNorms(trainer.learner(recipe))
    trained = _trained("grand", scoring, problem, trainer, members, key, run)
    return _mean(norms(variables, problem.train, members, problem.row_length, run) for variables in trained)


def forgetting(
    scoring: Scoring, problem: Problem, members: Int[np.ndarray, " m"], *, key: Key, run: Run
) -> Float[np.ndarray, " m"]:
    """Mean over learners of `coresets.scores.forgetting_counts`; see `ScoreFn`.

    What counts is how a learner classifies a text in the batch that trains it, before the update. What one learner
    never learned has infinity in the mean.
    """
    place = np.full(len(problem.train), -1)
    place[members] = np.arange(len(members))
    _, batch_size = _recipe(scoring, len(members), run)
    epoch_steps = len(members) // batch_size
    histories: dict[int, Int[np.ndarray, "t m"]] = {}

    def watch(number: int, step: Step, indices: Int[np.ndarray, " n"]) -> None:
        epoch = (step.done - 1) // epoch_steps
        correct = np.argmax(np.asarray(step.logits), axis=1) == problem.train.labels[indices]
        histories.setdefault(number, np.full((int(np.ceil(scoring.epochs)) + 1, len(members)), -1))
        histories[number][epoch, place[indices]] = correct

    for _ in _trained("forgetting", scoring, problem, problem.trainer(), members, key, run, watch):
        pass
    return _mean(forgetting_counts(history) for history in histories.values())


SCORES: Mapping[str, ScoreFn] = MappingProxyType({"el2n": el2n, "grand": grand, "forgetting": forgetting})


class GradientNorms:
    """Norms of the gradients of single texts in everything a learner trains; holds the compiled program."""

    def __init__(self, learner: Learner):
        # One gradient at a time on CPU, where batching gains nothing and a gradient is as large as the model.
        at_once = 1 if jax.default_backend() == "cpu" else 8
        self._learner = learner

        @jax.jit
        def norms(variables: Variables, batch: Batch) -> Float[Array, " n"]:
            def loss(trainable: PyTree, example: Batch) -> Array:
                one = jax.tree.map(lambda x: x[None], example)
                return cross_entropy(learner.apply(Variables(trainable, variables.frozen), one).logits, one.labels)

            return example_gradient_norms(loss, variables.trainable, batch, at_once=at_once)

        self._norms = norms

    def __call__(
        self, variables: Variables, encoded: Encoded, members: Int[np.ndarray, " m"], row_length: int, run: Run
    ) -> Float[np.ndarray, " m"]:
        """The norm of each text, in the order of `members`."""
        batches = eval_batches(
            encoded,
            row_length=row_length,
            rows=_GRADIENTS,
            packed=False,
            min_length=self._learner.min_length,
            groups=[members],
        )
        progress = Progress("grand: texts", len(members))
        result, done = np.empty(len(encoded)), 0
        try:
            for batch, indices in zip(batches.batches, batches.indices, strict=True):
                _check_stop(run, "grand")
                result[indices] = np.asarray(self._norms(variables, batch))[: len(indices)]
                done += len(indices)
                progress.update(done)
        finally:
            progress.close()
        return result[members]


def _recipe(scoring: Scoring, examples: int, run: Run) -> tuple[Recipe, int]:
    """How learners train on so many texts, and how many of these a step takes. One step at least: a learner that does
    not train at all has a recipe too."""
    batch_size = min(scoring.batch_size, examples)
    steps = max(1, round(scoring.epochs * (examples // batch_size)))
    return full_data_recipe(steps, scoring.lr or run.full_lr, batch_size), batch_size


def _trained(
    name: str,
    scoring: Scoring,
    problem: Problem,
    trainer: Trainer,
    members: Int[np.ndarray, " m"],
    key: Key,
    run: Run,
    watch: Callable[[int, Step, Int[np.ndarray, " n"]], None] = lambda number, step, indices: None,
) -> Iterator[Variables]:
    """The learners, as they come; `watch` is told the number of a learner and all its steps."""
    recipe, _ = _recipe(scoring, len(members), run)
    keys = [jax.random.fold_in(key, number) for number in range(scoring.learners)]
    if not scoring.epochs:
        yield from (trainer.start(recipe, own) for own in keys)
        return
    progress = Progress(f"{name}: training steps", recipe.steps * scoring.learners)

    def on_step(number: int, step: Step, indices: Int[np.ndarray, " n"]) -> None:
        _check_stop(run, name)
        watch(number, step, indices)
        if step.done == recipe.steps and not np.isfinite(step.loss):
            raise UserError(f"a learner of {name!r} diverged: lower scoring.lr, now {recipe.lr}")
        progress.update(number * recipe.steps + step.done)

    try:
        for number, own in enumerate(keys):
            told = functools.partial(on_step, number)
            yield trainer.on_split(problem.train, recipe, own, members=members, on_step=told)
    finally:
        progress.close()


def _outputs(
    name: str, scoring: Scoring, problem: Problem, members: Int[np.ndarray, " m"], key: Key, run: Run
) -> Iterator[Outputs]:
    """What each learner, once trained, says of the texts: numpy leaves, in the order of `members`."""
    trainer = problem.trainer()
    recipe, _ = _recipe(scoring, len(members), run)
    learner = trainer.learner(recipe)
    read = jax.jit(learner.apply)
    for variables in _trained(name, scoring, problem, trainer, members, key, run):
        yield read_texts(read, learner, variables, problem.train, members, row_length=problem.row_length)


def _mean(scores: Iterator[Float[np.ndarray, " m"]]) -> Float[np.ndarray, " m"]:
    return np.mean(list(scores), axis=0)


def _check_stop(run: Run, name: str) -> None:
    if run.stop():
        raise Stopped(f"stopped while scoring texts by {name}")
