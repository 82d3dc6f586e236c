"""Dataset distillation with attention labels (Maekawa, Kobayashi, Funakoshi & Okumura, ACL 2023).

Input embeddings, labels, targets for the student's attention, and step sizes are learned by the meta-gradient through
the student's whole fine-tuning. `clean()` and `reference()` are the two presets: what we hold to be right, and what
the published code does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import AttentionRows, Batch, Key, Synthetic
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run
from jaxdistill.methods.meta_learning import LrPer, Outer, check_lr_per, finish, initial_step_sizes, learn
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LabelKind, initial_labels, interleaved_classes

# Beyond this, learned attention labels of "all" rows (with gradient and Adam moments: four times as much) are refused.
ATTENTION_BYTES = 2 * 1024**3


@dataclasses.dataclass(frozen=True)
class AttentionLabel:
    """Settings; the defaults are the preset `clean`.

    Attributes:
      per_class: samples a class D.
      batch_per_class: samples of each class in an inner minibatch, b.
      steps: inner steps T.
      length: positions of a sample S; all of them attend.
      label_kind: hard, soft or unrestricted.
      soft_probability: what soft labels give their own class at first; 0 uses the one-hot vector as scores.
      attention: which query rows carry attention labels: none, cls or all.
      attention_weight: λ.
      attention_log_eps: added to the attention inside the logarithm.
      inner_optimizer: sgd, momentum or adam.
      lr_per: step sizes learned: one for the whole set, one a step, or one a step and layer group.
      initial_lr: step size before learning.
      lr_decay: linear decay 1 − t/T of the step sizes.
      order: order of samples when D > b: fixed, shuffled once, or fresh in each training.
      initial_inputs: "normal" draws N(0, input_std²); "texts" takes the word embeddings of real training texts of the
        sample's class, one after another until the sample is full.
      input_std: standard deviation of normal inputs.
      outer: the outer loop.
    """

    per_class: int = 1
    batch_per_class: int = 1
    steps: int = 1
    length: int = 64
    label_kind: LabelKind = "unrestricted"
    soft_probability: float = 0.9
    attention: AttentionRows = "cls"
    attention_weight: float = 1.0
    attention_log_eps: float = 0.0
    inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    lr_per: LrPer = "layer"
    initial_lr: float = 0.1
    lr_decay: bool = False
    order: Literal["fixed", "shuffled", "fresh"] = "fixed"
    initial_inputs: Literal["normal", "texts"] = "normal"
    input_std: float = 0.3
    outer: Outer = Outer()

    def __post_init__(self):
        if self.initial_inputs not in ("normal", "texts"):
            raise UserError(f"unknown initial_inputs {self.initial_inputs!r}: give normal or texts")
        if self.length < 1:
            raise UserError(f"length is {self.length}: a sample needs at least 1 position")
        if self.label_kind == "soft" and not 0.0 <= self.soft_probability < 1.0:
            raise UserError(f"soft_probability is {self.soft_probability}: accepted is a probability in [0, 1)")
        check_lr_per(self.lr_per)
        inner_spec(self, 2)  # checks what remains


def clean(**changes: Any) -> AttentionLabel:
    """The default preset. Beyond undoing the quirks: a step size a layer group, inputs of a small scale, and larger
    learning rates for labels and step sizes than for inputs, which together learn several times faster."""
    return AttentionLabel(**changes)


def reference(*, outer: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> AttentionLabel:
    """The published code: decay that leaks into labels and step sizes, a first update of rate 0, one scalar step size
    a step, a logarithm with 1e-12, one-hot soft scores, inputs from N(0, 1), one learning rate for all parts. Selection
    on the reported split is the evaluation's: protocol `paper`.

    Args:
      outer: changes to the outer loop.
      **changes: to the other fields.
    """
    quirks = {"first_update_is_zero": True, "decay_labels": 0.01, "decay_step_sizes": 0.01, "inits": 1}
    quirks |= {f"{part}_lr": 1.0 for part in ("input", "label", "attention", "step_size")}
    defaults = {
        "length": 512,
        "label_kind": "hard",
        "soft_probability": 0.0,
        "attention": "none",
        "attention_log_eps": 1e-12,
        "lr_per": "step",
        "initial_lr": 0.01,
        "order": "fixed",
        "input_std": 1.0,
    }
    return AttentionLabel(**(defaults | changes), outer=Outer(**(quirks | dict(outer))))


def inner_spec(config: AttentionLabel, classes: int) -> InnerSpec:
    """How a learner trains on the distilled set."""
    return InnerSpec(
        classes=classes,
        per_class=config.per_class,
        batch_per_class=config.batch_per_class,
        steps=config.steps,
        label_kind=config.label_kind,
        attention=config.attention,
        attention_weight=config.attention_weight,
        attention_log_eps=config.attention_log_eps,
        optimizer=config.inner_optimizer,
        lr_decay=config.lr_decay,
        order=config.order,
    )


def initial_set(config: AttentionLabel, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """(what is learned, what is not) before the first outer step.

    Raises:
      UserError: samples longer than the learner's positions, a learner without attention, or attention labels that
        would not fit in memory.
    """
    learner = problem.pretrained.learner
    spec = inner_spec(config, problem.classes)
    shape = learner.shape
    if config.length > learner.max_length:
        raise UserError(f"length {config.length} is more than the learner's {learner.max_length} positions")
    input_key, attention_key = jax.random.split(key)
    if config.initial_inputs == "texts":
        inputs = _text_inputs(problem, spec.samples, config.length, input_key)
    else:
        inputs = config.input_std * jax.random.normal(input_key, (spec.samples, config.length, shape["width"]))
    attention = None
    if config.attention != "none":
        if not shape.get("heads"):
            raise UserError(f"attention labels {config.attention!r} need a learner with attention; give attention=none")
        rows = 1 if config.attention == "cls" else config.length
        sizes = (spec.samples, shape["layers"], shape["heads"], rows, config.length)
        if 16 * np.prod(sizes, dtype=np.int64) > ATTENTION_BYTES:
            needed, allowed = (16 * np.prod(sizes, dtype=np.int64) / 1024**3, ATTENTION_BYTES / 1024**3)
            raise UserError(
                f"attention labels {config.attention!r} of shape {sizes} take {needed:.1f} GiB with gradient and "
                f"moments, more than {allowed:.0f}: give attention=cls or a smaller length"
            )
        attention = jax.random.normal(attention_key, sizes)
    labels = initial_labels(
        spec.samples, spec.classes, config.label_kind, own_class_probability=config.soft_probability or None
    )
    hard = config.label_kind == "hard"
    synthetic = Synthetic(
        inputs=inputs,
        labels=None if hard else jnp.asarray(labels),
        attention=attention,
        raw_lr=jnp.asarray(initial_step_sizes(config.initial_lr, config.lr_per, config.steps, learner)),
    )
    return synthetic, Batch(labels=jnp.asarray(labels) if hard else None)


def distill(config: AttentionLabel, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Learn the distilled set; see `methods.base.DistillFn`."""
    init_key, learn_key = jax.random.split(key)
    synthetic, support = initial_set(config, problem, init_key)
    spec = inner_spec(config, problem.classes)
    fitted = learn(problem, synthetic, support, spec, config.outer, key=learn_key, run=run)
    result = DistilledSet(
        labels=interleaved_classes(spec.samples, spec.classes),
        label_names=problem.data.task.label_names,
        manifest={},
        synthetic=fitted.synthetic,
    )
    return finish(result, "attention_label", config, problem, key, fitted, config.outer, run)


def _text_inputs(problem: Problem, samples: int, length: int, key: Key) -> Float[Array, "n l d"]:
    """Word embeddings of random real texts of each sample's class, one text after another."""
    learner = problem.pretrained.learner
    rng = np.random.default_rng(numpy_seed(key))
    ids = np.zeros((samples, length), np.int32)
    for i, label in enumerate(interleaved_classes(samples, problem.classes)):
        members = rng.permutation(np.flatnonzero(problem.train.labels == label))
        tokens = np.concatenate([problem.train.tokens(j) for j in members[:length]])
        ids[i] = np.resize(tokens, length)
    table = learner.word_table
    if table is None:
        raise UserError('initial_inputs "texts" needs a learner with a word table; give normal')
    return jnp.take(table(problem.base()), ids, axis=0).astype(jnp.float32)


METHOD = Method(AttentionLabel, distill, initial_set, inner_spec)
