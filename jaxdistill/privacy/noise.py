"""The secret that noise is drawn from, and what may be said of a run that kept it."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxdistill.core.types import Key
from jaxdistill.io import atomic
from jaxdistill.privacy.accounting import Budget

_FILE = "noise.json"


def noise_key(folder: Path | None, seed: int = -1) -> Key:
    """A secret key, and the same one for a run that was interrupted before it was done.

    Args:
      folder: of the run, where it lies in a file for its owner alone; `None` keeps none.
      seed: from 0, a known seed in its place: reproducible, and no privacy.
    """
    if seed >= 0:
        return jax.random.key(seed)
    words = [secrets.randbits(32) for _ in range(2)]
    if folder is not None:
        path = folder / _FILE
        if path.exists():
            words = json.loads(path.read_text())
        else:
            atomic.write_text(path, json.dumps(words))
            os.chmod(path, 0o600)
    return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32))


def forget(folder: Path | None) -> None:
    """Delete the secret: all that was to be released is written down."""
    if folder is not None:
        (folder / _FILE).unlink(missing_ok=True)


def guarantee(budget: Budget, *, known_seed: bool, leaky: bool) -> str:
    """What a manifest may say.

    Args:
      budget: that was kept.
      known_seed: the noise can be drawn again by who knows the settings.
      leaky: clean values were shown.
    """
    if known_seed:
        return "none: the seed of the noise is known"
    if leaky:
        return "none: clean values were shown"
    return (
        f"({budget.epsilon:g}, {budget.delta:g})-differential privacy of one labelled training text, "
        f"{budget.adjacency}; noise of floating point numbers, not hardened against attacks on their rounding"
    )
