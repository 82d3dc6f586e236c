"""Checkpoints of a run: small pytrees of arrays, restored bit for bit or refused in one line.

A checkpoint is a folder named by its step: the leaves, written by orbax, and `metadata.json` with the schema, the
fingerprint of the configuration, and path, shape, dtype and SHA-256 of every leaf. The folder appears whole or not at
all, so a process may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps

SCHEMA = 1
_METADATA, _STATE = "metadata.json", "state"


class Checkpoints:
    """The checkpoints of one run, newest last. Saving blocks until the checkpoint is on disk.

    With several processes, process 0 writes and every process reads the same folder; leaves must then be whole on each
    process (fully replicated or addressable). Leaves are restored as numpy arrays, and typed PRNG keys as keys: placing
    them on a mesh is the caller's.

    Args:
      folder: made when the first checkpoint is saved.
      keep: how many of the newest checkpoints stay.
      config_hash: fingerprint of the configuration; a checkpoint of another one is refused.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, config_hash: str):
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least one checkpoint must stay")
        self._folder = Path(folder).absolute()
        self._keep, self._config_hash = keep, config_hash
        if self._folder.is_dir() and jax.process_index() == 0:
            atomic.sweep(self._folder)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, rising."""
        if not self._folder.is_dir():
            return []
        return sorted(int(child.name) for child in self._folder.iterdir() if child.name.isdigit())

    def latest(self) -> int | None:
        """The newest step, or `None` before the first checkpoint."""
        return max(self.steps(), default=None)

    def save(self, step: int, tree: PyTree) -> None:
        """Write a checkpoint and remove those that are older than the newest `keep`.

        Args:
          step: outer steps done; a checkpoint of the same step is replaced.
          tree: pytree of arrays and typed PRNG keys.

        Raises:
          TypeError: a leaf is no array.
          UserError: the disk is full or the folder cannot be written; the older checkpoints are then untouched.
        """
        if jax.process_index() != 0:
            return
        names, leaves, _ = _flatten(tree)
        stored = [_to_host(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
        metadata = {"schema": SCHEMA, "step": step, "config_hash": self._config_hash}
        metadata["leaves"] = {
            name: _describe(leaf) | {"sha256": _sha256(data)}
            for name, leaf, data in zip(names, leaves, stored, strict=True)
        }
        with atomic.folder(self._path(step)) as folder:
            _orbax_save(folder / _STATE, stored, target=self._path(step))
            (folder / _METADATA).write_text(dumps(metadata), encoding="utf-8")
        for old in self.steps()[: -self._keep]:
            atomic.remove_folder(self._path(old))

    def restore(self, like: PyTree, *, step: int | None = None) -> PyTree:
        """Read a checkpoint back.

        Args:
          like: pytree of the same structure whose leaves have the shape and dtype expected (arrays or
            `jax.ShapeDtypeStruct`).
          step: which checkpoint; the newest when `None`.

        Returns:
          the tree, its leaves bit-equal to those saved.

        Raises:
          UserError: there is no such checkpoint, or it is of another schema, configuration, structure or shape, or its
            content is damaged.
        """
        step = self.latest() if step is None else step
        if step is None or not self._path(step).is_dir():
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise UserError(f"{self._folder} holds no {wanted}; it has steps {self.steps()}")
        path = self._path(step)
        recorded = _read_metadata(path, self._config_hash)
        names, expected, treedef = _flatten(like)
        if names != list(recorded):
            odd = sorted(set(names) ^ set(recorded)) or names
            side = "lacks" if odd[0] in names else "has besides"
            raise UserError(f"checkpoint {path} has another structure: it {side} the leaf {odd[0]!r} of this run")
        for name, leaf in zip(names, expected, strict=True):
            there = recorded[name]
            if [there["shape"], there["dtype"]] != [list(leaf.shape), str(leaf.dtype)]:
                raise UserError(
                    f"checkpoint {path} has another shape: {name} is {there['dtype']}{there['shape']} there, "
                    f"this run needs {leaf.dtype}{list(leaf.shape)}"
                )
        leaves = []
        for name, data in zip(names, _orbax_restore(path / _STATE, len(names), target=path), strict=True):
            if _sha256(data) != recorded[name]["sha256"]:
                raise UserError(f"checkpoint {path} is damaged: {name} does not have the hash recorded; {_REMEDY}")
            implementation = recorded[name].get("key_implementation")
            leaves.append(
                data if implementation is None else jax.random.wrap_key_data(jnp.asarray(data), impl=implementation)
            )
        return treedef.unflatten(leaves)

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:08d}"


_REMEDY = "remove that folder to go on from the checkpoint before it"


def _flatten(tree: PyTree) -> tuple[list[str], list[Any], Any]:
    """Leaf names, leaves, structure."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in paths], [leaf for _, leaf in paths], treedef


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(name: str, leaf: Any) -> np.ndarray:
    """A leaf as it is stored: typed PRNG keys as their data."""
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"checkpoint leaf {name} is a {type(leaf).__name__}; expected an array")
    data = jax.random.key_data(cast(jax.Array, leaf)) if _is_key(leaf) else leaf
    if isinstance(data, jax.Array) and not data.is_fully_addressable:
        if not data.is_fully_replicated:
            raise TypeError(f"checkpoint leaf {name} is cut over processes; gather it first")
        data = data.addressable_data(0)
    return np.asarray(data)


def _describe(leaf: Any) -> dict[str, Any]:
    described = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    return described | ({"key_implementation": str(jax.random.key_impl(leaf))} if _is_key(leaf) else {})


def _sha256(data: np.ndarray) -> str:
    digest = hashlib.sha256(f"{data.dtype}{data.shape}".encode())
    digest.update(data.tobytes())
    return digest.hexdigest()


def _read_metadata(path: Path, config_hash: str) -> dict[str, dict[str, Any]]:
    try:
        metadata = json.loads((path / _METADATA).read_bytes())
        schema, there, leaves = metadata["schema"], metadata["config_hash"], metadata["leaves"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} is damaged: {_METADATA} cannot be read ({error!r}); {_REMEDY}") from error
    if schema != SCHEMA:
        raise UserError(f"checkpoint {path} has schema {schema!r}; this version of jaxdistill reads schema {SCHEMA}")
    if there != config_hash:
        raise UserError(
            f"checkpoint {path} belongs to another configuration: its fingerprint is {str(there)[:12]}, "
            f"this run's is {config_hash[:12]}; choose another workdir"
        )
    return leaves


def _checkpointer() -> Any:
    """An orbax checkpointer that waits for no other process: process 0 writes alone, and each reads alone."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _leaf_name(index: int) -> str:
    return f"leaf{index:05d}"


def _orbax_save(folder: Path, leaves: list[np.ndarray], *, target: Path) -> None:
    try:
        _checkpointer().save(folder, {_leaf_name(index): leaf for index, leaf in enumerate(leaves)})
    except ValueError as error:  # tensorstore's own errors carry no errno
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            raise UserError(f"disk full while writing {target}: free some space or choose another folder") from error
        raise


def _orbax_restore(folder: Path, count: int, *, target: Path) -> list[np.ndarray]:
    try:
        restored = _checkpointer().restore(folder)
        return [np.asarray(restored[_leaf_name(index)]) for index in range(count)]
    except Exception as error:  # orbax and tensorstore document no common base for what damaged files raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"checkpoint {target} is damaged: {reason}; {_REMEDY}") from error
