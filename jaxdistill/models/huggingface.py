"""Encoders from and to Hugging Face folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.models import names
from jaxdistill.models.config import EncoderConfig, from_huggingface, to_huggingface
from jaxdistill.models.encoder import unstack_layers
from jaxdistill.models.model_folder import (
    Checkpoint,
    Tensors,
    check_shapes,
    new_folder,
    read_config_values,
    some,
    write_model,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_folder(folder: Path) -> Checkpoint:
    """Read `config.json` and the weights of a folder.

    Raises:
      UserError: a file missing or broken, an unsupported model type, tensors missing, unknown or of a wrong shape.
    """
    config = read_config(folder)
    file = Tensors(folder)
    spelled = {names.canonical(name, config.family): name for name in file.shapes}
    ignored = [name for name in spelled if names.ignorable(name)]
    found = {name: file.shapes[theirs] for name, theirs in spelled.items() if name not in ignored}
    unused = [name for name in ignored if not name.endswith("position_ids")]  # a buffer of 0, 1, 2, ..., no weight
    notes = [f"{folder.name}: {len(unused)} tensors ignored ({some(unused)})"] if unused else []
    expected = names.tensor_names(config)
    head = {path: name for path, name in expected.items() if path[0] in ("pooler", "classifier")}
    for module in ("pooler", "classifier"):
        if not any(name in found for path, name in head.items() if path[0] == module):
            expected = {path: name for path, name in expected.items() if path[0] != module}
            if module == "pooler":  # the classifier is drawn afresh for every learner anyhow
                notes.append(f"{folder.name}: no {module} in the checkpoint, it is drawn afresh")
    # The classifier may have as many classes as the checkpoint was trained on.
    shapes = names.parameter_shapes(config, num_classes=None)
    wanted = {
        name: shapes[path][::-1] if path in shapes and path[-1] == "kernel" else shapes.get(path)
        for path, name in expected.items()
    }
    check_shapes(folder, f"{config.family} encoder", wanted, found)
    params: dict = {}
    for path, name in expected.items():
        value = np.asarray(file.read(spelled[name]), np.float32)
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value.T if path[-1] == "kernel" else value
    return Checkpoint(config, params, tuple(notes))


def read_config(folder: Path) -> EncoderConfig:
    """The encoder config of a folder."""
    return from_huggingface(read_config_values(folder), str(folder / "config.json"))


def save_folder(
    folder: Path,
    config: EncoderConfig,
    params: PyTree,
    *,
    tokenizer_from: Path | None = None,
    tokenizer: Tokenizer | None = None,
    label_names: Sequence[str] = (),
) -> None:
    """Write a folder that transformers loads as `...ForSequenceClassification`.

    Written to a temporary folder beside it and renamed, so it is there whole or not at all.

    Args:
      folder: must not exist.
      config: of the encoder.
      params: all parameters, classifier included; layers stacked or not.
      tokenizer_from: folder whose tokenizer files are copied along.
      tokenizer: written as `tokenizer.json`; not beside `tokenizer_from`.
      label_names: of the classes, see `models.config.class_names`.

    Raises:
      UserError: the folder exists, two tokenizers, or names that do not fit the classifier.
    """
    if tokenizer is not None and tokenizer_from is not None:
        raise UserError(f"{folder}: a tokenizer and a folder to copy another from ({tokenizer_from}); give one of both")
    with new_folder(folder, tokenizer_from=tokenizer_from) as temporary:
        params = unstack_layers(params)
        tensors = {}
        for path, name in names.tensor_names(config).items():
            node = params
            for part in path:
                node = node[part]
            value = np.asarray(jax.device_get(node), np.float32)
            tensors[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
        num_classes = jnp.shape(params["classifier"]["bias"])[0]
        write_model(temporary, to_huggingface(config, num_classes, label_names=label_names), tensors)
        if tokenizer is not None:
            tokenizer.save(str(temporary / "tokenizer.json"))
