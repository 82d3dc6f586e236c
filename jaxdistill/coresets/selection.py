"""Choosing real examples, class by class, to stand for a data set: one function over a table of ways to choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.coresets.herding import herding
from jaxdistill.coresets.k_center import k_center
from jaxdistill.coresets.k_means import k_means


class PickFn(Protocol):
    def __call__(
        self, features: Float[np.ndarray, "n d"], count: int, rng: np.random.Generator
    ) -> Int[np.ndarray, " k"]:
        """Choose among the examples of one class.

        Args:
          features: float64 features of the n examples of the class.
          count: how many to choose, 1 <= count <= n.
          rng: the only source of randomness.

        Returns:
          `count` distinct row indices, in the order of choice.
        """
        ...


class Coreset(NamedTuple):
    """A way to choose.

    Attributes:
      pick: chooses within one class.
      needs_features: False when `pick` looks at nothing but the number of examples, so that no encoder need run.
    """

    pick: PickFn
    needs_features: bool


def random(features: Float[np.ndarray, "n d"], count: int, rng: np.random.Generator) -> Int[np.ndarray, " k"]:
    """Uniformly, without replacement; for one seed a larger choice begins with the smaller one."""
    return rng.permutation(len(features))[:count]


CORESETS: Mapping[str, Coreset] = MappingProxyType(
    {
        "random": Coreset(random, needs_features=False),
        "herding": Coreset(herding, needs_features=True),
        "k_center": Coreset(k_center, needs_features=True),
        "k_means": Coreset(k_means, needs_features=True),
    }
)


def coreset_named(name: str) -> Coreset:
    """The way to choose called `name`.

    Raises:
      UserError: there is no such coreset.
    """
    if name not in CORESETS:
        raise UserError(f"unknown coreset {name!r}: accepted are {', '.join(CORESETS)}")
    return CORESETS[name]


def select(
    name: str,
    features: Float[np.ndarray, "n d"] | None,
    labels: Int[np.ndarray, " n"],
    per_class: int,
    *,
    class_names: Sequence[str],
    seed: int,
) -> Int[np.ndarray, " k"]:
    """Choose `per_class` examples of each class by their features; see `by_class`.

    Args:
      name: key of `CORESETS`.
      features: one vector an example; `None` only where the coreset needs none.
      labels: class of each example.
      per_class: how many of each class.
      class_names: names of all classes, for errors; their number is the number of classes.
      seed: non-negative.

    Returns:
      int64 indices into the examples, interleaved: entry i is of class i mod c, earlier choices first.

    Raises:
      UserError: unknown name, `per_class` below 1, a class with fewer examples than asked, features that are missing or
        not finite.
    """
    coreset = coreset_named(name)
    if not coreset.needs_features:
        features = np.zeros((len(labels), 0))
    elif features is None:
        raise UserError(f"coreset {name!r} chooses by features and was given none: accepted without is random")
    elif not np.isfinite(features).all():
        rows = int((~np.isfinite(features).all(axis=1)).sum())
        raise UserError(f"features given to coreset {name!r}: {rows} of {len(features)} examples hold NaN or infinity")
    vectors = np.asarray(features, np.float64)

    def pick(members: Int[np.ndarray, " m"], rng: np.random.Generator) -> Int[np.ndarray, " k"]:
        return coreset.pick(vectors[members], per_class, rng)

    return by_class(labels, per_class, pick, class_names=class_names, seed=seed)


def by_class(
    labels: Int[np.ndarray, " n"],
    per_class: int,
    pick: Callable[[Int[np.ndarray, " m"], np.random.Generator], Int[np.ndarray, " k"]],
    *,
    class_names: Sequence[str],
    seed: int,
) -> Int[np.ndarray, " k"]:
    """Choose `per_class` examples of each class, deterministically for one seed.

    Each class has its own random stream, so what is chosen in one does not depend on the others.

    Args:
      labels: class of each example.
      per_class: how many of each class.
      pick: `pick(members, rng)` gives the places, in `members`, of `per_class` of the examples of a class.
      class_names: names of all classes, for errors; their number is the number of classes.
      seed: non-negative.

    Returns:
      int64 indices into the examples, interleaved: entry i is of class i mod c, earlier choices first.

    Raises:
      UserError: `per_class` below 1, or a class with fewer examples than asked.
    """
    if per_class < 1:
        raise UserError(f"per_class is {per_class}: accepted is 1 or more")
    labels = np.asarray(labels)
    chosen = []
    for number, class_name in enumerate(class_names):
        members = np.flatnonzero(labels == number)
        if len(members) < per_class:
            raise UserError(
                f"class {class_name!r} ({number}) has {len(members)} training examples, {per_class} per class asked: "
                f"accepted is at most {len(members)}"
            )
        rng = np.random.default_rng([seed, number])
        chosen.append(members[pick(members, rng)])
    return np.stack(chosen, axis=1).reshape(-1)
