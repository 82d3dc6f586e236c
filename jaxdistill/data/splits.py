"""A labelled split, its stable cut in two, and the hash of its contents."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, Int32

from jaxdistill.core.errors import UserError

_ROWS = 4096  # vectors hashed at once


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


def row_names(split: str, count: int) -> list[tuple[str, ...]]:
    """What stands for the texts of examples that are vectors: names of their rows, one word each."""
    return [(f"{split}/{row}",) for row in range(count)]


def stable_cut(
    split: Split,
    *,
    fraction: float,
    at_most: int | None = None,
    salt: str,
    label_names: tuple[str, ...],
    where: str,
    groups: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " cut"]]:
    """Cut a split in two, class by class, by a hash of the texts.

    There is no seed: the side of a text depends on the contents of the split alone, not on its order. Exact
    duplicates (of the stripped texts) go to one side; a text that occurs under several labels counts as of its lowest.
    Each class gives the cut side `fraction` of its examples rounded down, and at least one; with `groups`, each group
    of a class gives `fraction` of its own, rounded down.

    Args:
      fraction: share of the examples that is cut off.
      at_most: most examples on the cut side, but for the one that each class gives.
      salt: makes cuts of different purpose independent.
      label_names: all classes.
      where: what the split is called in an error.
      groups: a number for each example, whose shares within a class the cut shall keep.

    Returns:
      indices that stay, indices that are cut off; both ascending.

    Raises:
      UserError: a class has fewer than two distinct texts, so one side would lack it.
    """
    if at_most is not None:
        fraction = min(fraction, at_most / len(split))
    groups = np.zeros(len(split), np.int64) if groups is None else groups
    same: dict[tuple[str, ...], list[int]] = {}
    for i, text in enumerate(split.texts):
        same.setdefault(tuple(field.strip() for field in text), []).append(i)
    strata: list[dict[int, list[tuple[bytes, list[int]]]]] = [{} for _ in label_names]
    for text, members in same.items():
        label, group = min(zip(split.labels[members].tolist(), groups[members].tolist(), strict=True))
        strata[label].setdefault(group, []).append((text_hash(text, salt), members))

    cut: list[int] = []
    for name, cells in zip(label_names, strata, strict=True):
        stratum = [entry for cell in cells.values() for entry in cell]
        if len(stratum) < 2:
            raise UserError(
                f"{where}: class {name!r} has {len(stratum)} distinct text{'' if len(stratum) == 1 else 's'}; "
                "cutting it in two takes at least 2"
            )
        taken = [i for cell in cells.values() for i in _fill_up(sorted(cell), target=int(fraction * _size(cell)))]
        # A class always gives something: its first, or else its smallest, set of equal texts.
        cut += taken or _fill_up(sorted(stratum), target=1) or min((members for _, members in stratum), key=len)
    chosen = np.zeros(len(split), bool)
    chosen[cut] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _fill_up(stratum: list[tuple[bytes, list[int]]], target: int) -> list[int]:
    """Members of the first sets of equal texts that fit in `target`, in the order of their hashes."""
    taken: list[int] = []
    for _, members in stratum:
        if len(taken) + len(members) <= target:
            taken += members
    return taken


def _size(stratum: list[tuple[bytes, list[int]]]) -> int:
    return sum(len(members) for _, members in stratum)


def text_hash(text: tuple[str, ...], salt: str) -> bytes:
    """A hash of the fields of a text; salts make hashes of different purpose independent."""
    digest = hashlib.sha256(salt.encode())
    for field in text:
        _update(digest, field)
    return digest.digest()


def contents_hash(
    splits: Iterable[tuple[str, Split]],
    label_names: tuple[str, ...],
    *,
    group_names: tuple[str, ...] = (),
    vectors: Float[np.ndarray, "v d"] | None = None,
) -> str:
    """sha256 (hex) over class names, texts and labels of named splits; the file format does not enter.

    Args:
      splits: by name.
      label_names: of the classes.
      group_names: where given, these and the attribute `group` of each split enter too.
      vectors: where given, these as float32 enter too.
    """
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
        if group_names:
            digest.update(split.attributes["group"].astype("<i4").tobytes())
    for name in group_names:
        _update(digest, name)
    for start in range(0, 0 if vectors is None else len(vectors), _ROWS):
        assert vectors is not None
        digest.update(np.ascontiguousarray(vectors[start : start + _ROWS], "<f4").data)
    return digest.hexdigest()


def _update(digest, field: str) -> None:
    data = field.encode()
    # The length comes first, so that ("ab", "c") and ("a", "bc") differ.
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
