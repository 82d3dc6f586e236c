"""How well a language model predicts held-out texts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdistill.core.types import Batch, PyTree
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import Encoded
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.likelihood import token_log_probabilities
from jaxdistill.parallel.mesh import shard_batch


def make_token_loss(
    decoder: Decoder,
    encoded: Encoded,
    *,
    row_length: int,
    rows: int = 32,
    chunk: int = 128,
    mesh: Mesh | None = None,
) -> Callable[[PyTree], float]:
    """`token_loss(params)`: mean negative log-likelihood, in nats, of all tokens of some texts but the first of each.

    Texts are packed without attention across them. Sums over batches are taken in float64 on the host, so the mean
    depends neither on the number of rows nor on filler.

    Args:
      decoder: static.
      encoded: documents, see `data.documents.encode_documents`.
      row_length: positions of a row.
      rows: of a batch at most.
      chunk: positions whose logits are in memory at once.
      mesh: rows are cut over its data axis; `None` for the default device.

    Raises:
      UserError: a text is longer than a row.
    """
    parts = 1 if mesh is None else mesh.shape["data"]
    rows = max(rows, parts)
    found = eval_batches(encoded, row_length=row_length, rows=rows, rows_multiple_of=parts)
    batches = [Batch(token_ids=b.token_ids, positions=b.positions, segments=b.segments) for b in found.batches]
    put = (lambda batch: batch) if mesh is None else functools.partial(shard_batch, mesh)

    @jax.jit
    def sums(params: PyTree, batch: Batch) -> tuple[jax.Array, jax.Array]:
        scores = token_log_probabilities(decoder, params, batch, chunk=chunk)
        return jnp.sum(scores.log_probabilities), jnp.sum(scores.scored)

    def token_loss(params: PyTree) -> float:
        total, count = 0.0, 0
        for log_likelihood, tokens in jax.device_get([sums(params, put(batch)) for batch in batches]):
            total, count = total - float(log_likelihood), count + int(tokens)
        return total / count

    return token_loss


def perplexity(token_loss: float) -> float:
    """The exponential of a mean negative log-likelihood; infinite where that is too large to have one."""
    return math.exp(token_loss) if token_loss < 700.0 else math.inf
