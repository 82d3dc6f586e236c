"""GRADMM's control: texts that the language model goes on to by itself, with no gradient to match."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.types import Key
from jaxdistill.generation.batches import sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Model
from jaxdistill.methods.gradmm_admm import Given, Solver


def sampled(
    solver: Solver, given: Given, prefixes: Sequence[Sequence[int]], each: int, length: int, key: Key
) -> tuple[Int[np.ndarray, "n s"], Float[np.ndarray, " n"]]:
    """(tokens, prompt left out; distance of each from its class's target), class by class.

    Args:
      solver, given: as for ADMM.
      prefixes: of each class, tokens that its texts follow on.
      each: texts a class.
      length: tokens of a text.
      key: of all texts.
    """
    config = solver.decoder.config
    banned = np.setdiff1d(np.arange(config.vocabulary), np.asarray(given.allowed))
    sampling = Sampling(max_new=length, banned=tuple(int(token) for token in banned))
    ids = sample(Model(solver.decoder), given.params, prefixes, each, sampling, key).token_ids
    whole = jnp.asarray(ids.reshape(len(prefixes), 1, each, length))
    return ids, np.asarray(solver.each_text_distance(given, whole)).reshape(-1)
