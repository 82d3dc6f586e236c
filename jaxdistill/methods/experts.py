"""Experts: learners trained on real data, and the segments of their training that trajectories are matched to."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.outer import SeedAxis, apply_optimizer, default_seed_axis, over_seeds
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Learner, PyTree, Variables
from jaxdistill.data.batching import TrainBatches
from jaxdistill.io.plain import plain
from jaxdistill.io.progress import Progress
from jaxdistill.io.trajectories import Trajectory, open_trajectory, save_trajectory
from jaxdistill.methods.base import Problem, Run, Stopped
from jaxdistill.objectives.fairness import even_groups
from jaxdistill.objectives.private import NoisySums, as_params, example_gradients
from jaxdistill.objectives.trajectory import Segment

# Steps sent to the device at once: enough to hide the sending, few enough to stop soon.
_CHUNK = 10


@dataclasses.dataclass(frozen=True)
class Experts:
    """Settings.

    Attributes:
      count: learners trained.
      epoch_steps: updates an epoch; 0 for one pass over the training split.
      span: epochs of a segment.
      latest_start: the last epoch at which a segment may start; starts are 0, span, 2 span, ...
      optimizer, lr: of their training, at a constant rate.
      batch_size: real examples an update.
    """

    count: int = 4
    epoch_steps: int = 50
    span: int = 2
    latest_start: int = 4
    optimizer: Literal["sgd", "adam"] = "adam"
    lr: float = 1e-4
    batch_size: int = 32

    def __post_init__(self):
        for field, least in {"count": 1, "epoch_steps": 0, "span": 1, "latest_start": 0, "batch_size": 1}.items():
            if (value := getattr(self, field)) < least:
                raise UserError(f"experts.{field} is {value}: it must be at least {least}")
        if self.optimizer not in ("sgd", "adam"):
            raise UserError(f"experts.optimizer is {self.optimizer!r}: give sgd or adam")
        if not 0.0 < self.lr < float("inf"):
            raise UserError(f"experts.lr is {self.lr}: accepted is a number above 0")

    @property
    def starts(self) -> tuple[int, ...]:
        """Epochs at which a segment may start."""
        return tuple(range(0, self.latest_start + 1, self.span))

    @property
    def kept(self) -> tuple[int, ...]:
        """Epochs whose parameters are read, the start of training excepted: it is drawn again."""
        return tuple(start + self.span for start in self.starts)

    def transformation(self) -> optax.GradientTransformation:
        return optax.sgd(self.lr) if self.optimizer == "sgd" else optax.adam(self.lr)


class PrivateSteps(NamedTuple):
    """How experts are trained where nothing may be told of a training text: by DP-SGD (Abadi et al. 2016).

    Attributes:
      sums: noisy sums of clipped gradients.
      batches: of a step, counted over all experts one after another.
      expected: texts in a sum on average, a public number.
      epoch: updates.
    """

    sums: NoisySums
    batches: Callable[[int], Any]
    expected: float
    epoch: int


class Library:
    """The trained experts.

    Args:
      trajectories: of each expert.
      begin: `begin(i)` is the start of expert i's training.
      starts, span: see `Experts`.
      seed: of the segments drawn.
      temporary: the folder that holds the files, where no run folder does.
    """

    def __init__(
        self,
        trajectories: list[Trajectory],
        begin: Callable[[int], PyTree],
        starts: tuple[int, ...],
        span: int,
        seed: int,
        temporary: tempfile.TemporaryDirectory | None = None,
    ):
        self._temporary = temporary  # it goes when the library does
        self._trajectories, self._begin, self._starts, self._span, self._seed = trajectories, begin, starts, span, seed

    def segment(self, step: int) -> Segment:
        """The segment of an outer step: a pure function of (seed, step)."""
        rng = np.random.default_rng([self._seed, step])
        expert = int(rng.integers(len(self._trajectories)))
        start = self._starts[rng.integers(len(self._starts))]
        return Segment(self.params(expert, start), self.params(expert, start + self._span))

    def params(self, expert: int, epoch: int) -> PyTree:
        """Trainable parameters of an expert after an epoch."""
        begin = self._begin(expert)
        if epoch == 0:
            return begin
        return jax.tree.map(lambda b, d: np.asarray(b) + d, begin, self._trajectories[expert].difference(epoch))


def train_experts(
    config: Experts,
    problem: Problem,
    *,
    key: Key,
    run: Run,
    axis: SeedAxis | None = None,
    groupwise: bool = False,
    private: PrivateSteps | None = None,
) -> Library:
    """Train experts, or find them in the run folder; a training that was interrupted goes on with its next expert.

    Args:
      config: settings.
      problem: data and learner.
      key: all randomness.
      run: its folder keeps them (a temporary one serves where there is none), its signal stops.
      axis: train them one after another, or a few at once; by backend.
      groupwise: in each update the groups of a class weigh alike, see `objectives.fairness.even_groups`.
      private: train by it, and show no losses.

    Raises:
      UserError: a file of an expert is damaged, or holds another one; an expert diverged; there are several processes.
      Stopped: the run was asked to stop.
    """
    axis = axis or default_seed_axis()
    learner, base = problem.pretrained.learner, problem.base()
    head_key, data_key, segment_key = jax.random.split(key, 3)
    if jax.process_count() > 1:
        raise UserError("experts are trained by one process: match trajectories without launching several")
    temporary = None
    if run.folder is not None:
        folder = run.folder / "experts"
    else:
        temporary = tempfile.TemporaryDirectory(prefix="jaxdistill_experts_")
        folder = Path(temporary.name)
    facts = {
        "experts": plain(config),
        "learner": problem.pretrained.source,
        "source_hash": problem.data.source_hash,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "groupwise": groupwise,
        "private": None if private is None else [private.expected, private.epoch],
    }

    @jax.jit
    def begin(number: int | jax.Array) -> PyTree:
        return learner.refresh(base, jax.random.fold_in(head_key, number)).trainable

    paths = [folder / f"expert_{number:03d}" for number in range(config.count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    if missing:
        at_once = 1 if axis == "map" else 8
        weigh = even_groups if groupwise else None
        sums = None if private is None else private.sums
        expected = 1.0 if private is None else private.expected
        advance = _advance(learner, config.transformation(), axis, weigh, sums, expected)
        _train(config, problem, missing, at_once, advance, begin, data_key, paths, facts, run, private)
    trajectories = [open_trajectory(path, base.trainable, facts) for path in paths]
    return Library(trajectories, begin, config.starts, config.span, numpy_seed(segment_key), temporary)


def _train(
    config: Experts,
    problem: Problem,
    numbers: list[int],
    at_once: int,
    advance: Callable,
    begin: Callable[[int], PyTree],
    data_key: Key,
    paths: list[Path],
    facts: dict,
    run: Run,
    private: PrivateSteps | None,
) -> None:
    """Train the experts with these numbers and write them, `at_once` at a time."""
    frozen, optimizer = problem.base().frozen, config.transformation()
    steps = config.epoch_steps or max(1, len(problem.train) // config.batch_size)
    if private is not None:
        steps = private.epoch
    last = config.kept[-1]
    progress = Progress("experts: epochs", last * len(numbers))
    done = 0
    try:
        for first in range(0, len(numbers), at_once):
            group = numbers[first : first + at_once]
            if private is None:
                streams = [_stream(config, problem, jax.random.fold_in(data_key, number)) for number in group]
            else:
                streams = [_private_stream(private, number * last * steps) for number in group]
            starts = [begin(number) for number in group]
            params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
            state = jax.vmap(optimizer.init)(params)
            kept: list[tuple[int, PyTree]] = []
            for epoch in range(1, last + 1):
                loss = jnp.nan
                for at in range((epoch - 1) * steps, epoch * steps, _CHUNK):
                    if run.stop():
                        raise Stopped(f"stopped while training experts, {first} of {len(numbers)} done")
                    size = min(_CHUNK, epoch * steps - at)
                    batches = _stack([_stack([stream(at + k) for k in range(size)]) for stream in streams])
                    params, state, losses = advance(params, state, frozen, batches)
                    loss = float(jnp.mean(losses))
                done += len(group)
                progress.update(done, f"loss {loss:.3f}" if private is None else "")
                if not (np.isfinite(loss) if private is None else bool(tree.all_finite(params))):
                    raise UserError(f"an expert diverged in epoch {epoch}: lower experts.lr, now {config.lr}")
                if epoch in config.kept:
                    kept.append((epoch, jax.device_get(params)))
            for place, number in enumerate(group):
                own = [(epoch, jax.tree.map(lambda x, i=place: x[i], params)) for epoch, params in kept]
                save_trajectory(paths[number], jax.device_get(starts[place]), own, facts)
    finally:
        progress.close()


def _stream(config: Experts, problem: Problem, key: Key) -> TrainBatches:
    """Real batches of one expert, all of one shape, so that steps and experts stack."""
    learner = problem.pretrained.learner
    return TrainBatches(
        problem.train,
        batch_size=config.batch_size,
        seed=numpy_seed(key),
        row_length=problem.row_length,
        packed=learner.packs,
        min_length=learner.min_length,
        usual_shapes=0,
    )


def _private_stream(private: PrivateSteps, begin: int) -> Callable[[int], Any]:
    return lambda step: private.batches(begin + step)


def _stack(trees: list[PyTree]) -> PyTree:
    # Keys, of private batches, are no host arrays.
    return jax.tree.map(lambda *leaves: (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves), *trees)


def _advance(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    axis: SeedAxis,
    weigh: Callable[[Batch], Batch] | None,
    sums: NoisySums | None,
    expected: float,
):
    """A few updates of several experts, one program; with `sums` by DP-SGD, and the losses are 0."""

    def noisy_step(params: PyTree, frozen: PyTree, batch: Any) -> tuple[jax.Array, PyTree]:
        assert sums is not None
        total = sums(example_gradients(learner, frozen, params), batch, by_class=False)
        return jnp.zeros(()), jax.tree.map(lambda x: x[0], as_params(total / expected, params))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def advance(params: PyTree, state: PyTree, frozen: PyTree, batches: PyTree):
        def one(expert: tuple[PyTree, PyTree, PyTree]):
            def step(carry: tuple[PyTree, PyTree], batch: Any):
                batch = batch if weigh is None else weigh(batch)

                def loss_of(p: PyTree) -> jax.Array:
                    logits = learner.apply(Variables(p, frozen), batch).logits
                    return cross_entropy(logits, batch.labels, batch.weights)

                if sums is None:
                    loss, gradients = jax.value_and_grad(loss_of)(carry[0])
                else:
                    loss, gradients = noisy_step(carry[0], frozen, batch)
                return apply_optimizer(optimizer, gradients, carry[1], carry[0]), loss

            carry, losses = jax.lax.scan(step, expert[:2], expert[2])
            return *carry, losses

        return over_seeds(one, (params, state, batches), axis)

    return advance
