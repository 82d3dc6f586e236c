"""Label kinds and learning-rate parameterisation: how the arrays of a `Synthetic` become what a step trains on."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

LabelKind = Literal["hard", "soft", "unrestricted"]
LABEL_KINDS: tuple[LabelKind, ...] = ("hard", "soft", "unrestricted")


def label_targets(labels: Float[Array, "*n c"], kind: LabelKind) -> Float[Array, "*n c"]:
    """Targets of the cross-entropy: `soft` labels pass through a softmax, the others are targets as they are."""
    return jax.nn.softmax(labels, axis=-1) if kind == "soft" else labels


def initial_labels(
    own: Int[np.ndarray, " n"], classes: int, kind: LabelKind, *, own_class_probability: float | None = 0.9
) -> Float[np.ndarray, "n c"]:
    """Scores before learning.

    Args:
      own: class that each sample is made for.
      classes: number of classes c.
      kind: `hard` and `unrestricted` start one-hot.
      own_class_probability: what softmax gives the own class under `soft`; `None` uses the one-hot vector as scores,
        as the published code does (0.731, 0.576, 0.475 for 2, 3, 4 classes).
    """
    one_hot = np.eye(classes, dtype=np.float32)[own]
    if kind != "soft" or own_class_probability is None:
        return one_hot
    p = own_class_probability
    return one_hot * np.float32(np.log(p * (classes - 1) / (1 - p)))


def step_sizes(raw_lr: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """Step sizes, softplus of what is learned: always above 0."""
    return jax.nn.softplus(raw_lr)


def raw_step_sizes(lr: float, shape: tuple[int, ...]) -> Float[np.ndarray, "*t"]:
    """Inverse of `step_sizes` for a constant `lr` above 0."""
    return np.full(shape, np.log(np.expm1(lr)) if lr < 20 else lr, np.float32)


def linear_decay(steps: int) -> Float[Array, " t"]:
    """Factors 1 − t/T on a scalar step size."""
    return 1.0 - jnp.arange(steps) / steps
