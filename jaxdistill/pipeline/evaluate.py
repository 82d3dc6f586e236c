"""Scores of distilled sets, baselines and the full data on the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Learner
from jaxdistill.data.batching import TrainBatches
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.recipes import FineTuner, Recipe, full_data_recipe
from jaxdistill.evaluation.scoring import Scorer, split_batches
from jaxdistill.evaluation.students import Examiner
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem, Stopped
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.parallel.mesh import replicated
from jaxdistill.pipeline.config import LearnerConfig
from jaxdistill.pipeline.prepare import load_learner
from jaxdistill.pipeline.scores import Outcome, outcome
from jaxdistill.pipeline.training import Plan, learned_arrays, text_split


class Evaluator:
    """Trains fresh learners and scores them on the test split; holds what is compiled once.

    Learner i of every set has the key `fold_in(key, i)`, and so the same fresh head: scores can be paired. Learners of
    a learned schedule train as in the distillation; those that fine-tune on texts train every parameter that
    `LearnerConfig.trainable` allows, the word table included.

    Args:
      problem: data and learner.
      learner: as the problem's was configured; loaded again for fine-tuning.
      key: of all learners.
      mesh: over whose "data" axis the learners of a learned schedule are cut; `None` uses one device.
      stop: asked before each learner and each step of a fine-tuning; True raises `Stopped`.
    """

    def __init__(
        self,
        problem: Problem,
        learner: LearnerConfig,
        key: Key,
        *,
        mesh: Mesh | None = None,
        stop: Callable[[], bool] = lambda: False,
    ):
        self._problem, self._config, self._key, self._mesh, self._stop = problem, learner, key, mesh, stop
        self._split = split_batches(problem.test, problem.pretrained.learner, row_length=problem.row_length)
        self._longest = max(int(problem.train.lengths.max()), problem.pretrained.learner.min_length)
        # Learners that differ in dropout share no compiled update, but score alike: one scorer of one of them.
        self._learners: dict[bool, Learner] = {}
        self._tuners: dict[Recipe, FineTuner] = {}
        self._scorer: Scorer | None = None
        self._examiners: dict[InnerSpec, Examiner] = {}

    def by_plan(
        self, name: str, distilled: DistilledSet, plan: Plan, recipe: Recipe, numbers: Sequence[int]
    ) -> Iterator[Outcome]:
        """Outcomes of learners trained on a set as `training_plan` chose, as they come."""
        if plan.spec is not None:
            return self.by_schedule(name, distilled, plan.spec, numbers)
        texts = text_split(distilled)
        return self.by_recipe(name, lambda i: texts, recipe, numbers, soft_labels=distilled.soft_labels)

    def by_schedule(
        self, name: str, distilled: DistilledSet, spec: InnerSpec, numbers: Sequence[int]
    ) -> Iterator[Outcome]:
        """Outcomes of learners trained by the learned step sizes, as they come.

        Args:
          name: for the progress line.
          distilled: see `pipeline.training.learned_arrays`.
          spec: how learners train.
          numbers: of the learners.
        """
        self._check_stop()
        keys = jnp.stack([jax.random.fold_in(self._key, i) for i in numbers])
        if spec not in self._examiners:
            self._examiners[spec] = Examiner(self._problem.pretrained.learner, spec, mesh=self._mesh)
        examiner = self._examiners[spec]
        inputs = (self._problem.base(), learned_arrays(distilled, spec, self._problem))
        whole = None if self._mesh is None else replicated(self._mesh)
        base, arrays = jax.tree.map(jnp.asarray, inputs) if whole is None else jax.device_put(inputs, whole)
        scores = examiner.scores(base, arrays, keys, self._split, shared=False)
        outcomes = (outcome(score, self._problem.data.task.metric) for score in scores)
        yield from self._shown(f"{name}: learners scored on test", numbers, outcomes)

    def by_recipe(
        self,
        name: str,
        texts: Callable[[int], Split],
        recipe: Recipe,
        numbers: Sequence[int],
        *,
        soft_labels: Float[np.ndarray, "n c"] | None = None,
    ) -> Iterator[Outcome]:
        """Outcomes of learners fine-tuned on texts by a fixed recipe, as they come.

        Args:
          name: for the progress line.
          texts: the texts of learner i.
          recipe: see `Recipe`.
          numbers: of the learners.
          soft_labels: targets of the texts in place of their classes.
        """

        def outcomes() -> Iterator[Outcome]:
            for number in numbers:
                encoded = encode(texts(number), self._problem.pretrained.tokenizer, self._longest)
                yield self._fine_tuned(encoded, recipe, number, packed=False, soft_labels=soft_labels)

        yield from self._shown(f"{name}: learners scored on test", numbers, outcomes())

    def full(self, epochs: float, lr: float, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Outcomes of learners fine-tuned on the whole training split, as they come."""
        steps = max(1, round(epochs * len(self._problem.train) / full_data_recipe(1).batch_size))
        recipe = full_data_recipe(steps, lr)
        for number in numbers:
            yield self._fine_tuned(self._problem.train, recipe, number, packed=True)

    def _fine_tuned(
        self,
        encoded: Encoded,
        recipe: Recipe,
        number: int,
        *,
        packed: bool,
        soft_labels: Float[np.ndarray, "n c"] | None = None,
    ) -> Outcome:
        self._check_stop()
        learner = self._fine_tuning_learner(recipe.dropout)
        if recipe not in self._tuners:
            self._tuners[recipe] = FineTuner(learner, recipe)
        refresh_key, rest = jax.random.split(jax.random.fold_in(self._key, number))
        dropout_key, order_key = jax.random.split(rest)
        # As `Problem.base`: one body for everyone, also where it is random, and a head of the learner's own.
        start = learner.refresh(learner.init(jax.random.key(0)), refresh_key)
        packed_batches = TrainBatches(
            encoded,
            batch_size=min(recipe.batch_size, len(encoded)),
            seed=numpy_seed(order_key),
            row_length=self._problem.row_length,
            packed=learner.packs,
            min_length=learner.min_length,
        )

        def padded_batches(step: int) -> Batch:
            # One shape for all small sets, whatever their texts: one compilation.
            indices = packed_batches.indices(step)
            batch = pad(encoded, indices, length=self._longest)
            return batch if soft_labels is None else dataclasses.replace(batch, labels=soft_labels[indices])

        progress = Progress("full data: fine-tuning", recipe.steps) if packed else None

        def on_step(done: int, loss: jax.Array) -> None:
            self._check_stop()
            if progress is not None:
                progress.update(done)

        batches = packed_batches if packed else padded_batches
        try:
            trained = self._tuners[recipe](start, batches, dropout_key, on_step=on_step)
        finally:
            if progress is not None:
                progress.close()
        self._scorer = self._scorer or Scorer(learner)
        return outcome(self._scorer(trained, self._split), self._problem.data.task.metric)

    def _fine_tuning_learner(self, dropout: bool) -> Learner:
        if dropout not in self._learners:
            rate = None if dropout else 0.0
            pretrained = load_learner(
                self._config,
                self._problem.classes,
                self._problem.pretrained.learner.max_length,
                dropout=rate,
                train_words=True,
                words=self._problem.words,
            )
            self._learners[dropout] = pretrained.learner
        return self._learners[dropout]

    def _shown(self, label: str, numbers: Sequence[int], outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """The outcomes, with a progress line for each and a chance to stop between them."""
        first = min(numbers)
        progress = Progress(label, first + len(numbers), start=first)
        scores = []
        try:
            for made in outcomes:
                scores.append(made.score)
                progress.update(first + len(scores), f"mean {100 * np.mean(scores):.2f}")
                yield made
                if len(scores) < len(numbers):
                    self._check_stop()
        finally:
            progress.close()

    def _check_stop(self) -> None:
        if self._stop():
            raise Stopped(f"stopped while evaluating on test of {self._problem.data.task.name}")
