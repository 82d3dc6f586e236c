"""A labelled split, its stable cut in two, and the hash of its contents."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, Int32

from jaxdistill.core.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled texts.

    Attributes:
      texts: one or two strings an example.
      labels: class ids.
      attributes: further facts of each example by name (a group for fairness, a topic), arrays of n entries.
    """

    texts: list[tuple[str, ...]]
    labels: Int32[np.ndarray, " n"]
    attributes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, values in (("labels", self.labels), *self.attributes.items()):
            if len(values) != len(self.texts):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.texts)} texts")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Int[np.ndarray, " m"]) -> Split:
        """The examples at `indices`, in that order."""
        indices = np.asarray(indices, np.int64)
        return Split(
            texts=[self.texts[i] for i in indices],
            labels=self.labels[indices],
            attributes={name: values[indices] for name, values in self.attributes.items()},
        )

    def class_counts(self, num_classes: int) -> Int[np.ndarray, " c"]:
        """Number of examples of each class."""
        return np.bincount(self.labels, minlength=num_classes)


def stable_cut(
    split: Split,
    *,
    fraction: float,
    at_most: int | None = None,
    salt: str,
    label_names: tuple[str, ...],
    where: str,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " cut"]]:
    """Cut a split in two, class by class, by a hash of the texts.

    There is no seed: the side of a text depends on the contents of the split alone, not on its order. Exact
    duplicates (of the stripped texts) go to one side; a text that occurs under several labels counts as of its lowest.
    Each class gives the cut side `fraction` of its examples rounded down, and at least one.

    Args:
      fraction: share of the examples that is cut off.
      at_most: most examples on the cut side, but for the one that each class gives.
      salt: makes cuts of different purpose independent.
      label_names: all classes.
      where: what the split is called in an error.

    Returns:
      indices that stay, indices that are cut off; both ascending.

    Raises:
      UserError: a class has fewer than two distinct texts, so one side would lack it.
    """
    if at_most is not None:
        fraction = min(fraction, at_most / len(split))
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, text in enumerate(split.texts):
        groups.setdefault(tuple(field.strip() for field in text), []).append(i)
    strata: list[list[tuple[bytes, list[int]]]] = [[] for _ in label_names]
    for text, members in groups.items():
        strata[int(split.labels[members].min())].append((_text_hash(text, salt), members))

    cut: list[int] = []
    for name, stratum in zip(label_names, strata, strict=True):
        if len(stratum) < 2:
            raise UserError(
                f"{where}: class {name!r} has {len(stratum)} distinct text{'' if len(stratum) == 1 else 's'}; "
                "cutting it in two takes at least 2"
            )
        size = sum(len(members) for _, members in stratum)
        cut += _fill_up(sorted(stratum), target=max(1, int(fraction * size)))
    chosen = np.zeros(len(split), bool)
    chosen[cut] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _fill_up(stratum: list[tuple[bytes, list[int]]], target: int) -> list[int]:
    """Members of the first groups that fit in `target`; of the smallest group when none fits."""
    taken: list[int] = []
    for _, members in stratum:
        if len(taken) + len(members) <= target:
            taken += members
    return taken or min((members for _, members in stratum), key=len)


def _text_hash(text: tuple[str, ...], salt: str) -> bytes:
    digest = hashlib.sha256(salt.encode())
    for field in text:
        _update(digest, field)
    return digest.digest()


def contents_hash(splits: Iterable[tuple[str, Split]], label_names: tuple[str, ...]) -> str:
    """sha256 (hex) over class names, texts and labels of named splits; the file format does not enter."""
    digest = hashlib.sha256()
    for name in label_names:
        _update(digest, name)
    for name, split in splits:
        _update(digest, name)
        digest.update(len(split).to_bytes(8, "little"))
        for text in split.texts:
            for field in text:
                _update(digest, field)
        digest.update(split.labels.astype("<i4").tobytes())
    return digest.hexdigest()


def _update(digest, field: str) -> None:
    data = field.encode()
    # The length comes first, so that ("ab", "c") and ("a", "bc") differ.
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
