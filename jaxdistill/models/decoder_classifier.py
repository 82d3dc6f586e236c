"""Decoders with a classification head from and to Hugging Face folders.

Parameters are those of `models.decoder` with another head::

    embeddings, layers: as there
    final / norm / {scale, bias},  final / project / kernel: what is left of `head`, where there is any of it
    classifier / kernel: called `score` in checkpoints
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxdistill.core.types import PyTree
from jaxdistill.models import decoder_names
from jaxdistill.models.config import class_names
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_families import CLASSES, huggingface_config
from jaxdistill.models.decoder_folder import read_decoder_config
from jaxdistill.models.decoder_names import Tensor
from jaxdistill.models.encoder import unstack_layers
from jaxdistill.models.model_folder import Checkpoint, Tensors, check_shapes, new_folder, write_model

SCORE = "score.weight"


def from_decoder(params: dict) -> dict:
    """Parameters of a decoder without the output matrix of the language model."""
    head = {name: part for name, part in params.get("head", {}).items() if isinstance(part, dict)}
    return {name: part for name, part in params.items() if name != "head"} | ({"final": head} if head else {})


def to_decoder(params: dict) -> dict:
    """What `Decoder.states` and `Decoder.features` read, of the parameters of a classifier."""
    body = {name: part for name, part in params.items() if name not in ("classifier", "final")}
    return body | {"head": params["final"]} if "final" in params else body


def load_decoder_classifier(folder: Path) -> Checkpoint:
    """Read a causal language model, a bare decoder, or a decoder with a classification head.

    Raises:
      UserError: a file missing or broken, an unsupported model type, tensors missing, unknown or of a wrong shape.
    """
    config = read_decoder_config(folder)
    file = Tensors(folder)
    used = decoder_names.used_names(file.shapes, config)
    found = {name: file.shapes[theirs] for name, theirs in used.items() if not name.startswith("lm_head.")}
    table = _tensors(config, SCORE in found)
    shapes: Any = flatten_dict(jax.eval_shape(lambda key: init_decoder(Decoder(config), key), jax.random.key(0)))
    expected = {
        tensor.name: decoder_names.tensor_shape(tensor.layout, [shapes[_there(path)].shape for path in tensor.paths])
        for tensor in table
        if tensor.name != SCORE
    }
    # The classifier may have as many classes as the checkpoint was trained on.
    check_shapes(folder, f"{config.family} classifier", expected | ({SCORE: None} if SCORE in found else {}), found)
    params: dict = {}
    for tensor in table:
        parts = decoder_names.split(config, tensor.layout, file.read(used[tensor.name]))
        params |= {path: np.asarray(part, np.float32) for path, part in zip(tensor.paths, parts, strict=True)}
    return Checkpoint(config, unflatten_dict(params), ())


def save_decoder_classifier(
    folder: Path, config: DecoderConfig, params: PyTree, *, tokenizer_from: Path | None = None
) -> None:
    """Write a folder that transformers loads as `...ForSequenceClassification`, whole or not at all.

    Args:
      folder: must not exist.
      config: of the decoder.
      params: all parameters, classifier included; layers stacked or not.
      tokenizer_from: folder whose tokenizer files are copied along.

    Raises:
      UserError: the folder exists.
    """
    with new_folder(folder, tokenizer_from=tokenizer_from) as temporary:
        flat = flatten_dict(unstack_layers(params))
        tensors = {}
        for tensor in _tensors(config, True):
            parts = [np.asarray(jax.device_get(flat[path]), np.float32) for path in tensor.paths]
            tensors[tensor.name] = np.ascontiguousarray(decoder_names.join(config, tensor.layout, parts))
        values = huggingface_config(config) | class_names(jnp.shape(params["classifier"]["kernel"])[1])
        values["architectures"] = [f"{CLASSES[config.family]}ForSequenceClassification"]
        write_model(temporary, values, tensors)


def _tensors(config: DecoderConfig, classifier: bool) -> list[Tensor]:
    """Every tensor of a classifier."""
    found = [
        tensor._replace(paths=tuple(_here(path) for path in tensor.paths))
        for tensor in decoder_names.decoder_tensors(config)
        if not tensor.name.startswith("lm_head.")
    ]
    return found + ([Tensor(SCORE, (("classifier", "kernel"),), "transposed")] if classifier else [])


def _here(path: tuple[str, ...]) -> tuple[str, ...]:
    return ("final", *path[1:]) if path[0] == "head" else path


def _there(path: tuple[str, ...]) -> tuple[str, ...]:
    return ("head", *path[1:]) if path[0] == "final" else path
