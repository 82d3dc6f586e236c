"""Fresh learners fine-tuned by a recipe: on a few texts, or on a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Learner, Variables
from jaxdistill.data.batching import TrainBatches
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import pad
from jaxdistill.evaluation.recipes import FineTuner, Recipe, Step

OnStep = Callable[[Step, Int[np.ndarray, " n"]], None]


def _ignore(step: Step, indices: Int[np.ndarray, " n"]) -> None:
    pass


class Trainer:
    """Fine-tunes fresh learners; one object holds the compiled updates of one kind of learner.

    The key of a training decides its head, its dropout and the order of its examples.

    Args:
      learner_of: `learner_of(dropout)` is the learner, with the model's own dropout rates or with none. Of encoders it
        trains the word table too, where everything is trained.
      row_length: positions of a packed row.
      length: positions that hold any text; see `on_texts`.
    """

    def __init__(self, learner_of: Callable[[bool], Learner], *, row_length: int, length: int):
        self._learner_of, self._row_length, self._length = learner_of, row_length, length
        self._tuners: dict[Recipe, FineTuner] = {}

    def learner(self, recipe: Recipe) -> Learner:
        """The learner that trains by a recipe."""
        return self._learner_of(recipe.dropout)

    def start(self, recipe: Recipe, key: Key) -> Variables:
        """What a training under that key begins with: one body for everyone, also where it is random, and a head (of
        small networks: everything) of the learner's own."""
        learner = self.learner(recipe)
        refresh_key, _ = jax.random.split(key)
        return learner.refresh(learner.init(jax.random.key(0)), refresh_key)

    def on_texts(
        self,
        encoded: Encoded,
        recipe: Recipe,
        key: Key,
        *,
        soft_labels: Float[np.ndarray, "n c"] | None = None,
        on_step: OnStep = _ignore,
    ) -> Variables:
        """Train on a few texts, one a row, all sets of them in batches of one shape: one compilation.

        Args:
          encoded: the texts.
          recipe: see `Recipe`.
          key: see above.
          soft_labels: targets in place of the classes.
          on_step: told of every step, and which texts it read.
        """

        def batch(batches: TrainBatches, step: int) -> Batch:
            indices = batches.indices(step)
            padded = pad(encoded, indices, length=self._length)
            return padded if soft_labels is None else dataclasses.replace(padded, labels=soft_labels[indices])

        return self._train(encoded, np.arange(len(encoded)), recipe, key, batch, on_step)

    def on_split(
        self,
        encoded: Encoded,
        recipe: Recipe,
        key: Key,
        *,
        members: Int[np.ndarray, " m"] | None = None,
        on_step: OnStep = _ignore,
    ) -> Variables:
        """Train on real data, packed where the learner allows.

        Args:
          encoded: a split.
          recipe: see `Recipe`.
          key: see above.
          members: the examples to train on; by default all.
          on_step: told of every step, and which examples of the split it read.
        """
        members = np.arange(len(encoded)) if members is None else members
        return self._train(encoded, members, recipe, key, lambda batches, step: batches(step), on_step)

    def _train(
        self,
        encoded: Encoded,
        members: Int[np.ndarray, " m"],
        recipe: Recipe,
        key: Key,
        batch: Callable[[TrainBatches, int], Batch],
        on_step: OnStep,
    ) -> Variables:
        learner = self.learner(recipe)
        if recipe not in self._tuners:
            self._tuners[recipe] = FineTuner(learner, recipe)
        _, rest = jax.random.split(key)
        dropout_key, order_key = jax.random.split(rest)
        batches = TrainBatches(
            encoded,
            batch_size=min(recipe.batch_size, len(members)),
            seed=numpy_seed(order_key),
            row_length=self._row_length,
            packed=learner.packs,
            min_length=learner.min_length,
            indices=members,
        )
        return self._tuners[recipe](
            self.start(recipe, key),
            lambda step: batch(batches, step),
            dropout_key,
            on_step=lambda step: on_step(step, batches.indices(step.done - 1)),
        )
