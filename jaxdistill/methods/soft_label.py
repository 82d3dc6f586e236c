"""Soft-label and text dataset distillation (Sucholutsky & Schonlau, IJCNN 2021).

Input vectors, labels and one step size an inner step are learned by the meta-gradient through the training of a small
network. `clean()` is the default preset: a mask hides padding, learners start fresh, the choice is made on dev. What
the published code does beside it are options of the learner (`ClassicOptions`, `LearnerConfig.dropout`), of the labels
(`label_kind` "binary", `label_start` "inverted") and of the outer loop (`decay_ahead`, one selection).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from jaxdistill.methods.embedding_set import EmbeddingSet, embedding_method
from jaxdistill.methods.meta_learning import LrPer, Outer

# Adam without warm-up, clipping or factors; the learning rate is halved in steps.
OUTER = Outer(
    lr=0.01,
    input_lr=1.0,
    label_lr=1.0,
    attention_lr=0.0,
    step_size_lr=1.0,
    schedule="steps",
    beta1=0.5,
    clip=0.0,
    batch_size=1024,
)


Settings = TypeVar("Settings", bound="SoftLabel")


@dataclasses.dataclass(frozen=True)
class SoftLabel(EmbeddingSet):
    """Settings: those of `EmbeddingSet` with the published defaults, see `clean`."""

    lr_per: LrPer = "step"
    initial_lr: float = 0.02
    input_std: float = 1.0
    soft_probability: float = 0.0
    outer: Outer = OUTER


def clean(
    settings: type[Settings] = SoftLabel,
    *,
    samples: int = 1,
    blocks: int = 1,
    passes: int = 1,
    updates: int,
    decay_every: int,
    lr: float = 0.01,
    batch_size: int = 1024,
    outer: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> Settings:
    """Settings in the words of the paper.

    Args:
      settings: `SoftLabel`, or what extends it.
      samples: of each class in a block, P.
      blocks: distinct blocks, S; a learner visits them in turn.
      passes: over the blocks, E; each has step sizes of its own.
      updates: outer steps.
      decay_every: outer steps after which the learning rate is halved.
      lr: of the outer loop.
      batch_size: real examples an outer step.
      outer: changes to the other fields of the outer loop.
      **changes: to the other fields of the settings.
    """
    named = {"updates": updates, "decay_every": decay_every, "lr": lr, "batch_size": batch_size}
    loop = dataclasses.replace(OUTER, **(named | dict(outer)))
    return settings(per_class=samples * blocks, batch_per_class=samples, steps=blocks * passes, outer=loop, **changes)


METHOD = embedding_method("soft_label", SoftLabel)
