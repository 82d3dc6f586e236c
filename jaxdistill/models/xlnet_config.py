"""What an XLNet is made of, from and to a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.models.config import class_names

ACTIVATIONS: tuple[str, ...] = ("gelu", "gelu_new", "relu", "silu")


@dataclasses.dataclass(frozen=True)
class XLNetConfig:
    """Sizes and switches of an XLNet, checked when made; the defaults are those of the base model.

    Attributes:
      vocabulary: rows of the word table.
      width, layers, heads, intermediate: hidden size, depth, attention heads, size of the feed-forward layer.
      positions: most tokens a row may have. Relative positions set no bound; it was pretrained on 512.
      farthest: distances beyond it count as it; 0 for no such bound.
      norm_epsilon: added to the variance in layer normalisation.
      activation: of the feed-forward layer.
      dropout, head_dropout: rates, used only in training mode; the second is that of the classification head.
      initializer_range: standard deviation of freshly drawn weights.

    Raises:
      UserError: a size below 1, an odd width or one that the heads do not divide, an unknown activation, a bad rate.
    """

    vocabulary: int = 32000
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512
    farthest: int = 0
    norm_epsilon: float = 1e-12
    activation: str = "gelu"
    dropout: float = 0.1
    head_dropout: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        least = dict.fromkeys(("vocabulary", "width", "layers", "heads", "intermediate", "positions"), 1)
        for name, bound in (least | {"farthest": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise UserError(f"xlnet config: {name} is {value!r}; expected a whole number of at least {bound}")
        if self.width % self.heads or self.width % 2:
            raise UserError(f"xlnet config: width {self.width}; expected an even multiple of its {self.heads} heads")
        if self.activation not in ACTIVATIONS:
            accepted = ", ".join(ACTIVATIONS)
            raise UserError(f"xlnet config: activation {self.activation!r} is unknown; supported are {accepted}")
        for name in ("dropout", "head_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"xlnet config: {name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("norm_epsilon", "initializer_range"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"xlnet config: {name} is {getattr(self, name)}; it must be above 0")

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads


_KEYS = {
    "vocabulary": "vocab_size",
    "width": "d_model",
    "layers": "n_layer",
    "heads": "n_head",
    "intermediate": "d_inner",
    "norm_epsilon": "layer_norm_eps",
    "activation": "ff_activation",
    "dropout": "dropout",
    "head_dropout": "summary_last_dropout",
    "initializer_range": "initializer_range",
}
_REQUIRED = ("vocabulary", "width", "layers", "heads", "intermediate")
# What the module computes; files that say otherwise are refused.
_FIXED = {"attn_type": "bi", "bi_data": False, "summary_type": "last", "summary_use_proj": True}
_FIXED |= {"summary_activation": "tanh"}


def xlnet_config(values: Mapping[str, Any], source: str = "config.json") -> XLNetConfig:
    """The config that a Hugging Face `config.json` describes. Its memory of earlier texts (`mem_len`) has no part in
    classification.

    Args:
      values: the parsed file.
      source: where it came from, for error messages.

    Raises:
      UserError: another `model_type`, a missing or unsupported entry, or what `XLNetConfig` refuses.
    """
    if values.get("model_type") != "xlnet":
        raise UserError(f"{source}: model_type {values.get('model_type')!r} is not supported; supported is xlnet")
    for key, value in _FIXED.items():
        if values.get(key, value) != value:
            raise UserError(f"{source}: {key} {values[key]!r} is not supported; supported is {value!r}")
    if missing := [_KEYS[field] for field in _REQUIRED if values.get(_KEYS[field]) is None]:
        raise UserError(f"{source}: no entry {', '.join(missing)}; an xlnet needs it")
    fields = {field: values[key] for field, key in _KEYS.items() if values.get(key) is not None}
    try:
        config = XLNetConfig(**fields, farthest=max(values.get("clamp_len") or 0, 0))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if values.get("d_head", config.head_width) not in (None, config.head_width):
        raise UserError(f"{source}: d_head {values['d_head']!r} is not d_model / n_head, {config.head_width}")
    return config


def huggingface_config(config: XLNetConfig, num_classes: int) -> dict[str, Any]:
    """The `config.json` of a sequence classifier with this XLNet, as transformers reads it."""
    values = {key: getattr(config, field) for field, key in _KEYS.items()}
    values |= {"model_type": "xlnet", "architectures": ["XLNetForSequenceClassification"], "d_head": config.head_width}
    return values | _FIXED | {"clamp_len": config.farthest or -1} | class_names(num_classes)
