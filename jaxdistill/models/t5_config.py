"""What a T5 is made of, from and to a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdistill.core.errors import UserError

# As the files spell it: activation of the feed-forward layer, and whether a second matrix gates it.
FEED_FORWARD = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True), "gated-silu": ("silu", True)}


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes and switches of an encoder-decoder, checked when made; the defaults are those of T5 v1.1 small.

    Attributes:
      vocabulary: rows of the word table.
      width, heads, head_width, intermediate: hidden size, attention heads, features of each, feed-forward size.
      encoder_layers, decoder_layers: depth of each; no decoder makes an encoder alone.
      positions: tokens of a text that a learner reads at most; distances know no limit.
      buckets, farthest: relative positions are told apart in so many buckets, those beyond `farthest` not at all.
      norm_epsilon: added to the mean square.
      feed_forward: "relu", "gated-gelu" or "gated-silu".
      tied_head: the word table is the head too.
      scaled_head: what the head reads is divided by the root of the width.
      dropout: rate, used only in training mode.
      start, end, padding: tokens; a decoder's text follows on the first.
      initializer_factor: of the standard deviations of freshly drawn weights.
    """

    vocabulary: int = 32128
    width: int = 512
    heads: int = 6
    head_width: int = 64
    intermediate: int = 1024
    encoder_layers: int = 8
    decoder_layers: int = 8
    positions: int = 512
    buckets: int = 32
    farthest: int = 128
    norm_epsilon: float = 1e-6
    feed_forward: str = "gated-gelu"
    tied_head: bool = False
    scaled_head: bool = False
    dropout: float = 0.1
    start: int = 0
    end: int = 1
    padding: int = 0
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        least = dict.fromkeys(
            ("vocabulary", "width", "heads", "head_width", "intermediate", "encoder_layers", "positions"), 1
        )
        for name, bound in (least | {"decoder_layers": 0, "buckets": 4, "farthest": 2}).items():
            if not isinstance(value := getattr(self, name), int) or value < bound:
                raise UserError(f"t5 config: {name} is {value!r}; expected a whole number of at least {bound}")
        if self.buckets % 4 or self.farthest <= self.buckets // 2:
            raise UserError(
                f"t5 config: {self.buckets} buckets of distances up to {self.farthest}; expected a multiple of 4, and "
                "distances beyond half of it"
            )
        if self.feed_forward not in FEED_FORWARD:
            raise UserError(
                f"t5 config: feed_forward {self.feed_forward!r} is unknown; supported are {', '.join(FEED_FORWARD)}"
            )
        if not 0.0 <= self.dropout < 1.0 or not self.norm_epsilon > 0.0:
            raise UserError(f"t5 config: dropout {self.dropout} must lie in [0, 1), norm_epsilon above 0")
        for name in ("start", "end", "padding"):
            if not 0 <= getattr(self, name) < self.vocabulary:
                raise UserError(f"t5 config: {name} is {getattr(self, name)}; there are {self.vocabulary} tokens")


_KEYS = {
    "vocabulary": "vocab_size",
    "width": "d_model",
    "heads": "num_heads",
    "head_width": "d_kv",
    "intermediate": "d_ff",
    "encoder_layers": "num_layers",
    "decoder_layers": "num_decoder_layers",
    "positions": "n_positions",
    "buckets": "relative_attention_num_buckets",
    "farthest": "relative_attention_max_distance",
    "norm_epsilon": "layer_norm_epsilon",
    "feed_forward": "feed_forward_proj",
    "scaled_head": "scale_decoder_outputs",
    "dropout": "dropout_rate",
    "start": "decoder_start_token_id",
    "end": "eos_token_id",
    "padding": "pad_token_id",
    "initializer_factor": "initializer_factor",
}
_REQUIRED = ("vocabulary", "width", "heads", "head_width", "intermediate", "encoder_layers")


def t5_config(values: Mapping[str, Any], source: str = "config.json") -> T5Config:
    """The config that a Hugging Face `config.json` describes. Whether the head is tied only the weights tell; files say
    `tie_word_embeddings` and mean by it whether the head's input is scaled.

    Args:
      values: the parsed file.
      source: where it came from, for error messages.

    Raises:
      UserError: another `model_type`, a missing entry, or what `T5Config` refuses.
    """
    if values.get("model_type") != "t5":
        raise UserError(f"{source}: model_type {values.get('model_type')!r} is not supported; supported is t5")
    if missing := [_KEYS[field] for field in _REQUIRED if values.get(_KEYS[field]) is None]:
        raise UserError(f"{source}: no entry {', '.join(missing)}; a t5 needs it")
    fields: dict[str, Any] = {field: values[key] for field, key in _KEYS.items() if values.get(key) is not None}
    # What transformers takes where a file is silent.
    scaled = values.get("tie_word_embeddings") is not False
    given: dict[str, Any] = {"feed_forward": "relu", "decoder_layers": fields["encoder_layers"], "scaled_head": scaled}
    fields = given | fields | {"tied_head": scaled}
    if values.get("is_encoder_decoder") is False or "T5EncoderModel" in (values.get("architectures") or ()):
        fields["decoder_layers"] = 0
    try:
        return T5Config(**fields)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def huggingface_config(config: T5Config) -> dict[str, Any]:
    """The `config.json` of this T5, as transformers reads it."""
    values = {key: getattr(config, field) for field, key in _KEYS.items()}
    values["tie_word_embeddings"] = config.scaled_head
    if not config.decoder_layers:
        values |= {"num_decoder_layers": config.encoder_layers, "is_encoder_decoder": False, "use_cache": False}
        return values | {"model_type": "t5", "architectures": ["T5EncoderModel"]}
    return values | {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
    }
