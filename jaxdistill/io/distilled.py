"""The distilled-set folder.

data.parquet        text-level sets: text columns, `label`, `label_name`, `soft_label`
arrays.safetensors  learned arrays; the whole set when it is embedding-level
manifest.json       where it comes from, and hash, shape and dtype of everything
README.md           a Hugging Face data card: `datasets.load_dataset(folder)` reads a text-level folder
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Synthetic
from jaxdistill.io import atomic
from jaxdistill.io.card import data_card
from jaxdistill.io.plain import dumps, first_difference, plain
from jaxdistill.io.tables import read_table, write_table
from jaxdistill.io.versions import versions

SCHEMA = 1
DATA, ARRAYS, MANIFEST, CARD = "data.parquet", "arrays.safetensors", "manifest.json", "README.md"
# What the maker of a set must say of it (values may be null), and what saving adds.
GIVEN = ("task", "method", "learner", "config", "seeds", "source_hash", "cost")
ADDED = ("schema", "level", "examples", "text_columns", "label_names", "arrays", "files", "versions")
_PARTS = tuple(field.name for field in dataclasses.fields(cast(Any, Synthetic)))
_KINDS = {"examples": int, "text_columns": list, "label_names": list, "arrays": dict, "files": dict}


@dataclasses.dataclass(frozen=True, eq=False)
class DistilledSet:
    """A distilled set on the host, ready to be saved or trained on.

    Attributes:
      labels: hard label of each sample.
      label_names: name of each class.
      manifest: the fields `GIVEN`, and any others that have a JSON form ("result" is shown in the data card).
      synthetic: learned arrays (numpy leaves), or `None` when nothing but texts and labels was chosen.
      texts: one or two strings a sample, or `None` for an embedding-level set.
      text_columns: names of the texts; as many as each sample has.
      soft_labels: label probabilities, or `None`.
      support: named arrays that go with the set (token ids of the texts, say), or `None`.
    """

    labels: Int[np.ndarray, " n"]
    label_names: tuple[str, ...]
    manifest: dict[str, Any]
    synthetic: Synthetic | None = None
    texts: list[tuple[str, ...]] | None = None
    text_columns: tuple[str, ...] = ()
    soft_labels: Float[np.ndarray, "n c"] | None = None
    support: dict[str, np.ndarray] | None = None

    @property
    def level(self) -> str:
        """ "text" when the samples can be read, "embedding" when they are vectors."""
        return "embedding" if self.texts is None else "text"

    @property
    def size_in_bytes(self) -> int:
        """Bytes of what the set says: UTF-8 texts, four a hard label, and every learned array."""
        texts = sum(len(text.encode()) for sample in self.texts or [] for text in sample)
        return texts + self.labels.size * 4 + sum(array.nbytes for array in _arrays(self).values())


def save_distilled(folder: str | os.PathLike, distilled: DistilledSet) -> None:
    """Write a distilled-set folder atomically; one already there is replaced.

    Raises:
      UserError: the set holds a non-finite number, or the disk is full; nothing is left half-written.
      ValueError: the parts of the set do not fit together, or the manifest lacks a field of `GIVEN`.
    """
    missing = [name for name in GIVEN if name not in distilled.manifest]
    if missing:
        raise ValueError(f"the manifest of a distilled set lacks {missing[0]!r}; it needs {', '.join(GIVEN)}")
    if problem := _mismatch(distilled):
        raise ValueError(f"distilled set: {problem}")
    if problem := _not_finite(distilled):
        raise UserError(f"distilled set for {folder}: {problem}; a set of finite numbers is needed to save it")
    arrays = _arrays(distilled)
    files: dict[str, bytes] = {}
    if distilled.texts is not None:
        arrays.pop("soft_labels", None)  # a column of the table
        files[DATA] = write_table(
            distilled.texts, distilled.text_columns, distilled.labels, distilled.label_names, distilled.soft_labels
        )
    else:
        arrays["labels"] = np.asarray(distilled.labels, np.int32)
    if arrays:
        from safetensors.numpy import save

        files[ARRAYS] = save(arrays)
    manifest = {"schema": SCHEMA, "level": distilled.level}
    manifest |= {name: value for name, value in distilled.manifest.items() if name not in ADDED}
    manifest |= {
        "examples": len(distilled.labels),
        "text_columns": distilled.text_columns,
        "label_names": distilled.label_names,
        "arrays": {name: {"shape": array.shape, "dtype": str(array.dtype)} for name, array in arrays.items()},
        "files": {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in files.items()},
        "versions": distilled.manifest.get("versions") or versions(),
    }
    manifest = plain(manifest)
    with atomic.folder(folder) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / CARD).write_text(data_card(manifest), encoding="utf-8")
        (temporary / MANIFEST).write_text(dumps(manifest) + "\n", encoding="utf-8")


def load_distilled(folder: str | os.PathLike, *, expect: Mapping[str, Any] | None = None) -> DistilledSet:
    """Read and check a distilled-set folder.

    Args:
      folder: as `save_distilled` wrote it.
      expect: manifest fields that must have these values; nested mappings are compared by the keys they name, as in
        `{"level": "embedding", "config": {"method": {"steps": 1}}}`.

    Raises:
      UserError: one line that says what is wrong: not such a folder, another schema, a missing or damaged file, a
        missing array, a shape or hash that differs from the manifest, a non-finite number, or an `expect` that fails.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if expect is not None and (difference := first_difference(plain(expect), manifest, subset=True)) is not None:
        name, wanted, there = difference
        raise UserError(
            f"distilled set {folder}: {name} is {dumps(there, indent=None)}; expected {dumps(wanted, indent=None)}"
        )
    arrays = _read_arrays(folder, manifest)
    soft_labels = arrays.pop("soft_labels", None)
    if manifest["level"] == "text":
        data = _read_file(folder, DATA, manifest)
        try:
            texts, labels, soft_labels = read_table(data, tuple(manifest["text_columns"]))
        except ValueError as error:
            raise UserError(f"distilled set {folder}: {DATA} {error}") from error
    else:
        texts, labels = None, arrays.pop("labels")
    learned = {name.removeprefix("synthetic."): arrays[name] for name in arrays if name.startswith("synthetic.")}
    support = {name.removeprefix("support."): arrays[name] for name in arrays if name.startswith("support.")}
    distilled = DistilledSet(
        labels=labels,
        label_names=tuple(manifest["label_names"]),
        manifest=manifest,
        synthetic=Synthetic(**learned) if learned else None,
        texts=texts,
        text_columns=tuple(manifest["text_columns"]),
        soft_labels=soft_labels,
        support=support or None,
    )
    if len(labels) != manifest["examples"]:
        raise UserError(f"distilled set {folder}: {len(labels)} examples; {MANIFEST} says {manifest['examples']}")
    if problem := _mismatch(distilled) or _not_finite(distilled):
        raise UserError(f"distilled set {folder}: {problem}")
    return distilled


def _arrays(distilled: DistilledSet) -> dict[str, np.ndarray]:
    """Every array of the set but the hard labels, by the name it has in the safetensors file."""
    arrays = {}
    for name in _PARTS:
        value = getattr(distilled.synthetic, name) if distilled.synthetic is not None else None
        if value is not None:
            arrays[f"synthetic.{name}"] = np.ascontiguousarray(value)
    if distilled.soft_labels is not None:
        arrays["soft_labels"] = np.ascontiguousarray(distilled.soft_labels, np.float32)
    for name, value in (distilled.support or {}).items():
        arrays[f"support.{name}"] = np.ascontiguousarray(value)
    return arrays


def _mismatch(distilled: DistilledSet) -> str | None:
    """What does not fit together, in words, or `None`."""
    if distilled.labels.ndim != 1 or not len(distilled.labels) or distilled.labels.dtype.kind != "i":
        return f"labels is {distilled.labels.dtype}{list(distilled.labels.shape)}; expected a vector of whole numbers"
    examples, classes = len(distilled.labels), len(distilled.label_names)
    outside = [int(label) for label in distilled.labels if not 0 <= label < classes]
    if outside:
        return f"label {outside[0]} is outside the {classes} classes {', '.join(distilled.label_names)}"
    if distilled.texts is None and (distilled.synthetic is None or distilled.synthetic.inputs is None):
        return "it has neither texts nor input embeddings"
    if distilled.texts is not None:
        if len(distilled.texts) != examples:
            return f"{len(distilled.texts)} texts for {examples} labels"
        if any(len(sample) != len(distilled.text_columns) for sample in distilled.texts):
            return f"a sample does not have the {len(distilled.text_columns)} texts {distilled.text_columns}"
    per_example = {name: array for name, array in _arrays(distilled).items() if not name.startswith("support.")}
    per_example.pop("synthetic.raw_lr", None)
    for name, array in per_example.items():
        if not array.ndim or array.shape[0] != examples:
            return f"{name} has shape {list(array.shape)}; expected {examples} along the first axis"
        if name == "synthetic.labels" and classes == 2 and array.shape == (examples, 1):
            continue  # one number tells two classes apart
        if name in ("synthetic.labels", "soft_labels") and array.shape != (examples, classes):
            return f"{name} has shape {list(array.shape)}; expected {[examples, classes]}"
    return None


def _not_finite(distilled: DistilledSet) -> str | None:
    for name, array in _arrays(distilled).items():
        if jnp.issubdtype(array.dtype, jnp.floating):
            bad = int(array.size - np.isfinite(array).sum())
            if bad:
                return f"{name} holds {bad} non-finite numbers of {array.size}"
    return None


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"distilled set {folder} is not a folder; expected one that holds {MANIFEST}")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise UserError(f"distilled set {folder} has no {MANIFEST}; expected a folder written by jaxdistill") from None
    except ValueError as error:
        raise UserError(f"distilled set {folder}: {MANIFEST} is not valid JSON ({error})") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(f"distilled set {folder} has schema {schema!r}; this version of jaxdistill reads {SCHEMA}")
    for name in (*ADDED, *GIVEN):
        if name not in manifest:
            raise UserError(f"distilled set {folder}: {MANIFEST} lacks the field {name!r}")
    for name, kind in _KINDS.items():
        if not isinstance(manifest[name], kind):
            raise UserError(
                f"distilled set {folder}: {name} is a {type(manifest[name]).__name__} in {MANIFEST}; "
                f"expected {kind.__name__}"
            )
    if manifest["level"] not in ("text", "embedding"):
        raise UserError(f"distilled set {folder}: level is {manifest['level']!r}; expected 'text' or 'embedding'")
    return manifest


def _read_file(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """The bytes of a file, after comparing their hash."""
    recorded = manifest["files"].get(name)
    if not isinstance(recorded, dict) or not {"sha256", "bytes"} <= recorded.keys():
        raise UserError(f"distilled set {folder}: {MANIFEST} lists no {name} with its sha256 and bytes")
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        raise UserError(f"distilled set {folder} has no {name}, which {MANIFEST} lists") from None
    found = _sha256(data)
    if found != recorded["sha256"]:
        raise UserError(
            f"distilled set {folder}: {name} has hash {found[:12]} ({len(data)} bytes); {MANIFEST} says "
            f"{recorded['sha256'][:12]} ({recorded['bytes']} bytes)"
        )
    return data


def _read_arrays(folder: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """All arrays, each checked against the manifest."""
    declared = manifest["arrays"]
    needed = [] if manifest["level"] == "text" else ["labels", "synthetic.inputs"]
    known = {f"synthetic.{name}" for name in _PARTS} | {"labels", "soft_labels"}
    for name in declared:
        if name not in known and not name.startswith("support."):
            raise UserError(
                f"distilled set {folder}: {MANIFEST} names an unknown array {name!r}; "
                f"expected {', '.join(sorted(known))} or support.*"
            )
    if ARRAYS in manifest["files"] or declared or needed:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        data = _read_file(folder, ARRAYS, manifest)
        try:
            arrays = load(data)
        except (SafetensorError, KeyError) as error:
            raise UserError(f"distilled set {folder}: {ARRAYS} is not a safetensors file ({error})") from None
    else:
        arrays = {}
    for name in [*declared, *needed]:
        if name not in arrays or name not in declared:
            where = ARRAYS if name in declared else MANIFEST
            raise UserError(f"distilled set {folder}: the array {name!r} is missing from {where}")
    for name, array in arrays.items():
        found, recorded = {"shape": list(array.shape), "dtype": str(array.dtype)}, declared.get(name)
        if found != recorded:
            raise UserError(f"distilled set {folder}: array {name!r} is {found}; {MANIFEST} says {recorded}")
    return arrays


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
