"""What a causal language model is made of: one frozen, checked record for the five families."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxdistill.core.errors import UserError

FAMILIES: tuple[str, ...] = ("gpt2", "opt", "llama", "phi", "falcon")
ACTIVATIONS: tuple[str, ...] = ("gelu", "gelu_new", "relu", "silu")

# What the checkpoints of a family cannot differ in.
FIXED: dict[str, dict[str, Any]] = {
    "gpt2": {"positions_by": "table", "attention_bias": True, "feed_forward_bias": True, "final_norm": True},
    "opt": {"positions_by": "table", "position_offset": 2},
    "llama": {"positions_by": "rotation", "norm": "rms", "gated": True, "final_norm": True},
    "phi": {"positions_by": "rotation", "attention_bias": True, "feed_forward_bias": True, "parallel_norms": 1}
    | {"head_bias": True, "final_norm": True},
    "falcon": {"final_norm": True},
}
# What only some families can have; every other family has the value given here.
_RARE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "norm": ("layer", ("llama",)),
    "norm_affine": (True, ("opt",)),
    "norm_place": ("before", ("opt",)),
    "parallel_norms": (0, ("phi", "falcon")),
    "gated": (False, ("llama",)),
    "head_bias": (False, ("phi",)),
    "scale_scores": (True, ("gpt2",)),
    "scale_by_layer": (False, ("gpt2",)),
    "position_offset": (0, ("opt",)),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "family": FAMILIES,
    "activation": ACTIVATIONS,
    "positions_by": ("table", "rotation", "alibi"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after"),
}


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
    """How the frequencies of a rotary embedding are stretched for longer texts.

    Attributes:
      kind: "linear" divides all frequencies by `factor`; "llama3" only the low ones, with a smooth passage between.
      factor: at least 1.
      low, high: of "llama3": a wave that fits fewer than `low` times into `original_positions` is low, more than
        `high` times is left alone.
      original_positions: of "llama3": length of the texts before stretching.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low: float = 1.0
    high: float = 4.0
    original_positions: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3"):
            raise UserError(f"rotary scaling: kind {self.kind!r} is not supported; supported are linear, llama3")
        if not self.factor >= 1.0:
            raise UserError(f"rotary scaling: factor is {self.factor}; it must be at least 1")
        if self.kind == "llama3" and not 0.0 < self.low < self.high:
            raise UserError(f"rotary scaling: low {self.low} and high {self.high}; expected 0 < low < high")
        if self.kind == "llama3" and not self.original_positions >= 1:
            raise UserError(f"rotary scaling: original_positions is {self.original_positions}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a decoder, checked when made. `models.decoder_families.decoder_config` makes one of a
    Hugging Face `config.json`; the defaults here are those of GPT-2 small.

    Attributes:
      family: settles the tensor names in a checkpoint, and what the other fields may be.
      vocabulary: rows of the word table.
      width, layers, intermediate: hidden size, depth, size of the feed-forward layer.
      heads, kv_heads, head_width: query heads, key and value heads (each serves heads/kv_heads query heads), and the
        features of one head.
      positions: most tokens a row may have.
      embedding_width: columns of the word table; other than `width` in OPT-350m, with a projection in and out.
      positions_by: "table" of learned vectors, "rotation" of queries and keys, "alibi" (a bias by key position).
      position_offset: row of the position table that the first token uses (OPT: 2).
      rotary_width: features of each head that are rotated; 0 without rotation.
      rotary_base: wave lengths are 2 pi base^(2i / rotary_width).
      rotary_scaling: see there.
      norm: "layer" or "rms" (no mean, no bias).
      norm_epsilon: added to the variance.
      norm_affine: whether normalisation has weights.
      norm_place: "before" each half of a layer or "after" its residual sum (OPT-350m).
      final_norm: whether the last hidden states are normalised.
      parallel_norms: 0 where the feed-forward layer reads what attention has written; else both read the same hidden
        states, through 1 shared or 2 separate normalisations.
      activation: "gelu" is the exact one, "gelu_new" its tanh approximation.
      gated: whether the feed-forward layer is activation(x W) * (x V).
      attention_bias, feed_forward_bias, head_bias: whether these projections have one.
      tied_head: whether the word table is the output matrix too.
      scale_scores: whether attention scores are divided by the root of the head width.
      scale_by_layer: whether they are divided by the number of the layer, from 1, as well.
      embedding_dropout, residual_dropout, attention_dropout: rates, used only with a key.
      initializer_range: standard deviation of freshly drawn weights.
      start_token, end_tokens, padding_token: token ids that the checkpoint names; for samplers, unused here.
      attention_implementation: only "xla"; fused kernels have neither forward mode nor a second derivative.

    Raises:
      UserError: a size below 1, sizes that do not divide one another, an unknown choice, a combination that the
        family does not have.
    """

    family: str = "gpt2"
    vocabulary: int = 50257
    width: int = 768
    layers: int = 12
    heads: int = 12
    kv_heads: int = 12
    head_width: int = 64
    intermediate: int = 3072
    positions: int = 1024
    embedding_width: int = 768
    positions_by: str = "table"
    position_offset: int = 0
    rotary_width: int = 0
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    norm: str = "layer"
    norm_epsilon: float = 1e-5
    norm_affine: bool = True
    norm_place: str = "before"
    final_norm: bool = True
    parallel_norms: int = 0
    activation: str = "gelu_new"
    gated: bool = False
    attention_bias: bool = True
    feed_forward_bias: bool = True
    head_bias: bool = False
    tied_head: bool = True
    scale_scores: bool = True
    scale_by_layer: bool = False
    embedding_dropout: float = 0.1
    residual_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    start_token: int | None = None
    end_tokens: tuple[int, ...] = ()
    padding_token: int | None = None
    attention_implementation: str = "xla"

    def __post_init__(self) -> None:
        for name, accepted in _CHOICES.items():
            if getattr(self, name) not in accepted:
                raise _error(f"{name} {getattr(self, name)!r} is unknown; supported are {', '.join(accepted)}")
        if self.attention_implementation != "xla":
            raise _error(
                f"attention implementation {self.attention_implementation!r} is refused because only 'xla' has all "
                "the derivatives (fused cudnn and pallas kernels lack forward mode), which distillation needs"
            )
        self._check_sizes()
        self._check_family()

    def _check_sizes(self) -> None:
        least = dict.fromkeys(("vocabulary", "width", "layers", "heads", "kv_heads", "head_width", "intermediate"), 1)
        least |= {"positions": 1, "embedding_width": 1, "position_offset": 0, "rotary_width": 0, "parallel_norms": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < bound:
                raise _error(f"{name} is {value!r}; expected a whole number of at least {bound}")
        if self.heads % self.kv_heads:
            raise _error(f"{self.heads} heads cannot share {self.kv_heads} key-value heads; expected a divisor")
        if self.positions_by == "rotation":
            if self.rotary_width % 2 or not 2 <= self.rotary_width <= self.head_width:
                raise _error(
                    f"rotary_width is {self.rotary_width}; expected an even number from 2 to the head width "
                    f"{self.head_width}"
                )
            if not self.rotary_base > 1.0:
                raise _error(f"rotary_base is {self.rotary_base}; it must be above 1")
        elif self.rotary_width or self.rotary_scaling:
            raise _error(f"rotary_width and rotary_scaling are for positions by rotation, not by {self.positions_by}")
        for name in ("embedding_dropout", "residual_dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise _error(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("norm_epsilon", "initializer_range"):
            if not getattr(self, name) > 0.0:
                raise _error(f"{name} is {getattr(self, name)}; it must be above 0")

    def _check_family(self) -> None:
        family = self.family
        fixed = FIXED[family] | {name: value for name, (value, holders) in _RARE.items() if family not in holders}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise _error(f"{name} is {getattr(self, name)!r}, which {family} has not; expected {value!r}")
        if self.kv_heads != self.heads and family in ("gpt2", "opt"):
            raise _error(f"{self.kv_heads} key-value heads for {self.heads} heads; {family} has as many of both")
        if self.head_width * self.heads != self.width and family != "llama":
            raise _error(
                f"width {self.width} is not {self.heads} heads of {self.head_width}; only llama may differ there"
            )
        if self.embedding_width != self.width and family != "opt":
            raise _error(f"embedding_width {self.embedding_width} is not the width {self.width}; only opt projects")
        if self.attention_bias != self.feed_forward_bias and family in ("opt", "falcon"):
            raise _error(f"attention_bias and feed_forward_bias differ; {family} has one switch for both")
        if self.norm_place == "after" and self.final_norm:
            raise _error("final_norm with norm_place 'after' would normalise the last hidden states twice")
        if family == "falcon":
            self._check_falcon()

    def _check_falcon(self) -> None:
        if self.positions_by == "table":
            raise _error("positions_by is 'table', which falcon has not; expected 'rotation' or 'alibi'")
        if self.parallel_norms not in (0, 1, 2):
            raise _error(f"parallel_norms is {self.parallel_norms}; expected 0, 1 or 2")
        if self.kv_heads not in (1, self.heads) and not self.parallel_norms:
            raise _error(f"{self.kv_heads} key-value heads for {self.heads} heads need parallel_norms 1 or 2 in falcon")

    @property
    def group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads


def _error(text: str) -> UserError:
    return UserError(f"decoder config: {text}")
