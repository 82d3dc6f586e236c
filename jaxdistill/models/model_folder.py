"""Hugging Face model folders on disk: config.json, weight files read tensor by tensor, folders written whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.models.tokenizer import FILES as TOKENIZER_FILES
from jaxdistill.models.torch_file import read_torch_file

SHOWN = 3


class Checkpoint(NamedTuple):
    """What the folder of a classifier, or of a body to put a classifier on, holds.

    Attributes:
      config: the record of the family, an `EncoderConfig` for instance.
      params: numpy float32 arrays in the layout of the family's module, layers not stacked; without the parts of the
        head that the checkpoint does not have.
      notes: what was ignored or is missing, one sentence each.
    """

    config: Any
    params: dict
    notes: tuple[str, ...]


def read_config_values(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder.

    Raises:
      UserError: it is missing or no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; expected a Hugging Face model folder")
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, expected an object")
    return values


class Tensors:
    """The tensors of a folder, by name.

    Of safetensors files only the headers are read; a tensor is read when it is asked for. The tensors of a
    `pytorch_model.bin` are all in memory from the start, and each is let go when it has been read.

    Attributes:
      shapes: shape of each tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        for path in _weight_files(folder):
            if path.suffix == ".safetensors":
                self._open(path)
            else:
                self._arrays |= read_torch_file(path)
        self.shapes |= {name: value.shape for name, value in self._arrays.items()}

    def _open(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file = safe_open(path, framework="numpy")
            for name in file.keys():  # noqa: SIM118 (no mapping)
                self.shapes[name] = tuple(file.get_slice(name).get_shape())
                self._files[name] = file
        except SafetensorError as error:
            raise UserError(f"{path}: not a readable safetensors file ({error})") from error

    def read(self, name: str) -> np.ndarray:
        """One tensor; can be asked for once."""
        if name in self._files:
            return self._files.pop(name).get_tensor(name)
        return self._arrays.pop(name)


def _weight_files(folder: Path) -> list[Path]:
    """One or several safetensors files, else pytorch_model.bin."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (folder / single).is_file():
            return [folder / single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{index}: not a shard index with a weight_map") from error
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise UserError(f"{index}: {len(missing)} of its {len(shards)} files missing: {some(missing)}")
            return [folder / shard for shard in shards]
    raise UserError(f"{folder}: no weights; expected model.safetensors, its sharded form, or pytorch_model.bin")


def check_shapes(
    folder: Path, kind: str, expected: Mapping[str, tuple[int, ...] | None], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare the tensors of a checkpoint with those that a model needs.

    Args:
      folder: for the messages.
      kind: of model, for the messages: "bert encoder".
      expected: shapes by name; `None` accepts any.
      found: likewise.

    Raises:
      UserError: tensors missing, unknown or of a wrong shape.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise UserError(f"{folder}: {len(missing)} tensors missing from the checkpoint: {some(missing)}")
    extra = [name for name in found if name not in expected]
    if extra:
        raise UserError(f"{folder}: {len(extra)} tensors that a {kind} has no use for: {some(extra)}")
    wrong = [
        f"{name} is {found[name]}, config.json implies {shape}"
        for name, shape in expected.items()
        if shape is not None and found[name] != shape
    ]
    if wrong:
        raise UserError(f"{folder}: {len(wrong)} tensors of a wrong shape: {some(wrong, '; ')}")


@contextlib.contextmanager
def new_folder(folder: Path, *, tokenizer_from: Path | None = None) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` that becomes it when the block ends well: it is there whole or not
    at all.

    Args:
      folder: must not exist.
      tokenizer_from: folder whose tokenizer files are copied along.

    Raises:
      UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose a new folder to save the model in")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        if tokenizer_from is not None:
            for name in TOKENIZER_FILES:
                if (tokenizer_from / name).is_file():
                    shutil.copyfile(tokenizer_from / name, temporary / name)
        os.chmod(temporary, 0o755)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_model(folder: Path, values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write `config.json` and `model.safetensors`."""
    from safetensors.numpy import save_file

    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def some(items: Sequence[str], separator: str = ", ") -> str:
    """The first few of a list, in words."""
    return separator.join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
