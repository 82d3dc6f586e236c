"""Settings of the training of a causal language model."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import optax

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import warmup_schedule
from jaxdistill.data.language_batches import Layout, PadTo, Reduction
from jaxdistill.evaluation.recipes import decayed
from jaxdistill.models.lora import LAYER_MATRICES


@dataclasses.dataclass(frozen=True)
class LanguageModelling:
    """AdamW on the likelihood of texts. Either `updates` or `epochs` is given.

    Attributes:
      updates: updates in all; 0 takes `epochs`.
      epochs: passes over the texts; 0 takes `updates`.
      rows: of a batch; where texts are not packed, texts of a batch.
      micro_batches: parts that a batch is cut into, one in memory at a time; the gradient is that of the whole batch.
      row_length: tokens of a row; longer texts are cut into rows.
      truncate: cut off what is beyond a row instead.
      start_token: open each text with the model's start token; without, with what the tokenizer puts there.
      packed: several texts in a row. Only under `token_mean` and without `loss_on_pad`: otherwise a row is a text, in
        whatever this is set to.
      reduction, pad_to: see `data.language_batches.Layout`.
      answer_weight: factor of each text's last token before the end token in the loss; above 1 for texts that end with
        an answer of one token, see `data.corpus.Judged`.
      loss_on_pad: fill rows with the end token, which is read and predicted like any other, as published code does
        whose padding is the end token.
      lr: peak learning rate.
      schedule: decay to 0, along a line or half a cosine wave.
      warmup: share of the updates spent warming up linearly.
      first_update_is_zero: warm-up from factor 0 rather than 1/W.
      weight_decay: decoupled, of matrices.
      decay_norms: whether weights of normalisations decay too.
      clip: largest global norm of the gradient; 0 for none.
      beta1, beta2, epsilon: of Adam.
      dropout: whether the model's own rates are used.
      dtype: what matrix products run in; parameters and optimiser are float32 in any case.
      selections: how often dev is scored, evenly spaced, the last after the last update.
      keep: "best" keeps the parameters that did best on dev, "last" the last.
      lora_rank: train low-rank adapters of that rank instead of all parameters; 0 for none.
      lora_alpha: factor of the adapters, divided by their rank.
      lora_paths: regular expressions of the parameters that get adapters.
      chunk: positions whose logits are in memory at once.
    """

    updates: int = 0
    epochs: float = 1.0
    rows: int = 16
    micro_batches: int = 1
    row_length: int = 128
    truncate: bool = False
    start_token: bool = True
    packed: bool = True
    reduction: Reduction = "token_mean"
    pad_to: PadTo = "batch"
    answer_weight: float = 1.0
    loss_on_pad: bool = False
    lr: float = 1e-3
    schedule: Literal["linear", "cosine"] = "cosine"
    warmup: float = 0.05
    first_update_is_zero: bool = False
    weight_decay: float = 0.01
    decay_norms: bool = False
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    dropout: bool = False
    dtype: str = "float32"
    selections: int = 5
    keep: Literal["best", "last"] = "best"
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_paths: tuple[str, ...] = LAYER_MATRICES
    chunk: int = 128

    def __post_init__(self):
        least = {"updates": 0, "rows": 1, "micro_batches": 1, "row_length": 2, "selections": 1, "chunk": 1}
        for field, bound in (least | {"lora_rank": 0}).items():
            if (value := getattr(self, field)) < bound:
                raise UserError(f"training.{field} is {value}: accepted is {bound} or more")
        for field in ("lr", "epsilon", "lora_alpha", "answer_weight"):
            if not 0.0 < (value := getattr(self, field)) < float("inf"):
                raise UserError(f"training.{field} is {value}: accepted is a number above 0")
        for field in ("epochs", "weight_decay", "clip"):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"training.{field} is {value}: accepted is a number from 0")
        for field in ("warmup", "beta1", "beta2"):
            if not 0.0 <= (value := getattr(self, field)) < 1.0:
                raise UserError(f"training.{field} is {value}: accepted is a share in [0, 1)")
        choices = {"schedule": ("linear", "cosine"), "keep": ("best", "last"), "dtype": ("float32", "bfloat16")}
        for field, accepted in choices.items():
            if (value := getattr(self, field)) not in accepted:
                raise UserError(f"training.{field} is {value!r}: accepted are {', '.join(accepted)}")
        if bool(self.updates) == bool(self.epochs):
            raise UserError(
                f"training.updates is {self.updates} and epochs {self.epochs}: give one of them and 0 for the other"
            )
        if self.rows % self.micro_batches:
            raise UserError(f"training.micro_batches is {self.micro_batches}: it must divide the {self.rows} rows")

    @property
    def packs(self) -> bool:
        """Whether several texts share a row."""
        return self.packed and self.reduction == "token_mean" and not self.loss_on_pad

    def layout(self, end: int | None) -> Layout:
        """How batches lie in rows; `end` is the model's end token.

        Raises:
          UserError: `loss_on_pad` without an end token.
        """
        if self.loss_on_pad and end is None:
            raise UserError("training.loss_on_pad fills rows with the end token, and the model's config names none")
        pad_with = end if self.loss_on_pad else None
        return Layout(
            self.rows,
            self.row_length,
            self.micro_batches,
            self.packs,
            self.reduction,
            self.pad_to,
            pad_with,
            self.answer_weight,
        )

    def total_updates(self, steps_per_epoch: int) -> int:
        """Updates in all."""
        return self.updates or max(1, math.ceil(self.epochs * steps_per_epoch))

    def select_at(self, updates: int) -> tuple[int, ...]:
        """Numbers of updates after which dev is scored."""
        count = min(self.selections, updates)
        return tuple(round(updates * (i + 1) / count) for i in range(count))

    def learning_rate(self, updates: int) -> optax.Schedule:
        """Learning rate of each update."""
        options = {"shape": self.schedule, "first_is_zero": self.first_update_is_zero}
        return warmup_schedule(self.lr, updates, self.warmup, **options)

    def optimizer(self, updates: int) -> optax.GradientTransformation:
        """Clip, Adam, decoupled decay, schedule; what `core.outer` skips does not advance the schedule."""
        mask = functools.partial(decayed, norms=self.decay_norms)
        return optax.chain(
            optax.clip_by_global_norm(self.clip) if self.clip else optax.identity(),
            optax.scale_by_adam(self.beta1, self.beta2, self.epsilon),
            optax.add_decayed_weights(self.weight_decay, mask),
            optax.scale_by_learning_rate(self.learning_rate(updates)),
        )
