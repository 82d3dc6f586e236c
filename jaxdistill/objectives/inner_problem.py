"""The inner problem of a learner on a distilled set: shared by every objective and by evaluation."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.inner import INNER_OPTIMIZERS, Constants, Inner, Schedule
from jaxdistill.core.losses import attention_cross_entropy, cross_entropy
from jaxdistill.core.types import AttentionRows, Batch, Key, Learner, PyTree, Synthetic, Variables
from jaxdistill.objectives.labels import LABEL_KINDS, LabelKind, label_targets, linear_decay, step_sizes

# Folded into the key of a training: unlike small numbers, none that `permutation` may fold in too.
DROPPING = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class InnerSpec:
    """How a learner trains on a distilled set; static.

    Attributes:
      classes: number of classes c.
      per_class: samples a class D; the set holds n = D c, and sample i is made for class i mod c.
      batch_per_class: samples of each class in a minibatch, b; D must be a multiple. Step t trains on samples
        [b c m, b c (m + 1)) with m = t mod D/b.
      made_for: the classes that samples are made for, where these are not all: c in the two lines above is then their
        number, and sample i is made for `made_for[i mod c]`. Labels still speak of all classes.
      steps: inner steps T.
      label_kind: see `objectives.labels`.
      attention: query rows that carry attention labels.
      attention_weight: weight λ of the attention loss.
      attention_log_eps: added inside the logarithm of the student's attention.
      optimizer: "sgd", "momentum" or "adam".
      lr_decay: factor 1 − t/T on the step sizes.
      order: "fixed" takes the samples in turn, as above; "shuffled" permutes the samples of each class once an inner
        epoch, the same way in every training; "fresh" permutes them anew in every training.
    """

    classes: int
    per_class: int = 1
    batch_per_class: int = 1
    steps: int = 1
    label_kind: LabelKind = "unrestricted"
    attention: AttentionRows = "none"
    attention_weight: float = 1.0
    attention_log_eps: float = 0.0
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    lr_decay: bool = False
    order: Literal["fixed", "shuffled", "fresh"] = "fixed"
    made_for: tuple[int, ...] = ()

    def __post_init__(self):
        choices = {
            "label_kind": LABEL_KINDS,
            "attention": ("none", "cls", "all"),
            "optimizer": tuple(INNER_OPTIMIZERS),
            "order": ("fixed", "shuffled", "fresh"),
        }
        for field, known in choices.items():
            if (value := getattr(self, field)) not in known:
                raise UserError(f"unknown {field} {value!r}: give one of {', '.join(known)}")
        if not 0.0 <= self.attention_weight < float("inf"):
            raise UserError(f"attention_weight is {self.attention_weight}: accepted is a number from 0")
        if not 0.0 <= self.attention_log_eps < 1.0:
            raise UserError(f"attention_log_eps is {self.attention_log_eps}: accepted is a number in [0, 1)")
        for field in ("classes", "per_class", "batch_per_class", "steps"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"{field} is {value}: it must be at least 1")
        if self.label_kind == "binary" and self.classes != 2:
            raise UserError(f"label_kind is binary, but there are {self.classes} classes: give soft or unrestricted")
        if bad := [label for label in self.made_for if not 0 <= label < self.classes]:
            raise UserError(f"made_for holds {bad[0]}: accepted are classes from 0 to {self.classes - 1}")
        if self.per_class % self.batch_per_class:
            raise UserError(
                f"per_class {self.per_class} is not a multiple of batch_per_class {self.batch_per_class}: "
                "minibatches must have the same size"
            )
        if self.steps * self.batch_per_class < self.per_class:
            raise UserError(
                f"steps {self.steps} of batch_per_class {self.batch_per_class} reach only "
                f"{self.steps * self.batch_per_class} of per_class {self.per_class} samples: raise steps or "
                "batch_per_class"
            )

    @property
    def sample_classes(self) -> np.ndarray:
        """The class that each sample is made for, int32 [n]."""
        return np.tile(np.asarray(self.made_for or range(self.classes), np.int32), self.per_class)

    @property
    def samples(self) -> int:
        return self.per_class * len(self.made_for or range(self.classes))

    def sample_order(self, key: Key | None = None) -> Int[Array, "t m"]:
        """Samples of each step's minibatch, m = b c.

        Args:
          key: of a `fresh` order.
        """
        minibatches, c = self.per_class // self.batch_per_class, self.samples // self.per_class
        epochs = -(-self.steps // minibatches)
        ranks = jnp.tile(jnp.arange(self.per_class)[None, :, None], (epochs, 1, c))  # which of its class, by epoch
        if self.order != "fixed":
            key = jax.random.key(0) if self.order == "shuffled" else key
            if key is None:
                raise ValueError('the "fresh" order of samples is drawn at each training: a key is needed')
            ranks = jax.random.permutation(key, ranks, axis=1, independent=True)
        samples = ranks * c + jnp.arange(c)[None, None]
        return samples.reshape(epochs * minibatches, self.batch_per_class * c)[: self.steps]


def with_inputs(texts: Batch, data: dict[str, Array]) -> Batch:
    """What a learner reads of a minibatch: learned inputs where there are any, else the texts as they are."""
    return dataclasses.replace(texts, embeddings=data["inputs"]) if "inputs" in data else texts


def make_inner(learner: Learner, spec: InnerSpec) -> Inner:
    """Inner problem of `spec`; its `data` is a dict with the learned parts of a minibatch, in its `Constants` stand the
    token ids and masks of a text-level set, as a `Batch`, and the frozen parameters."""

    def loss(params: PyTree, data: dict[str, Array], constants: Constants) -> Float[Array, ""]:
        texts, frozen, key = constants
        batch = with_inputs(texts, data)
        drops = key is not None  # without a key a learner is in evaluation mode: nothing is dropped
        outputs = learner.apply(Variables(params, frozen), batch, key=key, train=drops, attention=spec.attention)
        value = cross_entropy(outputs.logits, data["labels"])
        if spec.attention != "none":
            eps = spec.attention_log_eps
            value += spec.attention_weight * attention_cross_entropy(outputs.attentions, data["attention"], eps)
        return value

    return Inner(loss, INNER_OPTIMIZERS[spec.optimizer](), learner.groups)


def make_schedule(
    spec: InnerSpec, synthetic: Synthetic, support: Batch, frozen: PyTree, key: Key | None = None
) -> Schedule:
    """What the inner loop trains on.

    Args:
      spec: static description.
      synthetic: what is learned.
      support: what is not: token ids and masks of a text-level set; labels where `synthetic.labels` is `None`
        (float, [n c]). Leading axis n throughout.
      frozen: `Variables.frozen` of the learner.
      key: of a `fresh` order of samples, and of what the learner drops in each step; `None` drops nothing.
    """
    labels = support.labels if synthetic.labels is None else label_targets(synthetic.labels, spec.label_kind)
    data = {"labels": labels, "inputs": synthetic.inputs}
    if spec.attention != "none":
        data["attention"] = synthetic.attention
    present = {name: x for name, x in data.items() if x is not None}
    lr = step_sizes(synthetic.raw_lr)
    lr = jnp.broadcast_to(lr, (spec.steps, *lr.shape[1:]))  # a single one serves all steps
    if spec.lr_decay:
        lr *= linear_decay(spec.steps).reshape(-1, *(1,) * (lr.ndim - 1)).astype(lr.dtype)
    fixed = dataclasses.replace(support, labels=None)
    keys = None if key is None else jax.random.split(jax.random.fold_in(key, DROPPING), spec.steps)
    return Schedule(lr, spec.sample_order(key), present, fixed, frozen, keys)
