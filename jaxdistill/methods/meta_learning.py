"""Learning a `Synthetic` by an outer loop: settings, optimiser, selection; shared by all methods that do so."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxdistill.core import adjoints, tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import Update, init_outer, make_update, warmup_schedule
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Learner, Objective, PyTree, Synthetic
from jaxdistill.data.batching import TrainBatches
from jaxdistill.evaluation.cost import CostRecord, matmul_flops, peak_memory_bytes
from jaxdistill.evaluation.fairness import gap
from jaxdistill.evaluation.metrics import metric_named, percent
from jaxdistill.evaluation.scoring import Score, split_batches
from jaxdistill.evaluation.students import Examiner
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Problem, Run, manifest
from jaxdistill.methods.loop import Fitted, fit
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import raw_step_sizes
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
from jaxdistill.parallel.mesh import replicated, shard_batch

LrPer = Literal["set", "step", "layer"]
# Outer steps from which less padding pays for the compilation of one more shape of real batches.
LONG_RUN = 500
# Inner steps from which it does not: real batches are a small part of the work then (3 % more of it with MiniLM and 16
# inner steps), and another program takes a minute to compile and 200 MB to keep.
LONG_LOOP = 8


def check_lr_per(value: str) -> None:
    """Raise `UserError` unless `value` is one of `LrPer`."""
    if value not in get_args(LrPer):
        raise UserError(f"unknown lr_per {value!r}: give one of {', '.join(get_args(LrPer))}")


@dataclasses.dataclass(frozen=True)
class Outer:
    """Settings of the outer loop.

    Attributes:
      updates: outer steps.
      batch_size: real examples a step (and fresh learner).
      lr: peak learning rate of AdamW.
      input_lr, label_lr, attention_lr, step_size_lr: factors on it for each part of what is learned.
      schedule: "linear" warms up and decays linearly to 0; "steps" multiplies by `decay_factor` after every
        `decay_every` updates.
      warmup: share of the updates spent warming up under "linear".
      decay_every, decay_factor: of "steps".
      decay_ahead: updates by which "steps" runs ahead; published code that steps its schedule before an epoch is one
        epoch ahead.
      beta1: of Adam.
      first_update_is_zero: warm-up from factor 0 rather than 1/W.
      clip: largest global norm of the meta-gradient over all learned parts together; 0 for none.
      clip_average: when above 0, `clip` is instead a factor on the moving average of that norm, and this is the decay
        of the average (RaT-BPTT, Feng et al. 2023).
      decay_labels, decay_step_sizes: decoupled weight decay.
      inits: fresh learners averaged in each outer step.
      adjoint: how the inner loop is differentiated: mixed, nested(k), truncated(w), ... (`core.adjoints`).
      selections: how often the distilled set is scored on dev; the best is kept.
      packed: several short real texts in a row.
    """

    updates: int = 1000
    batch_size: int = 32
    lr: float = 1e-2
    input_lr: float = 2.0
    label_lr: float = 5.0
    attention_lr: float = 2.0
    step_size_lr: float = 5.0
    schedule: Literal["linear", "steps"] = "linear"
    warmup: float = 0.1
    decay_every: int = 100
    decay_factor: float = 0.5
    decay_ahead: int = 0
    beta1: float = 0.9
    first_update_is_zero: bool = False
    clip: float = 1.0
    clip_average: float = 0.0
    decay_labels: float = 0.0
    decay_step_sizes: float = 0.0
    inits: int = 1
    adjoint: str = "mixed"
    selections: int = 5
    packed: bool = True

    def __post_init__(self):
        adjoints.parse(self.adjoint)
        if self.schedule not in ("linear", "steps"):
            raise UserError(f"outer.schedule is {self.schedule!r}: give linear or steps")
        if self.decay_ahead < 0:
            raise UserError(f"outer.decay_ahead is {self.decay_ahead}: accepted is a number of updates from 0")
        if not 0.0 < self.decay_factor <= 1.0:
            raise UserError(f"outer.decay_factor is {self.decay_factor}: accepted is a factor in (0, 1]")
        for field in ("updates", "batch_size", "inits", "selections", "decay_every"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"outer.{field} is {value}: it must be at least 1")
        if not 0.0 < self.lr < float("inf"):
            raise UserError(f"outer.lr is {self.lr}: accepted is a number above 0")
        for field in (
            "clip",
            "input_lr",
            "label_lr",
            "attention_lr",
            "step_size_lr",
            "decay_labels",
            "decay_step_sizes",
        ):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"outer.{field} is {value}: accepted is a number from 0")
        for field in ("warmup", "clip_average", "beta1"):
            if not 0.0 <= (value := getattr(self, field)) < 1.0:
                raise UserError(f"outer.{field} is {value}: accepted is a share in [0, 1)")

    @property
    def select_at(self) -> tuple[int, ...]:
        """Numbers of outer steps after which the set is scored, evenly spaced; the last is `updates`."""
        count = min(self.selections, self.updates)
        return tuple(round(self.updates * (i + 1) / count) for i in range(count))

    def optimizer(self) -> optax.GradientTransformation:
        """Clip, Adam, decoupled decay, factors, schedule; what `core.outer` skips does not advance the schedule."""

        def by_field(inputs: float, labels: float, attention: float, raw_lr: float) -> Synthetic:
            return Synthetic(inputs=inputs, labels=labels, attention=attention, raw_lr=raw_lr)

        factors = by_field(self.input_lr, self.label_lr, self.attention_lr, self.step_size_lr)
        decays = by_field(0.0, self.decay_labels, 0.0, self.decay_step_sizes)

        def scale(updates, params=None):
            return _map_fields(lambda u, f: f * u, updates, factors)

        def decay(updates, params):
            decayed = _map_fields(lambda p, d: d * p, params, decays)
            return jax.tree.map(jnp.add, updates, decayed)

        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        if self.clip and self.clip_average:
            clip = clip_by_average_norm(self.clip, self.clip_average)
        return optax.chain(
            clip,
            optax.scale_by_adam(b1=self.beta1),
            optax.stateless(decay),
            optax.stateless(scale),
            optax.scale_by_learning_rate(self.learning_rate()),
        )

    def learning_rate(self) -> optax.Schedule:
        """Learning rate of each update."""
        if self.schedule == "linear":
            return warmup_schedule(self.lr, self.updates, self.warmup, first_is_zero=self.first_update_is_zero)
        falling = optax.exponential_decay(self.lr, self.decay_every, self.decay_factor, staircase=True)
        return lambda count: falling(count + self.decay_ahead)


class AverageNorm(NamedTuple):
    """State of `clip_by_average_norm`: a moving average, and how many norms it is made of."""

    average: Array
    count: Array


def clip_by_average_norm(factor: float, decay: float) -> optax.GradientTransformation:
    """Clip the global norm at `factor` times the moving average of the (clipped) norms before; the first passes."""

    def init(params):
        return AverageNorm(jnp.zeros(()), jnp.zeros(()))

    def update(updates, state, params=None):
        norm = optax.tree.norm(updates)
        bound = factor * state.average / jnp.maximum(1.0 - decay**state.count, 1e-6)
        kept = jnp.where(state.count > 0, jnp.minimum(norm, bound), norm)
        scale = kept / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
        average = decay * state.average + (1.0 - decay) * kept
        return jax.tree.map(lambda u: u * scale, updates), AverageNorm(average, state.count + 1.0)

    return optax.GradientTransformation(init, update)


def _map_fields(function, synthetic: Synthetic, settings: Synthetic) -> Synthetic:
    """`function(array, setting)` for each present field."""
    fields = {f.name: getattr(synthetic, f.name) for f in dataclasses.fields(synthetic)}
    return Synthetic(**{k: None if x is None else function(x, getattr(settings, k)) for k, x in fields.items()})


def initial_step_sizes(lr: float, lr_per: LrPer, steps: int, learner: Learner) -> np.ndarray:
    """Raw step sizes: one for all (`set`), one a step, or one a step and layer group.

    Raises:
      UserError: `lr` is not above 0.
    """
    if not 0.0 < lr < float("inf"):
        raise UserError(f"initial_lr is {lr}: a step size must be above 0")
    shape = {"set": (1,), "step": (steps,), "layer": (steps, len(learner.group_names))}[lr_per]
    return raw_step_sizes(lr, shape)


@dataclasses.dataclass(frozen=True)
class Match:
    """What an outer loop descends.

    Attributes:
      objective: see `core.types.Objective`.
      state: of the objective, before the first outer step.
      constants: makes the objective's constants of those of `meta_model`.
      batch: makes what stands for a real batch at an outer step of its number and of the function that gives it.
      select_by, select: name and value, higher is better, of what distilled sets are chosen by on dev; by default the
        task's metric.
      compared: under an approximate adjoint, the part of the objective that depends on it, under this one and under
        an exact one: the cosine of the two gradients, always at the same learner and batch, is logged with each
        selection.
      privacy: what the manifest says of it, where the match reads training texts in a private way alone.
    """

    objective: Objective
    state: PyTree = ()
    constants: Callable[[MetaModelConstants], PyTree] = lambda constants: constants
    batch: Callable[[int, Callable[[], Batch]], PyTree] = lambda step, real: real()
    select_by: str = ""
    select: Callable[[Score], float] | None = None
    compared: tuple[Objective, Objective] | None = None
    privacy: dict[str, Any] | None = None


def meta_model_match(learner: Learner, spec: InnerSpec, outer: Outer) -> Match:
    """Meta-model matching by the adjoint of the settings."""
    adjoint = adjoints.parse(outer.adjoint)
    objective = meta_model(learner, spec, adjoint)
    # Nested, not mixed: who approximates the gradient may not have the memory for that of mixed.
    exact = meta_model(learner, spec, adjoints.nested())
    return Match(objective, compared=(objective, exact) if adjoint.approximate else None)


def gradient_cosine(one: Objective, other: Objective) -> Callable[..., Array]:
    """`cosine(synthetic, state, constants, real_batch, key)` of the gradients of two objectives."""

    def cosine(synthetic: Synthetic, *arguments: PyTree) -> Array:
        a, b = (jax.grad(lambda s, o=objective: o(s, *arguments)[0])(synthetic) for objective in (one, other))
        scale = optax.tree.norm(a) * optax.tree.norm(b)
        return tree.dot(a, b) / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny)

    return cosine


def learn(
    problem: Problem,
    synthetic: Synthetic,
    support: Batch,
    spec: InnerSpec,
    outer: Outer,
    *,
    match: Match | None = None,
    key: Key,
    run: Run,
) -> Fitted:
    """Descend an objective from `synthetic` and keep the set that does best on dev.

    Args:
      problem: data and learner.
      synthetic: initial values; what is `None` is not learned.
      support: texts and constant labels of the set, see `objectives.inner_problem.make_schedule`.
      spec: the inner problem.
      outer: settings.
      match: what is descended; `meta_model_match` by default.
      key: randomness of learners (outer steps and selection).
      run: side effects.
    """
    learner = problem.pretrained.learner
    match = match or meta_model_match(learner, spec, outer)
    step_key, select_key, order_key = jax.random.split(key, 3)
    mesh = run.mesh
    batches = TrainBatches(
        problem.train,
        batch_size=outer.batch_size,
        seed=numpy_seed(order_key),
        row_length=problem.row_length,
        packed=outer.packed and learner.packs,
        min_length=learner.min_length,
        rows_multiple_of=1 if mesh is None else mesh.shape["data"],
        usual_shapes=usual_shapes(outer.updates, spec.steps),
    )
    # Without a mesh host arrays still become device arrays: what comes out of a checkpoint is numpy.
    whole = None if mesh is None else replicated(mesh)
    place = functools.partial(jax.tree.map, jnp.asarray if whole is None else lambda x: jax.device_put(x, whole))
    put_batch = (lambda batch: batch) if mesh is None else functools.partial(shard_batch, mesh)
    constants = place(MetaModelConstants(problem.base(), support))
    read = match.constants(constants)
    step = jax.jit(outer_step(match, outer), donate_argnums=0, out_shardings=whole)
    state = place(init_outer(jax.tree.map(jnp.asarray, synthetic), outer.optimizer(), match.state))

    def batch(number: int) -> PyTree:
        return match.batch(number, lambda: put_batch(batches(number)))

    flops = matmul_flops(step, state, read, batch(0), step_key)

    protocol = run.protocol
    encoded = problem.dev if protocol.select_on == "dev" else problem.test
    parts = [np.arange(len(encoded))[part] for part in protocol.selection_slices(len(encoded))]
    split = split_batches(encoded, learner, row_length=problem.row_length, groups=parts)
    examiner = Examiner(learner, spec, mesh=mesh)
    keys = jax.random.split(select_key, len(parts))
    metric = metric_named(problem.data.task.metric)

    cosine = None if match.compared is None else jax.jit(gradient_cosine(*match.compared))
    # Copies: the buffers of the state are donated to the first step.
    compared_at = jax.tree.map(jnp.copy, match.state) if cosine is not None else None

    def select(synthetic: Synthetic) -> tuple[float, dict[str, float]]:
        scores = examiner.scores(constants.base, (synthetic, constants.support), keys, split, shared=True)
        total = functools.reduce(Score.__add__, scores)
        value = metric(total.confusion)
        shown = {f"{protocol.select_on}_{problem.data.task.metric}": percent(value)}
        shown[f"{protocol.select_on}_loss"] = total.loss
        if cosine is not None:
            shown["adjoint_cosine"] = float(cosine(synthetic, compared_at, read, batch(0), step_key))
        if total.by_group is not None:
            shown[f"{protocol.select_on}_gap"] = percent(gap(total.by_group))
        if not np.isfinite(total.loss):
            return -np.inf, shown
        if match.select is not None and protocol.select_by == "metric":
            return match.select(total), shown
        return (value if protocol.select_by == "metric" else -total.loss), shown

    # The published protocol also looks at the set before the first step.
    before = (0,) if protocol.select_on == "test" else ()
    fitted = fit(
        step,
        state,
        read,
        batch,
        updates=outer.updates,
        select=select,
        select_at=before + outer.select_at,
        key=step_key,
        run=run,
        place=place,
    )
    by = match.select_by if match.select is not None and protocol.select_by == "metric" else protocol.select_by
    return fitted._replace(flops=flops * outer.updates, by=by)


def usual_shapes(updates: int, steps: int) -> int:
    """How many usual shapes of real batches a run of `updates` outer steps with `steps` inner steps should have."""
    if steps >= LONG_LOOP:
        return 0
    return 2 if updates >= LONG_RUN else 1


def outer_step(match: Match, outer: Outer) -> Update:
    """The outer update that `learn` runs: objective, and optimiser of the settings."""
    return make_update(match.objective, outer.optimizer(), inits=outer.inits)


def finish(
    result: DistilledSet, method: str, config: Any, problem: Problem, key: Key, fitted: Fitted, outer: Outer, run: Run
) -> DistilledSet:
    """The learned set with its manifest: settings, selection and cost."""
    cost = CostRecord(
        distill_seconds=fitted.seconds,
        seconds_per_outer_step=fitted.seconds_per_step,
        flops=fitted.flops,
        peak_bytes=peak_memory_bytes(),
        real_examples=outer.updates * outer.batch_size,
        distilled_bytes=result.size_in_bytes,
    )
    facts = manifest(method, config, problem, key, cost.to_json())
    facts["selection"] = {
        "protocol": run.protocol.name,
        "split": run.protocol.select_on,
        "by": fitted.by,
        "step": fitted.step,
        "score": fitted.score,
        "scores": fitted.selections,
        "skipped_updates": fitted.skipped,
    }
    return dataclasses.replace(result, manifest=facts)
