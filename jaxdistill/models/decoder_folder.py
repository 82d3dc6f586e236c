"""Decoders from and to Hugging Face folders, tensor by tensor."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.models import decoder_names
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_families import decoder_config, huggingface_config
from jaxdistill.models.decoder_names import Tensor
from jaxdistill.models.encoder import unstack_layers
from jaxdistill.models.hub import find_folder
from jaxdistill.models.layers import wide
from jaxdistill.models.model_folder import Tensors, check_shapes, new_folder, read_config_values, write_model
from jaxdistill.models.names import Path as ParameterPath
from jaxdistill.models.tiny import tiny_decoder_config, tiny_decoder_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Shardings of all parameters from their shapes: `parallel.mesh.rule_shardings` with a mesh and rules filled in.
Shardings = Callable[[PyTree], PyTree]


class PretrainedDecoder(NamedTuple):
    """A causal language model ready to use.

    Attributes:
      decoder: the module; static.
      params: its parameters, on the devices.
      config: of the decoder.
      source: what was asked for.
      folder: where the checkpoint lies on disk, `models.tokenizer.load_tokenizer` reads its tokenizer; `None` for
        "tiny".
      notes: what a user should know, one sentence each.
    """

    decoder: Decoder
    params: dict
    config: DecoderConfig
    source: str
    folder: Path | None
    notes: tuple[str, ...]


def load_decoder(
    name: str | os.PathLike[str],
    *,
    dtype: str | jnp.dtype = "float32",
    param_dtype: str | jnp.dtype | None = None,
    scan_layers: bool = False,
    remat_layers: bool = False,
    dropout: float | None = 0.0,
    shardings: Shardings | None = None,
) -> PretrainedDecoder:
    """A causal language model of a folder, a hub id, or "tiny" (random, two layers, for tests and smoke runs).

    Of safetensors files, one tensor at a time is in host memory (with `scan_layers`, one kind of tensor of all layers),
    and goes from there to where `shardings` puts it, so no device holds more than its part.

    Args:
      name: where the checkpoint is.
      dtype: what matrix products run in: float32, bfloat16, or float64.
      param_dtype: what parameters are stored in; `None` means float32, or float64 when computing in it. A frozen
        model that computes in bfloat16 may be stored in it too, for half the memory.
      scan_layers, remat_layers: see `Decoder`.
      dropout: replaces the dropout rates of the config; `None` keeps them. There is dropout only with a key.
      shardings: from shapes of all parameters to their shardings, for instance
        `lambda shapes: rule_shardings(mesh, shapes, sharding_rules(config, ...))`; `None` for the default device.

    Raises:
      UserError: the name leads nowhere, an unsupported model or dtype; tensors missing, unknown or of a wrong shape.
    """
    source = os.fspath(name)
    accepted = ("float32", "bfloat16", "float64")
    stored = wide(jnp.dtype("float32") if str(dtype) not in accepted else jnp.dtype(dtype))
    stored = stored if param_dtype is None else param_dtype
    for given in (dtype, stored):
        if str(given) not in accepted:
            raise UserError(f"decoder {source!r}: dtype {str(given)!r} is unknown; expected {', '.join(accepted)}")
    dtype, stored = jnp.dtype(dtype), jnp.dtype(stored)
    folder = None if source == "tiny" else find_folder(source)
    config = tiny_decoder_config() if folder is None else read_decoder_config(folder)
    if dropout is not None:
        rates = ("embedding_dropout", "residual_dropout", "attention_dropout")
        config = dataclasses.replace(config, **dict.fromkeys(rates, dropout))
    decoder = Decoder(config, dtype, scan_layers, remat_layers)
    if folder is None:
        params = jax.tree.map(lambda p: p.astype(stored), init_decoder(decoder, jax.random.key(0)))
        params = params if shardings is None else jax.device_put(params, shardings(params))
        return PretrainedDecoder(decoder, params, config, source, None, ("the tiny decoder is random, not pretrained",))
    return PretrainedDecoder(decoder, _read(folder, decoder, stored, shardings), config, source, folder, ())


def decoder_tokenizer(loaded: PretrainedDecoder) -> Tokenizer:
    """The tokenizer of a decoder that `load_decoder` loaded.

    Raises:
      UserError: its folder has none.
    """
    return tiny_decoder_tokenizer() if loaded.folder is None else load_tokenizer(loaded.folder)


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The decoder config of a folder."""
    return decoder_config(read_config_values(folder), str(folder / "config.json"))


def save_decoder(
    folder: Path,
    config: DecoderConfig,
    params: PyTree,
    *,
    dtype: str = "float32",
    tokenizer_from: Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> None:
    """Write a folder that transformers loads as `...ForCausalLM`, and `load_decoder` too.

    All tensors are gathered in host memory; the folder is there whole or not at all.

    Args:
      folder: must not exist.
      config: of the decoder.
      params: all parameters; layers stacked or not.
      dtype: of the tensors in the file.
      tokenizer_from: folder whose tokenizer files are copied along.
      tokenizer: written as `tokenizer.json`, one with new tokens for instance, beside a `tokenizer_config.json` that
        names the special tokens of the config; not beside `tokenizer_from`, whose other files would contradict it.

    Raises:
      UserError: the folder exists, or two tokenizers.
    """
    if tokenizer is not None and tokenizer_from is not None:
        raise UserError(f"{folder}: a tokenizer and a folder to copy another from ({tokenizer_from}); give one of both")
    with new_folder(folder, tokenizer_from=tokenizer_from) as temporary:
        params = unstack_layers(params)
        tensors = {}
        for tensor in decoder_names.decoder_tensors(config):
            parts = [np.asarray(jax.device_get(_at(params, path))).astype(jnp.dtype(dtype)) for path in tensor.paths]
            tensors[tensor.name] = np.ascontiguousarray(decoder_names.join(config, tensor.layout, parts))
        write_model(temporary, huggingface_config(config), tensors)
        if tokenizer is not None:
            tokenizer.save(str(temporary / "tokenizer.json"))
            values = _tokenizer_values(config, tokenizer)
            (temporary / "tokenizer_config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _tokenizer_values(config: DecoderConfig, tokenizer: Tokenizer) -> dict[str, str]:
    """What transformers reads beside `tokenizer.json`; without it, it takes the special tokens of the family."""
    ids = {"bos_token": config.start_token, "pad_token": config.padding_token}
    ids |= {"eos_token": config.end_tokens[0] if config.end_tokens else None}
    names = {name: None if number is None else tokenizer.id_to_token(number) for name, number in ids.items()}
    return {"tokenizer_class": "PreTrainedTokenizerFast"} | {k: token for k, token in names.items() if token}


def _read(folder: Path, decoder: Decoder, stored: jnp.dtype, shardings: Shardings | None) -> dict:
    """The parameters of a folder, where they belong."""
    config = decoder.config
    file = Tensors(folder)
    used = decoder_names.used_names(file.shapes, config)
    table = decoder_names.decoder_tensors(config)
    unstacked = _shapes(decoder.clone(scan_layers=False))
    expected = {
        tensor.name: decoder_names.tensor_shape(tensor.layout, [_at(unstacked, path).shape for path in tensor.paths])
        for tensor in table
    }
    check_shapes(
        folder, f"{config.family} decoder", expected, {name: file.shapes[theirs] for name, theirs in used.items()}
    )
    shapes = _shapes(decoder)
    placed = shardings(shapes) if shardings else None

    def fill(paths: tuple[ParameterPath, ...], tensors: list[Tensor]) -> list[Array]:
        """The parameters at `paths`, of one tensor or of those of all layers."""
        leaves = [np.empty(_at(shapes, path).shape, stored) for path in paths]
        stacked = decoder.scan_layers and paths[0][0] == "layers"
        for i, tensor in enumerate(tensors):
            parts = decoder_names.split(config, tensor.layout, file.read(used[tensor.name]))
            for leaf, part in zip(leaves, parts, strict=True):
                (leaf[i] if stacked else leaf)[...] = part
        targets = [None if placed is None else _at(placed, path) for path in paths]
        return [_place(leaf, target) for leaf, target in zip(leaves, targets, strict=True)]

    params: dict = {}
    for paths, tensors in _kinds(table, decoder.scan_layers).items():
        for (*nodes, last), leaf in zip(paths, fill(paths, tensors), strict=True):
            node = params
            for part in nodes:
                node = node.setdefault(part, {})
            node[last] = leaf
    return params


def _kinds(table: list[Tensor], stacked: bool) -> dict[tuple[ParameterPath, ...], list[Tensor]]:
    """Tensors by the parameters they fill; with `stacked`, those of all layers fill the same ones."""
    kinds: dict[tuple[ParameterPath, ...], list[Tensor]] = {}
    for tensor in table:
        paths = tensor.paths
        if stacked:
            paths = tuple((path[0], *path[2:]) if path[0] == "layers" else path for path in paths)
        kinds.setdefault(paths, []).append(tensor)
    return kinds


def _shapes(decoder: Decoder) -> PyTree:
    return jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))


def _place(value: np.ndarray, sharding: Sharding | None) -> Array:
    """An array on the default device, or on those of a sharding, of which each process uploads what it owns."""
    if sharding is None:
        return jnp.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _at(tree: PyTree, path: ParameterPath) -> Any:
    for part in path:
        tree = tree[part]
    return tree
