"""Snapshots of one training run on disk: bfloat16 differences from its start, read through a memory map."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps

SCHEMA = 1
_INDEX, _DATA = "index.json", "differences.bfloat16"


class Trajectory:
    """Snapshots of one run, opened; nothing is in memory until it is read.

    Attributes:
      epochs: of the snapshots, ascending; the start, epoch 0, is not among them.
    """

    def __init__(self, folder: Path, epochs: tuple[int, ...], shapes: PyTree):
        self.epochs = epochs
        self._leaves, self._structure = jax.tree.flatten(shapes)
        size = sum(math.prod(leaf.shape) for leaf in self._leaves)
        self._rows = np.memmap(folder / _DATA, ml_dtypes.bfloat16, "r", shape=(len(epochs), size))

    def difference(self, epoch: int) -> PyTree:
        """Parameters of an epoch minus those at the start, float32; what is not stored raises `ValueError`."""
        row = self._rows[self.epochs.index(epoch)]
        ends = np.cumsum([math.prod(leaf.shape) for leaf in self._leaves])
        parts = np.split(row, ends[:-1])
        arrays = [part.astype(np.float32).reshape(leaf.shape) for part, leaf in zip(parts, self._leaves, strict=True)]
        return jax.tree.unflatten(self._structure, arrays)


def save_trajectory(folder: Path, start: PyTree, snapshots: Sequence[tuple[int, PyTree]], facts: dict) -> None:
    """Write a folder atomically.

    Args:
      folder: its path.
      start: parameters at epoch 0.
      snapshots: (epoch, parameters), ascending.
      facts: what identifies the run, plain; asked for again on opening.

    Raises:
      UserError: the disk is full or the place cannot be written.
    """
    digest = hashlib.sha256()
    begin = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(start)]
    with atomic.folder(folder) as inside:
        with open(inside / _DATA, "wb") as file:
            for _, params in snapshots:
                for leaf, first in zip(jax.tree.leaves(params), begin, strict=True):
                    data = (np.asarray(leaf, np.float32) - first).astype(ml_dtypes.bfloat16).tobytes()
                    digest.update(data)
                    file.write(data)
        index = {
            "schema": SCHEMA,
            "epochs": [epoch for epoch, _ in snapshots],
            "shapes": [list(leaf.shape) for leaf in begin],
            "sha256": digest.hexdigest(),
            "facts": facts,
        }
        (inside / _INDEX).write_text(dumps(index), "utf-8")


def open_trajectory(folder: Path, shapes: PyTree, facts: dict) -> Trajectory:
    """Open a folder, its content checked.

    Args:
      folder: its path.
      shapes: the learner's parameters, or their shapes.
      facts: as given when it was saved.

    Raises:
      UserError: something is missing or damaged, or it holds another run.
    """
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        epochs, digest = tuple(index["epochs"]), index["sha256"]
        known = (index["schema"], index["shapes"], index["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / _INDEX} cannot be read ({error}): remove {folder} to train it again") from None
    expected = (SCHEMA, [list(leaf.shape) for leaf in jax.tree.leaves(shapes)], json.loads(dumps(facts)))
    if known != expected:
        raise UserError(f"{folder} holds the training of another learner or configuration: remove it to train again")
    path = folder / _DATA
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): remove {folder} to train it again") from None
    if found != digest:
        raise UserError(f"{path} is damaged, its hash is another than was written: remove {folder} to train it again")
    return Trajectory(folder, epochs, shapes)
