"""Gradient matching: a step on the distilled set should point where a step on real data points.

Source: Zhao, Mopuri & Bilen 2021 (dataset condensation); for a linear head in closed form, GRADMM (Nguyen et al. 2025).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.inner import Inner, Schedule, inner_gradient
from jaxdistill.core.losses import cross_entropy, example_cross_entropy, weighted_mean
from jaxdistill.core.types import Batch, Key, Learner, Objective, PyTree, Synthetic, Variables, pytree
from jaxdistill.core.unroll import unroll
from jaxdistill.objectives.distances import TREE_DISTANCES, TreeDistance, tree_distance
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule, with_inputs
from jaxdistill.objectives.private import NoisySums, as_params, example_gradients

Advance = Literal["none", "synthetic", "real"]


@dataclasses.dataclass(frozen=True)
class GradientMatching:
    """What is matched, and where.

    Attributes:
      distance: see `objectives.distances.tree_distance`.
      parameters: of the learner, whose gradients are compared: "all"; "head", the linear classifier; "last_k:2", the
        head and the two layer groups below it.
      closed_form: take the gradient of a linear head from its formula, which needs no second derivative; otherwise by
        differentiation, as that of other parameters. The same numbers.
      per_class: compare the gradients of each class and average; otherwise those of all classes together, in which
        each class weighs the same on the real side, as in the set. Within a class most of a gradient is what all texts
        have in common; together that cancels out, and what tells the classes apart is left.
      advance: what the learner trains on between two matches: "none" takes a fresh learner each time; "synthetic"
        trains it by the distilled set's own schedule; "real" by one step on the real batch.
      advance_lr: step size on real batches.
      restart: matches after which the learner is drawn anew.
    """

    distance: TreeDistance = "cosine_layer"
    parameters: str = "all"
    closed_form: bool = True
    per_class: bool = True
    advance: Advance = "synthetic"
    advance_lr: float = 0.01
    restart: int = 10

    def __post_init__(self):
        if self.distance not in TREE_DISTANCES:
            raise UserError(f"unknown distance {self.distance!r}: give one of {', '.join(TREE_DISTANCES)}")
        if not re.fullmatch(r"all|head|last_k:[1-9]\d*", self.parameters):
            raise UserError(f"unknown parameters {self.parameters!r} to match: give all, head or last_k:K")
        if self.advance not in get_args(Advance):
            raise UserError(f"unknown advance {self.advance!r}: give one of {', '.join(get_args(Advance))}")
        if not 0.0 < self.advance_lr < float("inf"):
            raise UserError(f"advance_lr is {self.advance_lr}: accepted is a number above 0")
        if self.restart < 1:
            raise UserError(f"restart is {self.restart}: a learner serves at least 1 match")


@pytree
class MatchingState:
    """The learner whose gradients are compared next.

    Attributes:
      params: its trainable parameters.
      age: matches since it was drawn.
    """

    params: PyTree
    age: Int[Array, ""]


def initial_state(matching: GradientMatching, base: Variables) -> MatchingState | None:
    """The objective's state before the first match; its age makes the first match draw a learner."""
    if matching.advance == "none":
        return None
    return MatchingState(jax.tree.map(jnp.copy, base.trainable), jnp.asarray(matching.restart, jnp.int32))


def gradient_matching(
    learner: Learner, spec: InnerSpec, matching: GradientMatching, noisy: NoisySums | None = None
) -> Objective:
    """Objective: mean distance between gradients on real and on synthetic samples, at one learner.

    The synthetic side is the inner loss of the whole set at hand, attention labels included; classes of samples are
    those they were made for, i mod c. A class that the real batch lacks is left out. Nothing is dropped at random in
    the gradients that are compared. Constants are
    `MetaModelConstants`; the state is `initial_state`'s. Metrics: "matched_classes", those present in the batch.

    With `noisy`, the real side is the noisy sum of the examples' clipped gradients, of each class or of all together,
    in which classes weigh as they are. A class without examples is matched like any, for it could be told.

    Raises:
      UserError: the learner cannot be cut at `matching.parameters`.
    """
    inner = make_inner(learner, spec)
    chosen = _chosen(learner, matching.parameters)
    groups = tree.partition(learner.groups, chosen)[0]
    # Attention labels teach the body only, so they have no part in the gradient of the head.
    # The formula is that of one logit a class.
    whole_head = learner.shape["logits"] == learner.shape["classes"]
    closed_form = matching.closed_form and matching.parameters == "head" and whole_head

    def loss_of_matched(params: PyTree, data: dict[str, Array], constants: tuple[PyTree, PyTree]) -> Float[Array, ""]:
        fixed, kept = constants
        return inner.loss(tree.merge(params, kept), data, fixed)

    def objective(synthetic: Synthetic, state: MatchingState | None, constants, real_batch: PyTree, key: Key):
        refresh_key, order_key = jax.random.split(key)
        fresh = learner.refresh(constants.base, refresh_key)
        params, frozen = fresh.trainable, fresh.frozen
        if state is not None:
            params = tree.select(state.age >= matching.restart, params, state.params)
        schedule = make_schedule(spec, synthetic, constants.support, frozen, order_key)
        cells = _cells(spec, matching.per_class)
        matched, kept = tree.partition(params, chosen)
        if noisy is not None:
            present = jnp.ones(cells.shape[0])
            contribution = _contribution(learner, matched, kept, frozen, closed_form)
            real = as_params(noisy(contribution, real_batch, by_class=matching.per_class), matched)
        else:
            weights = _class_weights(real_batch, spec, matching.per_class)
            present = (jnp.sum(weights, axis=-1) > 0).astype(jnp.float32)
            if closed_form:
                real = _head_gradients(learner, Variables(params, frozen), real_batch, weights)
            else:
                real = _real_gradients(learner, matched, kept, frozen, real_batch, weights)
        real = jax.lax.stop_gradient(real)

        def distance(cell: Int[Array, " m"], target: PyTree) -> Float[Array, ""]:
            data, fixed = schedule.minibatch(cell)
            if closed_form:
                batch = dataclasses.replace(with_inputs(fixed.fixed, data), labels=data["labels"])
                whole = jnp.ones((1, cell.shape[0]), data["labels"].dtype)
                found = _head_gradients(learner, Variables(params, frozen), batch, whole)
                found = jax.tree.map(lambda x: x[0], found)
            else:
                found = inner_gradient(loss_of_matched)(matched, data, (fixed, kept))
            return tree_distance(found, target, matching.distance, groups)

        distances = jax.lax.map(lambda pair: distance(*pair), (cells, real))
        loss = weighted_mean(distances, present.astype(distances.dtype))
        if state is not None:
            moved = _advanced(matching, learner, inner, params, frozen, schedule, real_batch)
            age = jnp.where(state.age >= matching.restart, 1, state.age + 1)
            # A learner that diverged serves no further match.
            healthy = tree.all_finite(moved) & jnp.isfinite(loss)
            state = MatchingState(tree.select(healthy, moved, params), jnp.where(healthy, age, matching.restart))
        return loss, (state, {"matched_classes": jnp.sum(present)})

    return objective


def matched_size(learner: Learner, matching: GradientMatching, trainable: PyTree) -> int:
    """Numbers of the gradients that are compared.

    Args:
      learner, matching: see `gradient_matching`.
      trainable: parameters of the learner.
    """
    matched, _ = tree.partition(trainable, _chosen(learner, matching.parameters))
    return sum(x.size for x in jax.tree.leaves(matched))


def _chosen(learner: Learner, parameters: str) -> Callable[[tuple[str, ...]], bool]:
    """Whether the gradient of a leaf of `Variables.trainable`, given by its path, is compared."""
    if parameters == "all":
        return lambda path: True
    count = 1 if parameters == "head" else 1 + int(parameters.partition(":")[2])
    total = len(learner.group_names)
    if count > total:
        raise UserError(f"parameters {parameters!r}: the learner has {total - 1} layer groups below its head")
    first = total - count

    def chosen(path: tuple[str, ...]) -> bool:
        group = learner.groups
        for name in path:
            group = group[name]
        if np.min(group) < first <= np.max(group):
            raise UserError(f"parameters {parameters!r} cut the stack of layers; set scan_layers=False with them")
        return bool(np.min(group) >= first)

    return chosen


def _cells(spec: InnerSpec, per_class: bool) -> Int[Array, "k m"]:
    """Samples whose gradient is compared as one: those of each class, or all."""
    samples = jnp.arange(spec.samples)
    return samples.reshape(spec.per_class, -1).T if per_class else samples[None]


def _class_weights(batch: Batch, spec: InnerSpec, per_class: bool) -> Float[Array, "k n"]:
    """Weight of each real example in the gradient of each cell; one row, classes alike, when taken together."""
    assert batch.labels is not None
    classes = jnp.asarray(spec.sample_classes[: spec.samples // spec.per_class], batch.labels.dtype)
    weights = jnp.ones(batch.labels.shape, jnp.float32) if batch.weights is None else batch.weights
    of_class = (batch.labels[None] == classes[:, None]).astype(weights.dtype) * weights[None]
    return of_class if per_class else jnp.sum(_normalised(of_class), axis=0, keepdims=True)


def _real_gradients(
    learner: Learner, matched: PyTree, kept: PyTree, frozen: PyTree, batch: Batch, weights: Float[Array, "k n"]
) -> PyTree:
    """Gradient of each row's weighted mean loss, stacked: one forward pass, one backward pass a row."""

    def losses(p: PyTree) -> Float[Array, " n"]:
        logits = learner.apply(Variables(tree.merge(p, kept), frozen), batch).logits
        return example_cross_entropy(logits, batch.labels)

    values, pullback = jax.vjp(losses, matched)
    return jax.lax.map(lambda w: pullback(w.astype(values.dtype))[0], _normalised(weights))


def _contribution(
    learner: Learner, matched: PyTree, kept: PyTree, frozen: PyTree, closed_form: bool
) -> Callable[[Batch], Float[Array, "m k"]]:
    """Flat gradients of examples, one by one."""
    if not closed_form:
        return example_gradients(learner, frozen, matched, lambda params: tree.merge(params, kept))

    def contribution(examples: Batch) -> Float[Array, "m k"]:
        assert examples.labels is not None
        each = jnp.eye(examples.labels.shape[0])
        found = _head_gradients(learner, Variables(tree.merge(matched, kept), frozen), examples, each)
        return jax.vmap(lambda gradient: ravel_pytree(gradient)[0])(found)

    return contribution


def _head_gradients(learner: Learner, variables: Variables, batch: Batch, weights: Float[Array, "k n"]) -> PyTree:
    """Gradients of a linear head, from the features it reads: dL/dlogits = p Σq − q for targets q."""
    outputs = learner.apply(variables, batch)
    probabilities = jax.nn.softmax(outputs.logits, axis=-1)
    labels = batch.labels
    assert labels is not None
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    errors = probabilities * jnp.sum(targets, axis=-1, keepdims=True) - targets
    w = _normalised(weights).astype(errors.dtype)
    kernel = jnp.einsum("kn,nd,nc->kdc", w, outputs.features, errors)
    bias = {"bias": w @ errors} if "bias" in learner.groups["classifier"] else {}
    return {"classifier": {"kernel": kernel} | bias}


def _normalised(weights: Float[Array, "k n"]) -> Float[Array, "k n"]:
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total > 0, total, jnp.ones_like(total))


def _advanced(
    matching: GradientMatching,
    learner: Learner,
    inner: Inner,
    params: PyTree,
    frozen: PyTree,
    schedule: Schedule,
    real_batch: PyTree,
) -> PyTree:
    """The learner's parameters at the next match."""
    if matching.advance == "synthetic":
        return unroll(inner, params, jax.lax.stop_gradient(schedule))

    def loss(p: PyTree) -> Float[Array, ""]:
        logits = learner.apply(Variables(p, frozen), real_batch).logits
        return cross_entropy(logits, real_batch.labels, real_batch.weights)

    return jax.tree.map(lambda p, g: p - matching.advance_lr * g, params, jax.grad(loss)(params))
