"""What an encoder is made of: one frozen, checked record for the four families."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxdistill.core.errors import UserError

Family = Literal["bert", "roberta", "distilbert"]
FAMILIES: tuple[str, ...] = ("bert", "roberta", "distilbert")
ACTIVATIONS: tuple[str, ...] = ("gelu", "gelu_new", "relu")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and switches of an encoder, checked when made.

    Attributes:
      family: settles the classification head and the tensor names in a checkpoint. "bert" (MiniLM too): pooler with
        tanh, then classifier. "roberta": the same two layers, but both belong to the head and are drawn afresh.
        "distilbert": a layer with ReLU, then classifier, both drawn afresh.
      vocabulary: rows of the word table.
      width, layers, heads, intermediate: hidden size, depth, attention heads, size of the feed-forward layer.
      positions: rows of the position table.
      position_offset: row of the position table that the first token uses (RoBERTa: 2).
      token_types: rows of the token-type table; 0 for none (DistilBERT).
      norm_epsilon: added to the variance in layer normalisation.
      activation: of the feed-forward layer; "gelu" is the exact one, "gelu_new" its tanh approximation.
      hidden_dropout, attention_dropout, head_dropout: rates, used only in training mode; the last is that of the
        classification head.
      initializer_range: standard deviation of freshly drawn weights.
      attention_implementation: only "xla"; fused kernels have no second derivative, and distillation needs it.

    Raises:
      UserError: a size below 1, a width that the heads do not divide, an unknown family, activation or attention.
    """

    family: Family = "bert"
    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    positions: int = 512
    position_offset: int = 0
    token_types: int = 2
    norm_epsilon: float = 1e-12
    activation: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1
    initializer_range: float = 0.02
    attention_implementation: str = "xla"

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"encoder config: family {self.family!r} is unknown; supported are {', '.join(FAMILIES)}")
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"encoder config: activation {self.activation!r} is unknown; supported are {', '.join(ACTIVATIONS)}"
            )
        if self.attention_implementation != "xla":
            raise UserError(
                f"encoder config: attention implementation {self.attention_implementation!r} is refused because only "
                "'xla' has a second derivative (fused cudnn and pallas kernels have none), which distillation needs"
            )
        least = dict.fromkeys(("vocabulary", "width", "layers", "heads", "intermediate", "positions"), 1)
        for name, bound in (least | {"token_types": 0, "position_offset": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise UserError(f"encoder config: {name} is {value!r}; expected a whole number of at least {bound}")
        if self.width % self.heads:
            raise UserError(f"encoder config: width {self.width} is not a multiple of its {self.heads} heads")
        if self.position_offset >= self.positions:
            raise UserError(
                f"encoder config: position_offset {self.position_offset} leaves no usable row of {self.positions} "
                "positions; it must be smaller"
            )
        for name in ("hidden_dropout", "attention_dropout", "head_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"encoder config: {name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("norm_epsilon", "initializer_range"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"encoder config: {name} is {getattr(self, name)}; it must be above 0")

    @property
    def max_length(self) -> int:
        """Most positions that one example may have."""
        return self.positions - self.position_offset

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @property
    def fresh_head(self) -> tuple[str, ...]:
        """Head modules that two fresh learners do not share, even when the checkpoint is complete."""
        return ("classifier",) if self.family == "bert" else ("pooler", "classifier")


def from_huggingface(values: Mapping[str, Any], source: str = "config.json") -> EncoderConfig:
    """The config that a Hugging Face `config.json` describes.

    Args:
      values: the parsed file.
      source: where it came from, for error messages.

    Raises:
      UserError: an unsupported `model_type`, a missing or unsupported entry.
    """
    family = values.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{source}: model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    for switch in ("is_decoder", "add_cross_attention"):
        if values.get(switch):
            raise UserError(f"{source}: {switch} is true; only encoders are supported")
    if values.get("position_embedding_type", "absolute") != "absolute":
        kind = values["position_embedding_type"]
        raise UserError(f"{source}: position_embedding_type {kind!r} is not supported; supported is 'absolute'")
    names = _DISTILBERT_KEYS if family == "distilbert" else _BERT_KEYS
    missing = [key for field, key in names.items() if values.get(key) is None and field in _REQUIRED]
    if missing:
        raise UserError(f"{source}: no entry {', '.join(missing)}; an encoder of type {family} needs it")
    fields = {field: values[key] for field, key in names.items() if values.get(key) is not None}
    if family == "distilbert":
        fields = {"head_dropout": 0.2} | fields | {"token_types": 0, "norm_epsilon": 1e-12}
    else:
        # Where the head has no rate of its own, it has that of the body.
        fields.setdefault("head_dropout", fields.get("hidden_dropout", EncoderConfig.hidden_dropout))
    if family == "roberta":
        fields["position_offset"] = int(values.get("pad_token_id", 1)) + 1
    return EncoderConfig(family=family, **fields)


def to_huggingface(
    config: EncoderConfig,
    num_classes: int,
    pad_token_id: int | None = None,
    *,
    label_names: Sequence[str] = (),
) -> dict[str, Any]:
    """The `config.json` of a sequence classifier with this encoder, as transformers reads it.

    Args:
      config: of the encoder.
      num_classes: size of the classifier.
      pad_token_id: of the tokenizer; `None` means 0, or 1 for RoBERTa (whose position offset it fixes anyway).
      label_names: see `class_names`.
    """
    names = _DISTILBERT_KEYS if config.family == "distilbert" else _BERT_KEYS
    architecture = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}[config.family]
    if pad_token_id is None:
        pad_token_id = config.position_offset - 1 if config.family == "roberta" else 0
    values = {key: getattr(config, field) for field, key in names.items()}
    values |= {
        "model_type": config.family,
        "architectures": [f"{architecture}ForSequenceClassification"],
        "pad_token_id": pad_token_id,
    } | class_names(num_classes, label_names)
    if config.family == "distilbert":
        values["sinusoidal_pos_embds"] = False
    return values


def class_names(num_classes: int, label_names: Sequence[str] = ()) -> dict[str, Any]:
    """The entries of a `config.json` that tell how many classes there are, and what they are called.

    Args:
      num_classes: c.
      label_names: one name a class, all different; empty calls them LABEL_0, LABEL_1, ...

    Raises:
      UserError: names that do not fit.
    """
    names = list(label_names) or [f"LABEL_{i}" for i in range(num_classes)]
    if len(set(names)) != num_classes or len(names) != num_classes:
        raise UserError(f"label names {', '.join(names)}: accepted are {num_classes} different ones, one a class")
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


_REQUIRED = ("vocabulary", "width", "layers", "heads", "intermediate", "positions")
_BERT_KEYS = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
    "activation": "hidden_act",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "head_dropout": "classifier_dropout",
    "initializer_range": "initializer_range",
}
_DISTILBERT_KEYS = {
    "vocabulary": "vocab_size",
    "width": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "intermediate": "hidden_dim",
    "positions": "max_position_embeddings",
    "activation": "activation",
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "head_dropout": "seq_classif_dropout",
    "initializer_range": "initializer_range",
}
