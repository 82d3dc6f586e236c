"""T5s from and to Hugging Face folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdistill.core.types import PyTree
from jaxdistill.models.model_folder import Tensors, check_shapes, new_folder, read_config_values, some, write_model
from jaxdistill.models.names import Path as ParameterPath
from jaxdistill.models.t5_config import FEED_FORWARD, T5Config, huggingface_config, t5_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
# Copies of the word table under other names.
_COPIES = ("encoder.embed_tokens.", "decoder.embed_tokens.")


class T5Checkpoint(NamedTuple):
    """What a folder holds: config, parameters as numpy arrays, and what a user should know."""

    config: T5Config
    params: PyTree
    notes: tuple[str, ...]


def t5_tensors(config: T5Config) -> dict[ParameterPath, str]:
    """Name in `T5ForConditionalGeneration` of every parameter; kernels are transposed there."""
    found: dict[ParameterPath, str] = {("shared", "table"): "shared.weight"}
    gated = FEED_FORWARD[config.feed_forward][1]
    dense = {"expand": "wi_0", "gate": "wi_1", "contract": "wo"} if gated else {"expand": "wi", "contract": "wo"}
    for stack, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        if not depth:
            continue
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found[stack, "positions", "table"] = first
        found[stack, "norm", "scale"] = f"{stack}.final_layer_norm.weight"
        parts = {"attention": ("SelfAttention", _ATTENTION)}
        if stack == "decoder":
            parts["cross"] = ("EncDecAttention", _ATTENTION)
        parts["feed_forward"] = ("DenseReluDense", dense)
        for i in range(depth):
            for j, (ours, (theirs, modules)) in enumerate(parts.items()):
                place = f"{stack}.block.{i}.layer.{j}"
                found[stack, str(i), ours, "norm", "scale"] = f"{place}.layer_norm.weight"
                for module, name in modules.items():
                    found[stack, str(i), ours, module, "kernel"] = f"{place}.{theirs}.{name}.weight"
    if config.decoder_layers and not config.tied_head:
        found["head", "kernel"] = "lm_head.weight"
    return found


def load_t5(folder: Path, *, encoder_only: bool = False) -> T5Checkpoint:
    """Read an encoder-decoder, or an encoder alone.

    Args:
      folder: see `models.hub.find_folder`.
      encoder_only: leave a decoder on disk.

    Raises:
      UserError: a file missing or broken, another model type, tensors missing, unknown or of a wrong shape.
    """
    config = t5_config(read_config_values(folder), str(folder / "config.json"))
    file = Tensors(folder)
    config = dataclasses.replace(config, tied_head="lm_head.weight" not in file.shapes)
    config = dataclasses.replace(config, decoder_layers=0) if encoder_only else config
    ignored = [name for name in file.shapes if name.startswith(_COPIES)]
    if not config.decoder_layers:
        ignored += [name for name in file.shapes if name.startswith(("decoder.block", "decoder.final", "lm_head"))]
    found = {name: shape for name, shape in file.shapes.items() if name not in ignored}
    table = t5_tensors(config)
    check_shapes(folder, "t5", {name: _shape(path, config) for path, name in table.items()}, found)
    params = {}
    for path, name in table.items():
        value = np.asarray(file.read(name), np.float32)
        params[path] = value.T if path[-1] == "kernel" else value
    unused = [name for name in ignored if not name.startswith((*_COPIES, "lm_head"))]
    notes = (f"{folder.name}: {len(unused)} tensors ignored ({some(unused)})",) if unused else ()
    return T5Checkpoint(config, unflatten_dict(params), notes)


def save_t5(folder: Path, config: T5Config, params: PyTree, *, tokenizer: Tokenizer | None = None) -> None:
    """Write a folder that transformers loads, whole or not at all.

    Args:
      folder: must not exist.
      config: see there.
      params: all parameters.
      tokenizer: written as `tokenizer.json`.

    Raises:
      UserError: the folder exists.
    """
    with new_folder(folder) as temporary:
        flat, tensors = flatten_dict(params), {}
        for path, name in t5_tensors(config).items():
            value = np.asarray(jax.device_get(flat[path]), np.float32)
            tensors[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
        write_model(temporary, huggingface_config(config), tensors)
        if tokenizer is not None:
            tokenizer.save(str(temporary / "tokenizer.json"))


def _shape(path: ParameterPath, config: T5Config) -> tuple[int, ...]:
    """Of the tensor in the file."""
    inner = config.heads * config.head_width
    if path[-1] == "scale":
        return (config.width,)
    if path[-2] == "positions":
        return (config.buckets, config.heads)
    if path[-2] in ("shared", "head"):
        return (config.vocabulary, config.width)
    if path[-3] == "feed_forward":
        return (config.width, config.intermediate) if path[-2] == "contract" else (config.intermediate, config.width)
    return (config.width, inner) if path[-2] == "output" else (inner, config.width)
