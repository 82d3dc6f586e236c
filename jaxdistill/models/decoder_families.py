"""Decoder configs from and to the `config.json` of Hugging Face folders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.models.decoder_config import FAMILIES, FIXED, DecoderConfig, RotaryScaling

_COMMON = {"vocabulary": "vocab_size", "initializer_range": "initializer_range", "tied_head": "tie_word_embeddings"}
_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "positions": "max_position_embeddings",
    "attention_dropout": "attention_dropout",
}
_KEYS: dict[str, dict[str, str]] = {
    "gpt2": _COMMON
    | {
        "width": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "positions": "n_positions",
        "intermediate": "n_inner",
        "activation": "activation_function",
        "norm_epsilon": "layer_norm_epsilon",
        "scale_scores": "scale_attn_weights",
        "scale_by_layer": "scale_attn_by_inverse_layer_idx",
        "embedding_dropout": "embd_pdrop",
        "residual_dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    },
    "opt": _COMMON
    | _SIZES
    | {
        "intermediate": "ffn_dim",
        "embedding_width": "word_embed_proj_dim",
        "activation": "activation_function",
        "attention_bias": "enable_bias",
        "norm_affine": "layer_norm_elementwise_affine",
        "residual_dropout": "dropout",
        "initializer_range": "init_std",
    },
    "llama": _COMMON
    | _SIZES
    | {
        "kv_heads": "num_key_value_heads",
        "head_width": "head_dim",
        "intermediate": "intermediate_size",
        "activation": "hidden_act",
        "norm_epsilon": "rms_norm_eps",
        "attention_bias": "attention_bias",
        "feed_forward_bias": "mlp_bias",
    },
    "phi": _COMMON
    | _SIZES
    | {
        "kv_heads": "num_key_value_heads",
        "intermediate": "intermediate_size",
        "activation": "hidden_act",
        "norm_epsilon": "layer_norm_eps",
        "embedding_dropout": "embd_pdrop",
        "residual_dropout": "resid_pdrop",
    },
    "falcon": _COMMON
    | _SIZES
    | {
        "intermediate": "ffn_hidden_size",
        "activation": "activation",
        "norm_epsilon": "layer_norm_epsilon",
        "attention_bias": "bias",
        "residual_dropout": "hidden_dropout",
    },
}
# What transformers takes where a file says nothing.
_NO_DROPOUT = {"embedding_dropout": 0.0, "residual_dropout": 0.0, "attention_dropout": 0.0}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"positions": 1024},
    "opt": {"positions": 2048, "activation": "relu"} | _NO_DROPOUT | {"residual_dropout": 0.1},
    "llama": {"positions": 2048, "activation": "silu", "norm_epsilon": 1e-6, "tied_head": False}
    | {"attention_bias": False, "feed_forward_bias": False}
    | _NO_DROPOUT,
    "phi": {"positions": 2048, "tied_head": False} | _NO_DROPOUT,
    "falcon": {"positions": 2048, "activation": "gelu", "attention_bias": False} | _NO_DROPOUT,
}
# How transformers starts the names of a family's classes.
CLASSES = dict(zip(FAMILIES, ("GPT2", "OPT", "Llama", "Phi", "Falcon"), strict=True))
_ARCHITECTURES = {family: f"{name}ForCausalLM" for family, name in CLASSES.items()} | {"gpt2": "GPT2LMHeadModel"}
_SAME_ACTIVATION = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
# Switches that change what is computed in ways the module does not have.
_REFUSED = ("add_cross_attention", "qk_layernorm", "quantization_config")


def decoder_config(values: Mapping[str, Any], source: str = "config.json") -> DecoderConfig:
    """The config that a Hugging Face `config.json` describes.

    GPT-2's `reorder_and_upcast_attn` asks for what is done always: scores and softmax in float32.

    Args:
      values: the parsed file.
      source: where it came from, for error messages.

    Raises:
      UserError: an unsupported `model_type`, a missing or unsupported entry, or what `DecoderConfig` refuses.
    """
    family = values.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{source}: model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    for switch in _REFUSED:
        if values.get(switch):
            raise UserError(f"{source}: {switch} is {values[switch]!r}; decoders with it are not supported")
    keys = _KEYS[family]
    fields: dict[str, Any] = FIXED[family] | _DEFAULTS[family]
    fields |= {field: values[key] for field, key in keys.items() if values.get(key) is not None}
    missing = [keys[field] for field in ("vocabulary", "width", "layers", "heads") if field not in fields]
    if missing:
        raise UserError(f"{source}: no entry {', '.join(missing)}; a decoder of type {family} needs it")
    width, heads = fields["width"], fields["heads"]
    if "head_width" not in fields and (not heads or width % heads):
        raise UserError(f"{source}: {keys['width']} {width} is not a multiple of its {heads} heads")
    activation = fields.get("activation", "gelu_new")
    fields["activation"] = _SAME_ACTIVATION.get(activation, activation)
    derived = {"kv_heads": heads, "head_width": width // heads, "embedding_width": width}
    if "intermediate" not in fields:
        if family in ("llama", "phi"):
            raise UserError(f"{source}: no entry {keys['intermediate']}; a decoder of type {family} needs it")
        derived["intermediate"] = 3072 if family == "opt" else 4 * width
    fields = derived | fields
    if family == "opt":
        before = values.get("do_layer_norm_before", True)
        fields["norm_place"] = "before" if before else "after"
        fields["feed_forward_bias"] = fields.get("attention_bias", True)
        fields["final_norm"] = bool(before and not values.get("_remove_final_layer_norm"))
    if family == "falcon":
        fields |= _falcon(values, heads, source) | {"feed_forward_bias": fields["attention_bias"]}
    if fields["positions_by"] == "rotation":
        fields |= _rotary(values, family, fields["head_width"], fields["positions"], source)
    end = values.get("eos_token_id")
    fields["end_tokens"] = () if end is None else tuple(end) if isinstance(end, list) else (end,)
    fields |= {"start_token": values.get("bos_token_id"), "padding_token": values.get("pad_token_id")}
    try:
        return DecoderConfig(family=family, **fields)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def huggingface_config(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a causal language model with this decoder, as transformers reads it."""
    family = config.family
    values: dict[str, Any] = {key: getattr(config, field) for field, key in _KEYS[family].items()}
    values |= {
        "model_type": family,
        "architectures": [_ARCHITECTURES[family]],
        "bos_token_id": config.start_token,
        "eos_token_id": config.end_tokens[0] if len(config.end_tokens) == 1 else list(config.end_tokens) or None,
        "pad_token_id": config.padding_token,
    }
    if family == "opt":
        before = config.norm_place == "before"
        values |= {"do_layer_norm_before": before, "_remove_final_layer_norm": before and not config.final_norm}
    if family == "falcon":
        # The old layouts of keys and values where they can say it, the new one with its groups elsewhere.
        new = config.parallel_norms == 2 or config.kv_heads not in (1, config.heads)
        values |= {
            "new_decoder_architecture": new,
            "multi_query": config.kv_heads == 1,
            "num_kv_heads": config.kv_heads if new else config.heads,
            "parallel_attn": config.parallel_norms > 0,
            "num_ln_in_parallel_attn": config.parallel_norms if new else None,
            "alibi": config.positions_by == "alibi",
        }
    if config.positions_by == "rotation":
        values |= _rotary_values(config)
    return values


def _falcon(values: Mapping[str, Any], heads: int, source: str) -> dict[str, Any]:
    """Fields that follow from Falcon's switches."""
    new, parallel = bool(values.get("new_decoder_architecture")), values.get("parallel_attn", True)
    norms = values.get("num_ln_in_parallel_attn")
    if new and not parallel:
        raise UserError(f"{source}: new_decoder_architecture is always parallel, but parallel_attn is {parallel!r}")
    if not new and norms == 2 and parallel:
        raise UserError(f"{source}: num_ln_in_parallel_attn 2 needs new_decoder_architecture")
    if new:
        kv_heads, norms = values.get("num_kv_heads") or heads, 2 if norms is None else norms
    else:
        kv_heads, norms = 1 if values.get("multi_query", True) else heads, 1 if parallel else 0
    positions_by = "alibi" if values.get("alibi") else "rotation"
    return {"kv_heads": kv_heads, "parallel_norms": norms, "positions_by": positions_by}


def _rotary(
    values: Mapping[str, Any], family: str, head_width: int, positions: int, source: str
) -> dict[str, int | float | RotaryScaling | None]:
    """Fields of the rotary embedding, from the newer `rope_parameters` or the older loose entries."""
    entries = values.get("rope_scaling") or values.get("rope_parameters") or {}
    kind = entries.get("rope_type", entries.get("type", "default"))
    partial = 0.5 if family == "phi" else 1.0
    for place in (values, entries):
        partial = partial if place.get("partial_rotary_factor") is None else place["partial_rotary_factor"]
    if family != "phi" and partial != 1.0:
        raise UserError(f"{source}: partial_rotary_factor is {partial!r}; {family} rotates whole heads")
    if kind not in ("default", "linear", "llama3"):
        raise UserError(f"{source}: rope_scaling of type {kind!r} is not supported; supported are linear, llama3")
    scaling: RotaryScaling | None = None
    if kind != "default":
        if entries.get("factor") is None:
            raise UserError(f"{source}: rope_scaling of type {kind!r} has no factor")
        fields: dict[str, Any] = {"factor": float(entries["factor"])}
        if kind == "llama3":
            names = {"low": "low_freq_factor", "high": "high_freq_factor"}
            missing = [name for name in names.values() if entries.get(name) is None]
            if missing:
                raise UserError(f"{source}: rope_scaling of type 'llama3' has no {', '.join(missing)}")
            fields |= {field: float(entries[name]) for field, name in names.items()}
            fields["original_positions"] = entries.get("original_max_position_embeddings", positions)
        try:
            scaling = RotaryScaling(kind, **fields)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    base = entries.get("rope_theta") or values.get("rope_theta") or 10000.0
    return {"rotary_width": int(head_width * partial), "rotary_base": float(base), "rotary_scaling": scaling}


def _rotary_values(config: DecoderConfig) -> dict[str, Any]:
    """The loose entries of the rotary embedding, which old and new transformers read alike."""
    values: dict[str, Any] = {"rope_theta": config.rotary_base, "rope_scaling": None}
    if config.family == "phi":
        share = config.rotary_width / config.head_width
        # transformers rounds share * head width down, which must not lose a feature.
        exact = int(config.head_width * share) == config.rotary_width
        values["partial_rotary_factor"] = share if exact else math.nextafter(share, 2.0)
    if scaling := config.rotary_scaling:
        entries: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            entries |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
            entries["original_max_position_embeddings"] = scaling.original_positions
        values["rope_scaling"] = entries | {"rope_theta": config.rotary_base}
    return values
