"""Fresh learners trained on a distilled set, and their scores on a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from jaxdistill.core.outer import SeedAxis, default_seed_axis, over_seeds
from jaxdistill.core.types import Batch, Key, Learner, PyTree, Synthetic, Variables
from jaxdistill.core.unroll import unroll
from jaxdistill.data.batching import EvalBatches
from jaxdistill.evaluation.scoring import Score, score_batch
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule

Place = Callable[[PyTree], PyTree]  # puts a host pytree on the devices, leading axis over the data axis of a mesh


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
      axis: whether the students of a chunk run one after another or batched; by default by backend.
      chunk: students at a time; by default 1 for `map`, 8 for `vmap`.
      place: puts the keys of a chunk on devices; shards students over a mesh.
    """

    def __init__(
        self,
        learner: Learner,
        spec: InnerSpec,
        *,
        axis: SeedAxis | None = None,
        chunk: int | None = None,
        place: Place = lambda tree: tree,
    ):
        axis = axis or default_seed_axis()
        self.chunk = chunk or (1 if axis == "map" else 8)
        self._place = place
        train = learned_schedule(learner, spec)

        @jax.jit
        def train_many(base, distilled, keys):
            return over_seeds(lambda key: train(base, distilled, key), keys, axis)

        @jax.jit
        def score_many(trainables, frozen, batch):
            def one(trainable):
                return score_batch(learner, Variables(trainable, frozen), batch)

            return over_seeds(one, trainables, axis)

        self._train_many, self._score_many = train_many, score_many

    def scores(
        self, base: Variables, distilled: tuple[Synthetic, Batch], keys: Key, split: EvalBatches, *, shared: bool
    ) -> Iterator[Score]:
        """Score of each student, in the order of `keys`, as they come.

        Args:
          base: variables before `Learner.refresh`.
          distilled: synthetic and its texts, see `objectives.meta_model`.
          keys: one a student.
          split: what to score on.
          shared: each student scores only the batches of its group; otherwise every student scores all.
        """
        count = keys.shape[0]
        for first in range(0, count, self.chunk):
            part = keys[first : first + self.chunk]
            real = part.shape[0]
            if real < self.chunk:  # the last chunk is filled up, so that nothing is compiled anew
                part = jnp.concatenate([part, jnp.repeat(part[-1:], self.chunk - real, axis=0)])
            trainables = self._train_many(base, distilled, self._place(part))
            totals: list[Score | None] = [None] * real
            for batch, group in zip(split.batches, split.groups, strict=True):
                wanted = [i for i in range(real) if not shared or group == first + i]
                if not wanted:
                    continue
                score = self._score_many(trainables, base.frozen, batch)
                for i in wanted:
                    mine = jax.tree.map(lambda x, i=i: x[i], score)
                    totals[i] = mine if totals[i] is None else totals[i] + mine
            for total in totals:
                if total is not None:
                    yield jax.device_get(total)
