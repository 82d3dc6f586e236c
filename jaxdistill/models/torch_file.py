"""Tensors from a `torch.save`d state dict, without torch and without running anything the file says.

Such a file is a zip archive with a pickle that names tensors and one raw file a storage. The pickle is read with an
allow-list of the four things a state dict needs; every other global is refused, so a file cannot execute code.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxdistill.core.errors import UserError


class _StorageType:
    """Stands for a torch storage class: just its element type."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a `pytorch_model.bin` in the zip format (torch 1.6 or later).

    Raises:
      UserError: another format, a pickle that asks for anything but plain tensors, a truncated or inconsistent file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: not a torch state dict (no data.pkl inside)")
            state = _StateDictUnpickler(archive, pickles[0].removesuffix("data.pkl")).load()
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a torch file in the zip format; convert it to safetensors") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: refused, {error}; convert it to safetensors") from error
    except (KeyError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: damaged torch file ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise UserError(f"{path}: holds something other than a flat dict of tensors; convert it to safetensors")
    return dict(state)


class _StateDictUnpickler(pickle.Unpickler):
    """Reads the pickle of one archive."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        self._file = archive.open(f"{prefix}data.pkl")
        super().__init__(self._file)
        self._archive = archive
        self._prefix = prefix
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which a state dict does not need")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _location, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"its pickle refers to a {kind!r}, expected a storage")
        if key not in self._storages:
            raw = self._archive.read(f"{self._prefix}data/{key}")
            values = np.frombuffer(raw, _numpy_dtype(storage_type.dtype))
            if values.size < count:
                raise ValueError(f"storage {key} holds {values.size} of {count} elements")
            self._storages[key] = values
        return self._storages[key]


def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: Any
) -> np.ndarray:
    """The array that a view of a storage describes, copied out of it; bounds are checked."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or any(n < 0 for n in size) or any(s < 0 for s in stride):
        raise ValueError("a tensor with a negative offset, size or stride")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if last >= storage.size:
        raise ValueError(f"a tensor reaches element {last} of a storage of {storage.size}")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()
