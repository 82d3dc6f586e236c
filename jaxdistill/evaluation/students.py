"""Fresh learners trained on a distilled set, and their scores on a split."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdistill.core.outer import SeedAxis, default_seed_axis, over_seeds
from jaxdistill.core.types import Batch, Key, Learner, PyTree, Synthetic, Variables
from jaxdistill.core.unroll import unroll
from jaxdistill.data.batching import EvalBatches
from jaxdistill.evaluation.scoring import Score, score_batch
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule
from jaxdistill.parallel.mesh import replicated, shard_leading


def learned_schedule(learner: Learner, spec: InnerSpec) -> Callable[[Variables, tuple[Synthetic, Batch], Key], PyTree]:
    """Training by the learned step sizes: the inner loop of the distillation, run forward.

    Returns:
      `train(base, (synthetic, support), key) -> trainable` parameters of a fresh learner; pure.
    """
    inner = make_inner(learner, spec)

    def train(base: Variables, distilled: tuple[Synthetic, Batch], key: Key) -> PyTree:
        refresh_key, order_key = jax.random.split(key)
        start = learner.refresh(base, refresh_key)
        schedule = make_schedule(spec, *distilled, start.frozen, order_key)
        return unroll(inner, start.trainable, schedule)

    return train


class Examiner:
    """Trains students by the learned schedule and scores them, a few at a time.

    One object holds the compiled programs of one (learner, spec, shape of batches); distilled sets, keys and batches
    are arguments.

    Args:
      learner: see `Learner`.
      spec: how students train.
      mesh: students are cut over its "data" axis; `None` uses one device.
      axis: whether the students of a chunk run one after another or batched; by default batched on a mesh and on
        accelerators.
      chunk: students at a time; by default 1 for `map`, 8 for `vmap`. On a mesh, rounded up to fill its "data" axis.
    """

    def __init__(
        self,
        learner: Learner,
        spec: InnerSpec,
        *,
        mesh: Mesh | None = None,
        axis: SeedAxis | None = None,
        chunk: int | None = None,
    ):
        axis = axis or (default_seed_axis() if mesh is None else "vmap")
        devices = 1 if mesh is None else mesh.shape["data"]
        self.chunk = -(-(chunk or (1 if axis == "map" else 8)) // devices) * devices
        self._mesh = mesh
        train = learned_schedule(learner, spec)
        # Scores are read on the host, so each process has to hold them whole.
        whole = None if mesh is None else replicated(mesh)

        @jax.jit
        def train_many(base, distilled, keys):
            return over_seeds(lambda key: train(base, distilled, key), keys, axis)

        @functools.partial(jax.jit, out_shardings=whole)
        def score_same(trainables, frozen, batch):
            def one(trainable):
                return score_batch(learner, Variables(trainable, frozen), batch)

            return over_seeds(one, trainables, axis)

        @functools.partial(jax.jit, out_shardings=whole)
        def score_own(trainables, frozen, batches):
            def one(pair):
                return score_batch(learner, Variables(pair[0], frozen), pair[1])

            return over_seeds(one, (trainables, batches), axis)

        self._train_many, self._score_same, self._score_own = train_many, score_same, score_own

    def scores(
        self, base: Variables, distilled: tuple[Synthetic, Batch], keys: Key, split: EvalBatches, *, shared: bool
    ) -> Iterator[Score]:
        """Score of each student, in the order of `keys`, as they come.

        Args:
          base: variables before `Learner.refresh`; on a mesh, replicated over it.
          distilled: synthetic and its texts, see `objectives.meta_model`; likewise.
          keys: one a student.
          split: what to score on.
          shared: student i scores only the batches of group i; otherwise every student scores all.
        """
        count = keys.shape[0]
        for first in range(0, count, self.chunk):
            part = keys[first : first + self.chunk]
            real = part.shape[0]
            if real < self.chunk:  # the last chunk is filled up, so that nothing is compiled anew
                part = jnp.concatenate([part, jnp.repeat(part[-1:], self.chunk - real, axis=0)])
            trainables = self._settled(self._train_many(base, distilled, self._cut(part)))
            if shared:
                groups = [_of_group(split, first + i) for i in range(self.chunk)]
                own = [jax.tree.map(lambda *leaves: np.stack(leaves), *batches) for batches in _aligned(groups)]
                scores = [
                    self._settled(self._score_own(trainables, base.frozen, self._cut(batches))) for batches in own
                ]
            else:
                scores = [self._settled(self._score_same(trainables, base.frozen, batch)) for batch in split.batches]
            total = functools.reduce(Score.__add__, jax.device_get(scores))
            for i in range(real):
                yield jax.tree.map(lambda x, i=i: x[i], total)

    def _cut(self, tree: PyTree) -> PyTree:
        return tree if self._mesh is None else shard_leading(self._mesh, tree)

    def _settled(self, tree: PyTree) -> PyTree:
        """On a mesh, wait for a program before the next is sent: on CPU, several in flight whose devices wait for each
        other can hold all threads, and then wait for ever."""
        return tree if self._mesh is None else jax.block_until_ready(tree)


def _of_group(split: EvalBatches, number: int) -> list[Batch]:
    return [batch for batch, group in zip(split.batches, split.groups, strict=True) if group == number]


def _aligned(groups: list[list[Batch]]) -> Iterator[list[Batch]]:
    """The k-th batch of every group, for each k; where a group has no more, one that counts for nothing."""
    some = next(batches[0] for batches in groups if batches)
    blank = dataclasses.replace(some, weights=np.zeros_like(some.weights))
    return (list(row) for row in itertools.zip_longest(*groups, fillvalue=blank))
