"""How hard an example is to learn, and choosing by it: EL2N, GraNd, forgetting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import PyTree
from jaxdistill.coresets.selection import by_class

Keep = Literal["easy", "middle", "hard"]


def softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """Probabilities, float64, on the host."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def error_norms(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """|softmax(logits) - one_hot(label)|_2 of each example, from 0 to sqrt(2).

    Its mean over learners early in their training is EL2N (Paul, Ganguli and Dziugaite, "Deep learning on a data diet",
    NeurIPS 2021, definition 2.2).
    """
    return np.linalg.norm(softmax(logits) - np.eye(logits.shape[1])[labels], axis=1)


def head_gradient_norms(
    logits: Float[np.ndarray, "n c"],
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    *,
    bias: bool = True,
) -> Float[np.ndarray, " n"]:
    """Norm of the gradient of each example's cross-entropy in weights and bias of a linear head on `features`.

    The gradient is h (p - y)^T in the weights and p - y in the bias, so its norm is |p - y| sqrt(|h|^2 + 1), and
    |p - y| |h| of a head without `bias`. Its mean over learners is GraNd (Paul et al. 2021, definition 2.1) of the head
    alone.
    """
    square_norms = np.sum(np.square(features.astype(np.float64)), axis=1)
    return error_norms(logits, labels) * np.sqrt(square_norms + float(bias))


def example_gradient_norms(
    loss: Callable[[PyTree, PyTree], Float[Array, ""]], params: PyTree, examples: PyTree, *, at_once: int
) -> Float[Array, " n"]:
    """Norm of the gradient of each example's loss in all of `params`; jit-friendly.

    Args:
      loss: `loss(params, example)`.
      params: what is differentiated.
      examples: tree of arrays with a leading axis of n examples.
      at_once: examples whose gradients are held in memory at a time, each as large as `params`.
    """

    def norm(example: PyTree) -> Array:
        return optax.tree.norm(jax.grad(loss)(params, example))

    return jax.lax.map(norm, examples, batch_size=at_once)


def forgetting_counts(history: Int[np.ndarray, "t n"]) -> Float[np.ndarray, " n"]:
    """How often each example went from correctly to wrongly classified between two of its visits in a row.

    Toneva et al., "An empirical study of example forgetting during deep neural network learning", ICLR 2019,
    section 3: an example that was never classified correctly counts as forgotten infinitely often.

    Args:
      history: 1 where the example was classified correctly when the learner visited it for the t-th time or epoch, 0
        where wrongly, -1 where that epoch left it out.

    Returns:
      counts, infinity for what was never learned, NaN for what was never visited.
    """
    counts = np.zeros(history.shape[1])
    last = np.full(history.shape[1], -1)
    for now in history:
        counts += (last == 1) & (now == 0)
        last = np.where(now >= 0, now, last)
    counts[~(history == 1).any(axis=0)] = np.inf
    counts[(history < 0).all(axis=0)] = np.nan
    return counts


def pick_by_score(
    scores: Float[np.ndarray, " n"], count: int, keep: Keep, rng: np.random.Generator
) -> Int[np.ndarray, " k"]:
    """The `count` examples of the lowest ("easy"), highest ("hard") or most median scores ("middle"), best first.

    Examples of equal scores are in random order. Those without a score (NaN) are taken only when no other is left.
    """
    order = np.lexsort((rng.permutation(len(scores)), scores))  # NaN comes last
    known = len(scores) - int(np.isnan(scores).sum())
    ranks = np.arange(known)
    if keep == "hard":
        ranks = ranks[::-1]
    elif keep == "middle":
        ranks = np.argsort(np.abs(ranks - (known - 1) / 2), kind="stable")
    return np.concatenate([order[ranks], order[known:]])[:count]


def select_by_score(
    scores: Float[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    per_class: int,
    *,
    keep: Keep,
    class_names: Sequence[str],
    seed: int,
) -> Int[np.ndarray, " k"]:
    """Choose `per_class` examples of each class by their scores; see `pick_by_score` and `selection.by_class`.

    Raises:
      UserError: `per_class` below 1, or a class with fewer examples than asked.
    """

    def pick(members: Int[np.ndarray, " m"], rng: np.random.Generator) -> Int[np.ndarray, " k"]:
        return pick_by_score(scores[members], per_class, keep, rng)

    return by_class(labels, per_class, pick, class_names=class_names, seed=seed)
