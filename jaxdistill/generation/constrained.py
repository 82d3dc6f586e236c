"""Left-to-right choice among given tokens: the text recovery of GRADMM (Nguyen et al., ICML 2025), among others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.generation.batches import Drawn, sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.decode import Candidates
from jaxdistill.generation.scorers import Scorer


def choose_among(
    scorer: Scorer,
    params: PyTree,
    prefix: Sequence[int],
    token_ids: Int[np.ndarray, "n t k"],
    mask: Bool[np.ndarray, "n t k"],
    key: Key,
    *,
    temperature: float = 0.0,
    banned: tuple[int, ...] = (),
    micro_batch: int = 32,
) -> Drawn:
    """For each of n texts, choose one of its candidates at every one of t positions, given the prefix and the choices
    before.

    Args:
      scorer, params: see `decode.decode`; log-probabilities are returned.
      prefix: token ids that every text follows on, at least one; not part of the result.
      token_ids: candidates of each text and position.
      mask: False for filling; at least one candidate must be left at each position.
      key: of the draws; without effect at temperature 0.
      temperature: 0 takes the most likely candidate, else they are drawn.
      banned: tokens that are never chosen.
      micro_batch: texts at once.

    Raises:
      UserError: see `batches.sample`.
    """
    if token_ids.ndim != 3 or 0 in token_ids.shape:
        raise UserError(f"choose_among: candidates of shape {token_ids.shape}; expected (texts, positions, candidates)")
    sampling = Sampling(max_new=token_ids.shape[1], temperature=temperature, banned=banned)
    candidates = Candidates(token_ids, mask)
    options = {"micro_batch": micro_batch, "early_exit": False, "log_probabilities": True}
    return sample(scorer, params, [prefix], len(token_ids), sampling, key, candidates=candidates, **options)
