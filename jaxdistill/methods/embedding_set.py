"""A distilled set of input embeddings: the settings, the inner problem and the start that its methods share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run, withheld
from jaxdistill.methods.meta_learning import LrPer, Match, Outer, check_lr_per, finish, initial_step_sizes, learn
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LabelKind, LabelStart, drawn_labels, initial_labels


@dataclasses.dataclass(frozen=True)
class EmbeddingSet:
    """Settings of a set of learned input embeddings.

    Attributes:
      per_class: samples a class D.
      batch_per_class: samples of each class in an inner minibatch, b.
      steps: inner steps T.
      length: positions of a sample S; all of them are read.
      label_kind: hard, soft, unrestricted or, of two classes, binary; see `objectives.labels`.
      soft_probability: what soft labels give their own class at first; 0 uses the one-hot vector as scores.
      label_start: scores before learning; other than "one_hot", see `objectives.labels.drawn_labels`.
      inner_optimizer: sgd, momentum or adam.
      lr_per: step sizes learned: one for the whole set, one a step, or one a step and layer group.
      initial_lr: step size before learning.
      lr_decay: linear decay 1 − t/T of the step sizes.
      order: order of samples when D > b: fixed, shuffled once, or fresh in each training.
      initial_inputs: "normal" draws N(0, input_std²); "texts" takes the word embeddings of real training texts of the
        sample's class, one after another until the sample is full.
      input_std: standard deviation of normal inputs.
      made_for: the classes that samples are made for; all by default.
      outer: the outer loop.
    """

    per_class: int = 1
    batch_per_class: int = 1
    steps: int = 1
    length: int = 64
    label_kind: LabelKind = "unrestricted"
    soft_probability: float = 0.9
    label_start: LabelStart = "one_hot"
    inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    lr_per: LrPer = "layer"
    initial_lr: float = 0.1
    lr_decay: bool = False
    order: Literal["fixed", "shuffled", "fresh"] = "fixed"
    initial_inputs: Literal["normal", "texts"] = "normal"
    input_std: float = 0.3
    made_for: tuple[int, ...] = ()
    outer: Outer = Outer()

    def __post_init__(self):
        if self.initial_inputs not in ("normal", "texts"):
            raise UserError(f"unknown initial_inputs {self.initial_inputs!r}: give normal or texts")
        if self.label_start not in get_args(LabelStart):
            raise UserError(f"unknown label_start {self.label_start!r}: give one of {', '.join(get_args(LabelStart))}")
        if self.label_kind == "hard" and self.label_start != "one_hot":
            raise UserError(f"label_start is {self.label_start!r}, but hard labels are not learned: give one_hot")
        if self.length < 1:
            raise UserError(f"length is {self.length}: a sample needs at least 1 position")
        if self.label_kind == "soft" and not 0.0 <= self.soft_probability < 1.0:
            raise UserError(f"soft_probability is {self.soft_probability}: accepted is a probability in [0, 1)")
        check_lr_per(self.lr_per)
        inner_spec(self, max((1, *self.made_for)) + 1)  # checks what remains


def inner_spec(config: EmbeddingSet, classes: int, **more: Any) -> InnerSpec:
    """How a learner trains on the distilled set; `more` are further fields of `InnerSpec`."""
    return InnerSpec(
        classes=classes,
        per_class=config.per_class,
        batch_per_class=config.batch_per_class,
        steps=config.steps,
        label_kind=config.label_kind,
        optimizer=config.inner_optimizer,
        lr_decay=config.lr_decay,
        order=config.order,
        made_for=config.made_for,
        **more,
    )


def initial_set(config: EmbeddingSet, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """(what is learned, what is not) before the first outer step, without attention labels.

    Raises:
      UserError: samples longer or shorter than the learner allows.
    """
    learner = problem.pretrained.learner
    spec = inner_spec(config, problem.classes)
    if config.length > learner.max_length:
        raise UserError(f"length {config.length} is more than the learner's {learner.max_length} positions")
    if config.length < learner.min_length:
        raise UserError(f"length {config.length} is less than the {learner.min_length} positions the learner needs")
    if config.initial_inputs == "texts":
        inputs = _text_inputs(problem, spec, config.length, key)
    else:
        shape = (spec.samples, config.length, learner.shape["width"])
        inputs = config.input_std * jax.random.normal(key, shape)
    labels = initial_labels(
        spec.sample_classes, spec.classes, config.label_kind, own_class_probability=config.soft_probability or None
    )
    if config.label_start != "one_hot":
        label_key = jax.random.fold_in(key, 1)
        labels = drawn_labels(config.label_start, spec.sample_classes, labels.shape, label_key)
    hard = config.label_kind == "hard"
    synthetic = Synthetic(
        inputs=inputs,
        labels=None if hard else jnp.asarray(labels),
        raw_lr=jnp.asarray(initial_step_sizes(config.initial_lr, config.lr_per, config.steps, learner)),
    )
    return synthetic, Batch(labels=jnp.asarray(labels) if hard else None)


def embedding_method(
    name: str,
    settings: type[EmbeddingSet],
    *,
    start: Callable[[Any, Problem, Key], tuple[Synthetic, Batch]] = initial_set,
    spec: Callable[[Any, int], InnerSpec] = inner_spec,
    match: Callable[..., Match] | None = None,
) -> Method:
    """A registry entry that learns input embeddings.

    Args:
      name: of the method.
      settings: its dataclass.
      start: see `Method.initial`.
      spec: see `Method.inner_spec`.
      match: see `Method.match`; with the keywords `key` and `run` it also makes what the objective needs (experts).
    """

    def distill(config: Any, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
        """Learn the distilled set; see `methods.base.DistillFn`."""
        init_key, learn_key, match_key = jax.random.split(key, 3)
        synthetic, support = start(config, problem, init_key)
        inner = spec(config, problem.classes)
        chosen = None if match is None else match(config, problem, inner, key=match_key, run=run)
        fitted = learn(problem, synthetic, support, inner, config.outer, match=chosen, key=learn_key, run=run)
        result = DistilledSet(
            labels=inner.sample_classes,
            label_names=problem.data.task.label_names,
            manifest={},
            synthetic=fitted.learned,
        )
        result = finish(result, name, config, problem, key, fitted, config.outer, run)
        if chosen is None or chosen.privacy is None:
            return result
        facts = withheld(result.manifest, problem, config.privacy.leaky) | {"privacy": chosen.privacy}
        return dataclasses.replace(result, manifest=facts)

    return Method(settings, distill, start, spec, match=match)


def _text_inputs(problem: Problem, spec: InnerSpec, length: int, key: Key) -> Float[Array, "n l d"]:
    """Word embeddings of random real texts of each sample's class, one text after another."""
    learner = problem.pretrained.learner
    rng = np.random.default_rng(numpy_seed(key))
    ids = np.zeros((spec.samples, length), np.int32)
    for i, label in enumerate(spec.sample_classes):
        members = rng.permutation(np.flatnonzero(problem.train.labels == label))
        tokens = np.concatenate([problem.train.tokens(j) for j in members[:length]])
        ids[i] = np.resize(tokens, length)
    table = learner.word_table
    if table is None:
        raise UserError('initial_inputs "texts" needs a learner with a word table; give normal')
    return jnp.take(table(problem.base()), ids, axis=0).astype(jnp.float32)
