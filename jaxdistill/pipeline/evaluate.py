"""Scores of distilled sets, baselines and the full data on the test split."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.data.batching import TrainBatches
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.metrics import metric_named
from jaxdistill.evaluation.recipes import FineTuner, Recipe, full_data_recipe
from jaxdistill.evaluation.scoring import Scorer, split_batches
from jaxdistill.evaluation.students import Examiner
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem
from jaxdistill.methods.coreset import text_support
from jaxdistill.models.pretrained import Pretrained
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.parallel.mesh import replicated


class Evaluator:
    """Trains fresh learners and scores them on the test split; holds what is compiled once.

    Args:
      problem: data and learner.
      dropping: the learner with its own dropout rates, for fine-tuning recipes.
      key: of all learners; learner i of every set has the key `fold_in(key, i)`, so that scores can be paired.
      mesh: over whose "data" axis the learners of a learned schedule are cut; `None` uses one device.
    """

    def __init__(self, problem: Problem, dropping: Callable[[], Pretrained], key: Key, mesh: Mesh | None = None):
        self._problem, self._key = problem, key
        self._dropping = dropping
        self._split = split_batches(problem.test, row_length=problem.row_length)
        self._scorer = Scorer(problem.pretrained.learner)
        self._metric = metric_named(problem.data.task.metric)
        self._mesh = mesh
        self._tuners: dict[Recipe, FineTuner] = {}

    def by_schedule(self, distilled: DistilledSet, spec: InnerSpec, students: int) -> list[float]:
        """Scores of learners trained by the learned step sizes; fractions."""
        keys = jnp.stack([jax.random.fold_in(self._key, i) for i in range(students)])
        examiner = Examiner(self._problem.pretrained.learner, spec, mesh=self._mesh)
        progress = Progress("learners scored on test", students)
        scores = []
        inputs = (self._problem.base(), learned_arrays(distilled, spec, self._problem))
        place = jnp.asarray if self._mesh is None else lambda x: jax.device_put(x, replicated(self._mesh))
        base, arrays = jax.tree.map(place, inputs)
        for score in examiner.scores(base, arrays, keys, self._split, shared=False):
            scores.append(self._metric(score.confusion))
            progress.update(len(scores), f"mean {100 * np.mean(scores):.2f}")
        progress.close()
        return scores

    def by_recipe(self, name: str, texts: Callable[[int], Split], recipe: Recipe, students: int) -> list[float]:
        """Scores of learners fine-tuned on plain texts by a fixed recipe; fractions.

        Args:
          name: for the progress line.
          texts: the texts of learner i.
          recipe: see `Recipe`.
          students: number of learners.
        """
        progress = Progress(f"{name}: learners scored on test", students)
        scores = []
        for i in range(students):
            encoded = encode(texts(i), self._problem.pretrained.tokenizer, int(self._problem.train.lengths.max()))
            scores.append(self._fine_tuned(encoded, recipe, i, packed=False))
            progress.update(len(scores), f"mean {100 * np.mean(scores):.2f}")
        progress.close()
        return scores

    def full(self, epochs: float, students: int) -> list[float]:
        """Scores of learners fine-tuned on the whole training split."""
        steps = max(1, round(epochs * len(self._problem.train) / full_data_recipe(1).batch_size))
        recipe = full_data_recipe(steps)
        return [self._fine_tuned(self._problem.train, recipe, i, packed=True, report=True) for i in range(students)]

    def _fine_tuned(
        self, encoded: Encoded, recipe: Recipe, number: int, *, packed: bool, report: bool = False
    ) -> float:
        if recipe not in self._tuners:
            learner = self._dropping().learner if recipe.dropout else self._problem.pretrained.learner
            self._tuners[recipe] = FineTuner(learner, recipe)
        key = jax.random.fold_in(self._key, number)
        refresh_key, dropout_key = jax.random.split(key)
        start = self._problem.pretrained.learner.refresh(self._problem.base(), refresh_key)
        packed_batches = TrainBatches(
            encoded,
            batch_size=min(recipe.batch_size, len(encoded)),
            seed=number,
            row_length=self._problem.row_length,
        )

        def padded_batches(step: int) -> Batch:
            # One shape for all small sets, whatever their texts: one compilation.
            return pad(encoded, packed_batches.indices(step), length=self._problem.row_length)

        batches = packed_batches if packed else padded_batches
        progress = Progress("full data: fine-tuning", recipe.steps) if report else None

        def on_step(done: int, loss: jax.Array) -> None:
            if progress is not None:
                progress.update(done)

        trained = self._tuners[recipe](start, batches, dropout_key, on_step=on_step)
        return self._metric(self._scorer(trained, self._split).confusion)


def learned_arrays(distilled: DistilledSet, spec: InnerSpec, problem: Problem) -> tuple[Synthetic, Batch]:
    """(learned arrays, support) of a distilled set, checked against the learner and the task.

    Raises:
      UserError: the set does not fit the learner: width, layers, heads, classes or step sizes.
    """
    synthetic, shape = distilled.synthetic, problem.pretrained.learner.shape
    if synthetic is None or synthetic.raw_lr is None:
        raise UserError("the distilled set holds no learned step sizes: evaluate it by a recipe")
    groups = len(problem.pretrained.learner.group_names)
    expected = {
        "classes": (None if synthetic.labels is None else synthetic.labels.shape[1], shape["classes"]),
        "samples": (len(distilled.labels), spec.samples),
        "width": (None if synthetic.inputs is None else synthetic.inputs.shape[2], shape["width"]),
        "layers": (None if synthetic.attention is None else synthetic.attention.shape[1], shape["layers"]),
        "heads": (None if synthetic.attention is None else synthetic.attention.shape[2], shape["heads"]),
        "step-size groups": (None if synthetic.raw_lr.ndim == 1 else synthetic.raw_lr.shape[1], groups),
    }
    for name, (there, here) in expected.items():
        if there is not None and there != here:
            raise UserError(
                f"the distilled set has {there} {name}, the learner {problem.pretrained.source!r} {here}: "
                "evaluate it with the learner it was made for"
            )
    if distilled.texts is not None:
        split = Split(distilled.texts, np.asarray(distilled.labels, np.int32))
        encoded = encode(split, problem.pretrained.tokenizer, int(problem.train.lengths.max()))
        return synthetic, text_support(encoded)
    hard = np.eye(spec.classes, dtype=np.float32)[distilled.labels]
    return synthetic, Batch(labels=hard if synthetic.labels is None else None)


def text_split(distilled: DistilledSet) -> Split:
    """The texts of a text-level set.

    Raises:
      UserError: the set holds vectors.
    """
    if distilled.texts is None:
        raise UserError("the distilled set holds vectors, not texts: a fine-tuning recipe cannot train on it")
    return Split(distilled.texts, np.asarray(distilled.labels, np.int32))
