"""Encoders from and to Hugging Face folders."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.models import names
from jaxdistill.models.config import EncoderConfig, from_huggingface, to_huggingface
from jaxdistill.models.encoder import unstack_layers
from jaxdistill.models.tokenizer import FILES as TOKENIZER_FILES
from jaxdistill.models.torch_file import read_torch_file

SHOWN = 3


class Checkpoint(NamedTuple):
    """What a folder holds.

    Attributes:
      config: of the encoder.
      params: numpy float32 arrays in the layout of `models.encoder`, layers not stacked; without `pooler` or
        `classifier` where the checkpoint has none.
      notes: what was ignored or is missing, one sentence each.
    """

    config: EncoderConfig
    params: dict
    notes: tuple[str, ...]


def load_folder(folder: Path) -> Checkpoint:
    """Read `config.json` and the weights of a folder.

    Raises:
      UserError: a file missing or broken, an unsupported model type, tensors missing, unknown or of a wrong shape.
    """
    config = read_config(folder)
    tensors = {names.canonical(name, config.family): value for name, value in _read_tensors(folder).items()}
    ignored = [name for name in tensors if names.ignorable(name)]
    tensors = {name: value for name, value in tensors.items() if name not in ignored}
    unused = [name for name in ignored if not name.endswith("position_ids")]  # a buffer of 0, 1, 2, ..., no weight
    notes = [f"{folder.name}: {len(unused)} tensors ignored ({_some(unused)})"] if unused else []
    expected = names.tensor_names(config)
    head = {path: name for path, name in expected.items() if path[0] in ("pooler", "classifier")}
    for module in ("pooler", "classifier"):
        if not any(name in tensors for path, name in head.items() if path[0] == module):
            expected = {path: name for path, name in expected.items() if path[0] != module}
            if module == "pooler":  # the classifier is drawn afresh for every learner anyhow
                notes.append(f"{folder.name}: no {module} in the checkpoint, it is drawn afresh")
    _check(folder, config, expected, tensors)
    params: dict = {}
    for path, name in expected.items():
        value = np.asarray(tensors[name], np.float32)
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value.T if path[-1] == "kernel" else value
    return Checkpoint(config, params, tuple(notes))


def read_config(folder: Path) -> EncoderConfig:
    """The encoder config of a folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; expected a Hugging Face model folder")
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}, expected an object")
    return from_huggingface(values, str(path))


def save_folder(folder: Path, config: EncoderConfig, params: PyTree, *, tokenizer_from: Path | None = None) -> None:
    """Write a folder that transformers loads as `...ForSequenceClassification`.

    Written to a temporary folder beside it and renamed, so it is there whole or not at all.

    Args:
      folder: must not exist.
      config: of the encoder.
      params: all parameters, classifier included; layers stacked or not.
      tokenizer_from: folder whose tokenizer files are copied along.

    Raises:
      UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose a new folder to save the model in")
    from safetensors.numpy import save_file

    params = unstack_layers(params)
    tensors = {}
    for path, name in names.tensor_names(config).items():
        node = params
        for part in path:
            node = node[part]
        value = np.asarray(jax.device_get(node), np.float32)
        tensors[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
    num_classes = jnp.shape(params["classifier"]["bias"])[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        text = json.dumps(to_huggingface(config, num_classes), indent=2, sort_keys=True)
        (temporary / "config.json").write_text(text + "\n", "utf-8")
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        if tokenizer_from is not None:
            for name in TOKENIZER_FILES:
                if (tokenizer_from / name).is_file():
                    shutil.copyfile(tokenizer_from / name, temporary / name)
        os.chmod(temporary, 0o755)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder: one or several safetensors files, else pytorch_model.bin."""
    for single, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", read_torch_file)):
        if (folder / single).is_file():
            return read(folder / single)
        index = folder / f"{single}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"{index}: not a shard index with a weight_map") from error
            missing = [shard for shard in shards if not (folder / shard).is_file()]
            if missing:
                raise UserError(f"{index}: {len(missing)} of its {len(shards)} files missing: {_some(missing)}")
            return {name: value for shard in shards for name, value in read(folder / shard).items()}
    raise UserError(f"{folder}: no weights; expected model.safetensors, its sharded form, or pytorch_model.bin")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error


def _check(
    folder: Path, config: EncoderConfig, expected: Mapping[names.Path, str], tensors: Mapping[str, np.ndarray]
) -> None:
    """Raise for missing, unknown and misshapen tensors."""
    missing = [name for name in expected.values() if name not in tensors]
    if missing:
        raise UserError(f"{folder}: {len(missing)} tensors missing from the checkpoint: {_some(missing)}")
    known = set(expected.values())
    extra = [name for name in tensors if name not in known]
    if extra:
        raise UserError(f"{folder}: {len(extra)} tensors that a {config.family} encoder has no use for: {_some(extra)}")
    shapes = names.parameter_shapes(config, num_classes=None)
    wrong = []
    for path, name in expected.items():
        shape = tensors[name].shape
        want = shapes.get(path)
        if want is None:  # the classifier, of as many classes as the checkpoint was trained on
            continue
        want = want[::-1] if path[-1] == "kernel" else want
        if shape != want:
            wrong.append(f"{name} is {shape}, config.json implies {want}")
    if wrong:
        raise UserError(f"{folder}: {len(wrong)} tensors of a wrong shape: {_some(wrong, '; ')}")


def _some(items: list[str], separator: str = ", ") -> str:
    """The first few of a list, in words."""
    return separator.join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
