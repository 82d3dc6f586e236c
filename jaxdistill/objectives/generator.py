"""Teaching a language model to write texts on which a learner's head trains as it does on real ones.

Source: DiLM (Maekawa et al. 2024), stage 1. The learner reads the texts and says which of them should be likelier
(`objectives.head_matching`); the language model is differentiated once, through the likelihoods of its own texts.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.types import Batch, Key, Learner, PyTree, Variables, pytree
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.likelihood import token_log_probabilities
from jaxdistill.objectives.head_matching import HeadParts, head_has_bias, head_parts, match_head

Reduction = Literal["text_mean", "padded_mean"]
_PAD_TO = 8


@pytree
class GeneratorBatch:
    """What one update of the generator reads; the n texts are those of class 0, then those of class 1, and so on.

    Attributes:
      texts: token ids of the generator, one text a row.
      examples: the same texts as the learner reads them, labelled.
      learner: its trainable parameters at the match.
      real: mean gradient of its head on real texts of each class.
    """

    texts: Batch
    examples: Batch
    learner: PyTree
    real: Float[Array, "c c e"]


def text_losses(
    decoder: Decoder, params: PyTree, texts: Batch, reduction: Reduction, *, groups: int = 1, key: Key | None = None
) -> Float[Array, " r"]:
    """Negative log-likelihood of each text given its first token, per token.

    Args:
      decoder: static.
      params: of the decoder.
      texts: one a row, padded on the right.
      reduction: "text_mean" divides by the tokens scored; "padded_mean" by those of the longest text of the batch
        rounded up to a multiple of 8, as published code does: it favours short texts, and a text's loss depends on
        its neighbours.
      groups: batches that the rows are, one after another, for "padded_mean".
      key: of dropout; `None` for none.
    """
    scores = token_log_probabilities(decoder, params, texts, key=key)
    total = -jnp.sum(scores.log_probabilities, axis=1)
    counts = jnp.sum(scores.scored, axis=1)
    if reduction == "padded_mean":
        longest = jnp.max(counts.reshape(groups, -1), axis=1) + 1
        padded = -(-longest // _PAD_TO) * _PAD_TO
        counts = jnp.repeat(padded - 1, counts.shape[0] // groups)
    return total / jnp.maximum(counts, 1).astype(total.dtype)


def generator_matching(
    decoder: Decoder, learner: Learner, *, temperature: float, reduction: Reduction, micro_batch: int = 0
):
    """Objective over the parameters of a language model.

    Its value is the mean over classes of 1 - cosine between the head's gradient on real texts and on the generator's,
    weighted by softmax(-losses / temperature) within the class. Its gradient is that of the weights alone, by the
    closed form and one backward pass of the language model.

    Args:
      decoder: the language model, with the dropout of its config.
      learner: whose head is matched; it has one logit a class.
      temperature: above 0.
      reduction: see `text_losses`.
      micro_batch: texts that go through the language model at once, read again in the backward pass; 0 for all. With
        "padded_mean" it must be 0: there the texts of a batch depend on each other.

    Returns:
      `objective(params, state, frozen, batch, key) -> (loss, (state, metrics))`, as `core.types.Objective`, with the
      learner's frozen parameters as constants. Metrics: "cosine", "text_loss" (mean over the texts), and
      "likely_texts", 1 / sum of squared weights: how many texts of a class bear the match.
    """
    bias = head_has_bias(learner)
    if micro_batch and reduction == "padded_mean":
        raise ValueError("padded_mean is a function of the whole batch")

    def losses_of(params: PyTree, texts: Batch, classes: int, key: Key) -> Float[Array, " r"]:
        count = jax.tree.leaves(texts)[0].shape[0]
        if not micro_batch or micro_batch >= count:
            return text_losses(decoder, params, texts, reduction, groups=classes, key=key)
        parts = jax.tree.map(lambda x: x.reshape(-1, micro_batch, *x.shape[1:]), texts)
        keys = jax.random.split(key, count // micro_batch)

        @jax.checkpoint  # the same key in the second reading, so the same dropout
        def part(given: tuple[Batch, Key]) -> Float[Array, " r"]:
            return text_losses(decoder, params, given[0], reduction, key=given[1])

        return jax.lax.map(part, (parts, keys)).reshape(-1)

    def objective(params: PyTree, state: PyTree, frozen: PyTree, batch: GeneratorBatch, key: Key):
        labels = batch.examples.labels
        assert labels is not None  # a batch of labelled examples
        outputs = learner.apply(Variables(batch.learner, frozen), batch.examples)
        parts = head_parts(outputs, labels, bias=bias)
        classes = batch.real.shape[0]
        losses = losses_of(params, batch.texts, classes, key)

        def by_class(x: Array) -> Array:
            return x.reshape(classes, -1, *x.shape[1:])

        def match(errors: Array, inputs: Array, losses: Array, real: Array):
            return match_head(HeadParts(errors, inputs), losses, real, temperature)

        given = by_class(parts.errors), by_class(parts.inputs), by_class(losses), batch.real
        found = jax.lax.stop_gradient(jax.vmap(match)(*jax.lax.stop_gradient(given)))
        # A sum whose gradient in the losses is the closed form's, and whose value is that of the loss.
        pull = jnp.sum(found.cotangent * by_class(losses)) / classes
        loss = jnp.mean(1.0 - found.cosine) + pull - jax.lax.stop_gradient(pull)
        likely = jnp.mean(1.0 / jnp.sum(found.weights**2, axis=1))
        metrics = {"cosine": jnp.mean(found.cosine), "text_loss": jnp.mean(losses), "likely_texts": likely}
        return loss, (state, metrics)

    return objective
