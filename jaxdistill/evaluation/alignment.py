"""Whether texts pull a language model away from an expert: the argument by which contrastive texts are distilled data.

To first order, log p_base(x) - log p_expert(x) is the product of the gradient of log p_base(x) with the difference of
the parameters, base - expert. So a text that the base model finds much likelier than the expert does is one whose
gradient points from the expert to the base model, and beyond (Lu et al., "UniDetox", ICLR 2025, give an argument of
this kind).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.tree import dot
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.likelihood import sequence_log_likelihood


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """Both sides of the argument, for each text, in nats.

    Attributes:
      contrast: log p_base(x) - log p_expert(x).
      first_order: product of the gradient of log p_base(x) with base - expert.
    """

    contrast: Float64[np.ndarray, " n"]
    first_order: Float64[np.ndarray, " n"]

    def summary(self) -> dict[str, Any]:
        """Plain figures: "texts", "contrast" and "first_order" (means), "correlation" of the two over the texts
        (Pearson's; `None` where one of them does not vary)."""
        varies = len(self.contrast) > 1 and self.contrast.std() > 0 and self.first_order.std() > 0
        correlation = float(np.corrcoef(self.contrast, self.first_order)[0, 1]) if varies else None
        return {
            "texts": len(self.contrast),
            "contrast": float(self.contrast.mean()),
            "first_order": float(self.first_order.mean()),
            "correlation": correlation,
        }


def alignment(
    decoder: Decoder, base: PyTree, expert: PyTree, rows: Sequence[Sequence[int]], *, at_once: int = 8
) -> Alignment:
    """Measure both sides for some texts: two forward passes, one of them with its derivative along one direction.

    Args:
      decoder: static, of both.
      base, expert: parameters of one tree.
      rows: token ids, start token included, at most as many as the model has positions.
      at_once: rows in memory at once.

    Raises:
      UserError: no rows, or one too long.
    """
    longest = max(map(len, rows), default=0)
    if not 2 <= longest <= decoder.config.positions:
        raise UserError(
            f"alignment: {len(rows)} texts of at most {longest} tokens: accepted are 2 to {decoder.config.positions}"
        )
    found: list[np.ndarray] = []
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        token_ids, mask = np.zeros((at_once, longest), np.int32), np.zeros((at_once, longest), bool)
        mask[:, 0] = True  # rows that fill the batch up: attention over nothing would be no number
        for i, row in enumerate(part):
            token_ids[i, : len(row)], mask[i, : len(row)] = row, True
        found.append(np.asarray(_both(decoder, base, expert, token_ids, mask), np.float64)[:, : len(part)])
    contrast, first_order = np.concatenate(found, axis=1)
    return Alignment(contrast, first_order)


def update_cosine(before: PyTree, after: PyTree, expert: PyTree) -> float:
    """Cosine of what a training has changed, `after` - `before`, with `before` - `expert`; 0 where one is nothing."""
    products = jax.jit(_products)(before, after, expert)
    moved_away, moved, away = (float(product) for product in products)
    return moved_away / (moved * away) ** 0.5 if moved and away else 0.0


def _products(before: PyTree, after: PyTree, expert: PyTree) -> tuple[Array, Array, Array]:
    moved = jax.tree.map(jnp.subtract, after, before)
    away = jax.tree.map(jnp.subtract, before, expert)
    return dot(moved, away), dot(moved, moved), dot(away, away)


@functools.partial(jax.jit, static_argnums=0)
def _both(
    decoder: Decoder, base: PyTree, expert: PyTree, token_ids: Int[Array, "r l"], mask: Bool[Array, "r l"]
) -> Float[Array, "2 r"]:
    def score(params: PyTree) -> Float[Array, " r"]:
        return sequence_log_likelihood(decoder, params, Batch(token_ids=token_ids, mask=mask))

    away = jax.tree.map(jnp.subtract, base, expert)
    of_base, first_order = jax.jvp(score, (base,), (away,))
    return jnp.stack([of_base - score(expert), first_order])
