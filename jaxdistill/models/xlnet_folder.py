"""XLNets from and to Hugging Face folders."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdistill.core.types import PyTree
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
from jaxdistill.models.names import Path as ParameterPath
from jaxdistill.models.xlnet_config import XLNetConfig, huggingface_config, xlnet_config

# By parameters of a layer: the tensor's name, and its layout. "plain": as ours. "transposed": [out, in]. "heads": the
# last axis cut in heads. "output": [out, heads, features], to be joined and transposed.
_LAYER = {
    ("query", "kernel"): ("rel_attn.q", "heads"),
    ("key", "kernel"): ("rel_attn.k", "heads"),
    ("value", "kernel"): ("rel_attn.v", "heads"),
    ("relative", "kernel"): ("rel_attn.r", "heads"),
    ("output", "kernel"): ("rel_attn.o", "output"),
    ("content", "bias"): ("rel_attn.r_w_bias", "heads"),
    ("position", "bias"): ("rel_attn.r_r_bias", "heads"),
    ("segment", "bias"): ("rel_attn.r_s_bias", "heads"),
    ("segments", "table"): ("rel_attn.seg_embed", "heads"),
    ("attention_norm", "scale"): ("rel_attn.layer_norm.weight", "plain"),
    ("attention_norm", "bias"): ("rel_attn.layer_norm.bias", "plain"),
    ("expand", "kernel"): ("ff.layer_1.weight", "transposed"),
    ("expand", "bias"): ("ff.layer_1.bias", "plain"),
    ("contract", "kernel"): ("ff.layer_2.weight", "transposed"),
    ("contract", "bias"): ("ff.layer_2.bias", "plain"),
    ("norm", "scale"): ("ff.layer_norm.weight", "plain"),
    ("norm", "bias"): ("ff.layer_norm.bias", "plain"),
}
_HEAD = {"pooler": "sequence_summary.summary", "classifier": "logits_proj"}
# Of the query stream, and other tasks' heads.
_IGNORED = ("transformer.mask_emb", "lm_loss.", "qa_outputs.", "start_logits.", "end_logits.", "answer_class.")


def xlnet_tensors(config: XLNetConfig) -> dict[ParameterPath, tuple[str, str]]:
    """Name in `XLNetForSequenceClassification` and layout of every parameter, layers not stacked."""
    found: dict[ParameterPath, tuple[str, str]] = {}
    found["embeddings", "word", "table"] = ("transformer.word_embedding.weight", "plain")
    for i in range(config.layers):
        for path, (name, layout) in _LAYER.items():
            found["layers", str(i), *path] = (f"transformer.layer.{i}.{name}", layout)
    for ours, theirs in _HEAD.items():
        found[ours, "kernel"] = (f"{theirs}.weight", "transposed")
        found[ours, "bias"] = (f"{theirs}.bias", "plain")
    return found


def load_xlnet(folder: Path) -> Checkpoint:
    """Read a classifier, a language model or a bare XLNet.

    Raises:
      UserError: a file missing or broken, another model type, tensors missing, unknown or of a wrong shape.
    """
    config = xlnet_config(read_config_values(folder), str(folder / "config.json"))
    file = Tensors(folder)
    bare = ("word_embedding.", "mask_emb", "layer.")
    spelled = {f"transformer.{name}" if name.startswith(bare) else name: name for name in file.shapes}
    ignored = [name for name in spelled if name.startswith(_IGNORED)]
    found = {name: file.shapes[theirs] for name, theirs in spelled.items() if name not in ignored}
    notes = [f"{folder.name}: {len(ignored)} tensors ignored ({some(ignored)})"] if ignored else []
    table = xlnet_tensors(config)
    for module, theirs in _HEAD.items():
        if not any(name.startswith(f"{theirs}.") for name in found):
            table = {path: tensor for path, tensor in table.items() if path[0] != module}
            if module == "pooler":  # the classifier is drawn afresh for every learner anyhow
                notes.append(f"{folder.name}: no {module} in the checkpoint, it is drawn afresh")
    expected = {name: _shape(path, layout, config) for path, (name, layout) in table.items()}
    check_shapes(folder, "xlnet", expected, found)
    params = {}
    for path, (name, layout) in table.items():
        value = np.asarray(file.read(spelled[name]), np.float32)
        if layout in ("heads", "output"):
            # The heads are the last two axes; biases have no other.
            value = value.reshape(*value.shape[:-2], -1)
        params[path] = value.T if layout in ("transposed", "output") else value
    return Checkpoint(config, unflatten_dict(params), tuple(notes))


def save_xlnet(folder: Path, config: XLNetConfig, params: PyTree, *, tokenizer_from: Path | None = None) -> None:
    """Write a folder that transformers loads as `XLNetForSequenceClassification`, whole or not at all.

    Args:
      folder: must not exist.
      config: see there.
      params: all parameters, classifier included; layers stacked or not.
      tokenizer_from: folder whose tokenizer files are copied along.

    Raises:
      UserError: the folder exists.
    """
    with new_folder(folder, tokenizer_from=tokenizer_from) as temporary:
        flat = flatten_dict(unstack_layers(params))
        # Of the query stream, which classification has no use for; transformers wants it to be there.
        tensors = {"transformer.mask_emb": np.zeros((1, 1, config.width), np.float32)}
        for path, (name, layout) in xlnet_tensors(config).items():
            value = np.asarray(jax.device_get(flat[path]), np.float32)
            value = value.T if layout in ("transposed", "output") else value
            if layout in ("heads", "output"):
                value = value.reshape(*value.shape[:-1], config.heads, config.head_width)
            tensors[name] = np.ascontiguousarray(value)
        num_classes = jnp.shape(params["classifier"]["bias"])[0]
        write_model(temporary, huggingface_config(config, num_classes), tensors)


def _shape(path: ParameterPath, layout: str, config: XLNetConfig) -> tuple[int, ...] | None:
    """Shape of the tensor of a parameter; `None` for the classifier's, which has as many classes as it has."""
    if path[0] == "classifier":
        return None
    module, leaf = path[-2:]
    width, inner, heads = config.width, config.intermediate, (config.heads, config.head_width)
    if layout == "heads":
        return {"kernel": (width, *heads), "bias": heads, "table": (2, *heads)}[leaf]
    if layout == "output":
        return (width, *heads)
    if leaf == "table":
        return (config.vocabulary, width)
    sizes = {"expand": (inner, width), "contract": (width, inner)}
    return sizes.get(module, (width, width)) if leaf == "kernel" else sizes.get(module, (width,))[:1]
