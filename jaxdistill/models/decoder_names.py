"""Which Hugging Face tensor holds which parameters of a decoder, and in which layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.names import Path

# "plain": as ours. "transposed": [out, in]. "columns": query, key and value beside one another along the last axis
# (GPT-2). "groups": [out, in], for each key-value head its queries, its key, its value one after another (Falcon).
Layout = Literal["plain", "transposed", "columns", "groups"]


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
      name: in the family's `...ForCausalLM`.
      paths: our parameters that it holds, layers not stacked.
      layout: how.
    """

    name: str
    paths: tuple[Path, ...]
    layout: Layout


_QKV = ("query", "key", "value")
_GATED = {"gate": "mlp.gate_proj", "expand": "mlp.up_proj", "contract": "mlp.down_proj"}
_PROJECTIONS = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj"}
# The module that starts a layer's names, and the modules of a layer; "query+key+value" are fused.
_LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "gpt2": (
        "transformer.h",
        {
            "query+key+value": "attn.c_attn",
            "output": "attn.c_proj",
            "attention_norm": "ln_1",
            "norm": "ln_2",
            "expand": "mlp.c_fc",
            "contract": "mlp.c_proj",
        },
    ),
    "opt": (
        "model.decoder.layers",
        _PROJECTIONS
        | {
            "output": "self_attn.out_proj",
            "attention_norm": "self_attn_layer_norm",
            "norm": "final_layer_norm",
            "expand": "fc1",
            "contract": "fc2",
        },
    ),
    "llama": (
        "model.layers",
        _PROJECTIONS
        | _GATED
        | {
            "output": "self_attn.o_proj",
            "attention_norm": "input_layernorm",
            "norm": "post_attention_layernorm",
        },
    ),
    "phi": (
        "model.layers",
        _PROJECTIONS
        | {
            "output": "self_attn.dense",
            "attention_norm": "input_layernorm",
            "expand": "mlp.fc1",
            "contract": "mlp.fc2",
        },
    ),
    "falcon": (
        "transformer.h",
        {
            "query+key+value": "self_attention.query_key_value",
            "output": "self_attention.dense",
            "attention_norm": "input_layernorm",
            "norm": "post_attention_layernorm",
            "expand": "mlp.dense_h_to_4h",
            "contract": "mlp.dense_4h_to_h",
        },
    ),
}
_WORDS = {
    "gpt2": "transformer.wte",
    "opt": "model.decoder.embed_tokens",
    "llama": "model.embed_tokens",
    "phi": "model.embed_tokens",
    "falcon": "transformer.word_embeddings",
}
_POSITIONS = {"gpt2": "transformer.wpe", "opt": "model.decoder.embed_positions"}
_FINAL_NORMS = {
    "gpt2": "transformer.ln_f",
    "opt": "model.decoder.final_layer_norm",
    "llama": "model.norm",
    "phi": "model.final_layernorm",
    "falcon": "transformer.ln_f",
}
# Checkpoints of the bare body leave out the first part of the names.
_BARE = {
    "gpt2": ("transformer.", ("wte.", "wpe.", "h.", "ln_f.")),
    "opt": ("model.", ("decoder.",)),
    "llama": ("model.", ("embed_tokens.", "layers.", "norm.")),
    "phi": ("model.", ("embed_tokens.", "layers.", "final_layernorm.")),
    "falcon": ("transformer.", ("word_embeddings.", "h.", "ln_f.")),
}

_BUFFERS = (".attn.bias", ".attn.masked_bias", ".inv_freq", "position_ids")


def decoder_tensors(config: DecoderConfig) -> list[Tensor]:
    """Every tensor that a decoder needs, in the order of the layers."""
    family = config.family
    found = [Tensor(f"{_WORDS[family]}.weight", (("embeddings", "word", "table"),), "plain")]
    if config.positions_by == "table":
        found.append(Tensor(f"{_POSITIONS[family]}.weight", (("embeddings", "position", "table"),), "plain"))
    if config.embedding_width != config.width:
        for ours, theirs in (("embeddings", "project_in"), ("head", "project_out")):
            found.append(Tensor(f"model.decoder.{theirs}.weight", ((ours, "project", "kernel"),), "transposed"))
    stack, modules = _LAYERS[family]
    for i in range(config.layers):
        for ours, theirs in _layer_modules(config, modules).items():
            found += _module(config, ("layers", str(i)), ours, f"{stack}.{i}.{theirs}")
    if config.final_norm:
        found += _module(config, ("head",), "norm", _FINAL_NORMS[family])
    if not config.tied_head:
        found.append(Tensor("lm_head.weight", (("head", "kernel"),), "transposed"))
    if config.head_bias:
        found.append(Tensor("lm_head.bias", (("head", "bias"),), "plain"))
    return found


def _layer_modules(config: DecoderConfig, modules: dict[str, str]) -> dict[str, str]:
    """The modules of one layer, as its normalisations ask for."""
    if config.family == "falcon" and config.parallel_norms == 2:
        return modules | {"attention_norm": "ln_attn", "norm": "ln_mlp"}
    if config.parallel_norms == 1:
        return {ours: theirs for ours, theirs in modules.items() if ours != "norm"}
    return modules


def _module(config: DecoderConfig, place: Path, ours: str, theirs: str) -> list[Tensor]:
    """Weight and bias of one module, those that it has."""
    parts = ours.split("+")
    if ours.endswith("norm"):
        if not config.norm_affine:
            return []
        weight, layout, bias = "scale", "plain", config.norm == "layer"
    else:
        weight = "kernel"
        attends = parts[0] in (*_QKV, "output")
        bias = config.attention_bias if attends else config.feed_forward_bias
        alone, fused = ("plain", "columns") if config.family == "gpt2" else ("transposed", "groups")
        layout = fused if len(parts) > 1 else alone
    found = [Tensor(f"{theirs}.weight", tuple((*place, part, weight) for part in parts), layout)]
    if bias:
        # A vector transposed is itself.
        found.append(Tensor(f"{theirs}.bias", tuple((*place, part, "bias") for part in parts), layout))
    return found


def tensor_shape(layout: Layout, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of a tensor that holds parameters of these shapes."""
    joined = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    return joined[::-1] if layout in ("transposed", "groups") else joined


def split(config: DecoderConfig, layout: Layout, tensor: np.ndarray) -> list[np.ndarray]:
    """The parameters that a tensor holds; views of it, or copies of what is fused."""
    if layout == "columns":
        return np.split(tensor, 3, axis=-1)
    if layout == "groups":
        group, rest = config.group, tensor.shape[1:]
        heads = tensor.reshape(config.kv_heads, group + 2, config.head_width, *rest)
        parts = (heads[:, :group], heads[:, group : group + 1], heads[:, group + 1 :])
        return [part.reshape(-1, *rest).T for part in parts]
    return [tensor.T if layout == "transposed" else tensor]


def join(config: DecoderConfig, layout: Layout, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Undo `split`."""
    if layout == "columns":
        return np.concatenate(parts, axis=-1)
    if layout == "groups":
        rest = parts[0].shape[:-1]
        heads = [part.T.reshape(config.kv_heads, -1, config.head_width, *rest) for part in parts]
        return np.concatenate(heads, axis=1).reshape(-1, *rest)
    return parts[0].T if layout == "transposed" else parts[0]


def used_names(names: Iterable[str], config: DecoderConfig) -> dict[str, str]:
    """Names as the family's `...ForCausalLM` spells them -> the checkpoint's own, for all tensors that matter.

    Mends a body saved without its prefix. Left out are buffers, and one of the two names of a word table that is the
    head's as well: checkpoints hold it under either, or both.
    """
    prefix, bare = _BARE[config.family]
    found = {f"{prefix}{name}" if name.startswith(bare) else name: name for name in names}
    found = {name: theirs for name, theirs in found.items() if not name.endswith(_BUFFERS)}
    if config.tied_head and "lm_head.weight" in found:
        head = found.pop("lm_head.weight")
        found.setdefault(f"{_WORDS[config.family]}.weight", head)
    return found
