"""Dataset distillation with attention labels (Maekawa, Kobayashi, Funakoshi & Okumura, ACL 2023).

Input embeddings, labels, targets for the student's attention, and step sizes are learned by the meta-gradient through
the student's whole fine-tuning. `clean()` and `reference()` are the two presets: what we hold to be right, and what
the published code does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import AttentionRows, Batch, Key, Synthetic
from jaxdistill.methods import embedding_set
from jaxdistill.methods.base import Problem
from jaxdistill.methods.embedding_set import EmbeddingSet, embedding_method
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.objectives.inner_problem import InnerSpec

# Beyond this, learned attention labels of "all" rows (with gradient and Adam moments: four times as much) are refused.
ATTENTION_BYTES = 2 * 1024**3


@dataclasses.dataclass(frozen=True)
class AttentionLabel(EmbeddingSet):
    """Settings; the defaults are the preset `clean`.

    Attributes:
      attention: which query rows carry attention labels: none, cls or all.
      attention_weight: λ.
      attention_log_eps: added to the attention inside the logarithm.
    """

    attention: AttentionRows = "cls"
    attention_weight: float = 1.0
    attention_log_eps: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        inner_spec(self, max((1, *self.made_for)) + 1)  # checks the attention's settings


def clean(**changes: Any) -> AttentionLabel:
    """The default preset. Beyond undoing the quirks: a step size a layer group, inputs of a small scale, and larger
    learning rates for labels and step sizes than for inputs, which together learn several times faster."""
    return AttentionLabel(**changes)


def reference(*, outer: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> AttentionLabel:
    """The published code: decay that leaks into labels and step sizes, a first update of rate 0, one scalar step size
    a step, a logarithm with 1e-12, one-hot soft scores, inputs from N(0, 1), one learning rate for all parts. Selection
    on the reported split is the evaluation's: protocol `paper`.

    Args:
      outer: changes to the outer loop.
      **changes: to the other fields.
    """
    quirks = {"first_update_is_zero": True, "decay_labels": 0.01, "decay_step_sizes": 0.01, "inits": 1}
    quirks |= {f"{part}_lr": 1.0 for part in ("input", "label", "attention", "step_size")}
    defaults = {
        "length": 512,
        "label_kind": "hard",
        "soft_probability": 0.0,
        "attention": "none",
        "attention_log_eps": 1e-12,
        "lr_per": "step",
        "initial_lr": 0.01,
        "order": "fixed",
        "input_std": 1.0,
    }
    return AttentionLabel(**(defaults | changes), outer=Outer(**(quirks | dict(outer))))


def inner_spec(config: AttentionLabel, classes: int) -> InnerSpec:
    """How a learner trains on the distilled set."""
    return embedding_set.inner_spec(
        config,
        classes,
        attention=config.attention,
        attention_weight=config.attention_weight,
        attention_log_eps=config.attention_log_eps,
    )


def initial_set(config: AttentionLabel, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """(what is learned, what is not) before the first outer step.

    Raises:
      UserError: see `embedding_set.initial_set`; a learner without attention, or attention labels that would not fit
        in memory.
    """
    input_key, attention_key = jax.random.split(key)
    synthetic, support = embedding_set.initial_set(config, problem, input_key)
    if config.attention == "none":
        return synthetic, support
    shape = problem.pretrained.learner.shape
    if not shape.get("heads"):
        raise UserError(f"attention labels {config.attention!r} need a learner with attention; give attention=none")
    rows = 1 if config.attention == "cls" else config.length
    sizes = (inner_spec(config, problem.classes).samples, shape["layers"], shape["heads"], rows, config.length)
    if 16 * np.prod(sizes, dtype=np.int64) > ATTENTION_BYTES:
        needed, allowed = (16 * np.prod(sizes, dtype=np.int64) / 1024**3, ATTENTION_BYTES / 1024**3)
        raise UserError(
            f"attention labels {config.attention!r} of shape {sizes} take {needed:.1f} GiB with gradient and "
            f"moments, more than {allowed:.0f}: give attention=cls or a smaller length"
        )
    return dataclasses.replace(synthetic, attention=jax.random.normal(attention_key, sizes)), support


METHOD = embedding_method("attention_label", AttentionLabel, start=initial_set, spec=inner_spec)
distill = METHOD.distill
