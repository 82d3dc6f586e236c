"""Objectives made of objectives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Key, Objective, PyTree, Synthetic


def weighted_sum(parts: Mapping[str, tuple[float, Objective]]) -> Objective:
    """Objective: Σ weight × loss of its parts.

    State, constants and real batch are dicts, one entry a part: each part reads its own.

    Args:
      parts: (weight, objective) by name; metrics carry the name in front, "<name>_loss" among them.
    """

    def objective(
        synthetic: Synthetic,
        state: dict[str, PyTree],
        constants: dict[str, PyTree],
        real_batch: dict[str, PyTree],
        key: Key,
    ):
        total, new, metrics = jnp.zeros(()), {}, {}
        for number, (name, (weight, part)) in enumerate(parts.items()):
            own_key = jax.random.fold_in(key, number)
            loss, (new[name], own) = part(synthetic, state[name], constants[name], real_batch[name], own_key)
            total += weight * loss
            metrics |= {f"{name}_{metric}": value for metric, value in {"loss": loss, **own}.items()}
        return total, (new, metrics)

    return objective


def restricted(objective: Objective, *fields: str) -> Objective:
    """The same objective, differentiated in some fields of `Synthetic` only."""
    held = [field.name for field in dataclasses.fields(Synthetic) if field.name not in fields]

    def of_fields(synthetic: Synthetic, state: PyTree, constants: PyTree, real_batch: PyTree, key: Key):
        constant = {name: jax.lax.stop_gradient(getattr(synthetic, name)) for name in held}
        return objective(dataclasses.replace(synthetic, **constant), state, constants, real_batch, key)

    return of_fields
