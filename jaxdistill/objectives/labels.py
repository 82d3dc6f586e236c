"""Label kinds and learning-rate parameterisation: how the arrays of a `Synthetic` become what a step trains on."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Key

LabelKind = Literal["hard", "soft", "unrestricted", "binary"]
LABEL_KINDS: tuple[LabelKind, ...] = ("hard", "soft", "unrestricted", "binary")
LabelStart = Literal["one_hot", "inverted", "smoothed", "zeros", "ones", "normal", "uniform", "bernoulli", "orthogonal"]
SMOOTHING = 0.1


def label_targets(labels: Float[Array, "*n k"], kind: LabelKind) -> Float[Array, "*n c"]:
    """Targets of the cross-entropy.

    `soft` labels pass through a softmax; `binary` ones are a number y of two classes, of any value, with targets
    (1 − y, y), which makes the loss softplus(z) − y z of the difference z of two logits; the others are targets as they
    are.
    """
    if kind == "binary":
        return jnp.concatenate([1.0 - labels, labels], axis=-1)
    return jax.nn.softmax(labels, axis=-1) if kind == "soft" else labels


def initial_labels(
    own: Int[np.ndarray, " n"], classes: int, kind: LabelKind, *, own_class_probability: float | None = 0.9
) -> Float[np.ndarray, "n k"]:
    """Scores before learning: one a class, or a single one under `binary`.

    Args:
      own: class that each sample is made for.
      classes: number of classes c.
      kind: `hard` and `unrestricted` start one-hot, `binary` as 1 for class 1 and 0 for class 0.
      own_class_probability: what softmax gives the own class under `soft`; `None` uses the one-hot vector as scores,
        as the published code does (0.731, 0.576, 0.475 for 2, 3, 4 classes).
    """
    one_hot = np.eye(classes, dtype=np.float32)[own]
    if kind == "binary":
        return one_hot[:, 1:]
    if kind != "soft" or own_class_probability is None:
        return one_hot
    p = own_class_probability
    return one_hot * np.float32(np.log(p * (classes - 1) / (1 - p)))


def drawn_labels(
    start: LabelStart, own: Int[np.ndarray, " n"], shape: tuple[int, int], key: Key
) -> Float[np.ndarray, "n k"]:
    """Other scores before learning (Sucholutsky & Schonlau 2021).

    Args:
      start: "inverted" is 1 minus the one-hot vector, as the published code starts two classes; "smoothed" takes
        `SMOOTHING` off the own class and spreads it over all; "zeros" and "ones" are constant; "normal" is N(0, 1),
        "uniform" U(0, 1), "bernoulli" 0 or 1, "orthogonal" has orthonormal columns (or rows).
      own: class that each sample is made for.
      shape: of the scores, [n, k].
      key: of those that are drawn.
    """
    classes = max(shape[1], 2)  # a single number speaks of class 1 of two
    one_hot = np.eye(classes, dtype=np.float32)[own][:, -shape[1] :]
    starts = {
        "one_hot": lambda: one_hot,
        "inverted": lambda: 1.0 - one_hot,
        "smoothed": lambda: (1.0 - SMOOTHING) * one_hot + SMOOTHING / classes,
        "zeros": lambda: np.zeros(shape),
        "ones": lambda: np.ones(shape),
        "normal": lambda: jax.random.normal(key, shape),
        "uniform": lambda: jax.random.uniform(key, shape),
        "bernoulli": lambda: jax.random.bernoulli(key, 0.5, shape),
        "orthogonal": lambda: jax.nn.initializers.orthogonal()(key, shape),
    }
    return np.asarray(starts[start](), np.float32)


def step_sizes(raw_lr: Float[Array, "*t"]) -> Float[Array, "*t"]:
    """Step sizes, softplus of what is learned: always above 0."""
    return jax.nn.softplus(raw_lr)


def raw_step_sizes(lr: float, shape: tuple[int, ...]) -> Float[np.ndarray, "*t"]:
    """Inverse of `step_sizes` for a constant `lr` above 0."""
    return np.full(shape, np.log(np.expm1(lr)) if lr < 20 else lr, np.float32)


def linear_decay(steps: int) -> Float[Array, " t"]:
    """Factors 1 − t/T on a scalar step size."""
    return 1.0 - jnp.arange(steps) / steps
