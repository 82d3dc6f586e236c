"""Which samples to make more likely: gradient matching of a linear head through the samples' weights, closed form.

Samples of a generator have no gradient with respect to their words, but one with respect to their likelihood. Weighted
by it, their gradients of a learner's head are to point where those of real texts point. Neither gradient depends on the
generator, so nothing is differentiated twice.

Source: DiLM (Maekawa et al. 2024), in the closed form of a linear head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Learner, Outputs, pytree


@pytree
class HeadParts:
    """What the gradient of a linear head is made of: that of example i is the outer product of errors_i and inputs_i.

    Attributes:
      errors: probabilities minus targets.
      inputs: features, and a last entry for the bias: 1, or 0 where the head has none.
    """

    errors: Float[Array, "n c"]
    inputs: Float[Array, "n e"]

    def gradient(self, weights: Float[Array, " n"]) -> Float[Array, "c e"]:
        """Gradient of the weighted sum of cross-entropies; e = d + 1, the bias last."""
        return jnp.einsum("n,nc,ne->ce", weights, self.errors, self.inputs)

    def along(self, direction: Float[Array, "c e"]) -> Float[Array, " n"]:
        """Inner product of each example's gradient with a direction."""
        return jnp.einsum("nc,ce,ne->n", self.errors, direction, self.inputs)


def head_parts(outputs: Outputs, labels: Int[Array, " n"], *, bias: bool) -> HeadParts:
    """Of a learner whose head is linear and has one logit a class; `bias`: whether the head has one."""
    probabilities = jax.nn.softmax(outputs.logits, axis=-1)
    targets = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    last = jnp.full((outputs.features.shape[0], 1), 1.0 if bias else 0.0, probabilities.dtype)
    inputs = jnp.concatenate([outputs.features.astype(probabilities.dtype), last], axis=1)
    return HeadParts(probabilities - targets, inputs)


def head_has_bias(learner: Learner) -> bool:
    """Whether the learner's linear head has a bias."""
    return "bias" in learner.groups["classifier"]


@pytree
class HeadMatch:
    """How well weighted samples match, and what would mend it.

    Attributes:
      cosine: of the two gradients, over one flat vector of matrix and bias.
      weights: of the samples.
      cotangent: derivative of 1 - cosine in the losses of the samples; it sums to 0.
    """

    cosine: Float[Array, ""]
    weights: Float[Array, " n"]
    cotangent: Float[Array, " n"]


def match_head(
    samples: HeadParts, losses: Float[Array, " n"], real: Float[Array, "c e"], temperature: float
) -> HeadMatch:
    """Match samples weighted by softmax(-losses / temperature) with a gradient on real examples.

    With weights w, sample gradients g_i, G = sum w_i g_i and the real gradient R, the derivative of the cosine in w_i
    is d_i = <g_i, R> / (|R| |G|) - cos <g_i, G> / |G|^2. The cosine does not change with the scale of w, so
    sum w_i d_i = 0 and the derivative of 1 - cos in the losses is w_i d_i / temperature.

    Where one of the gradients is zero, the cosine and the cotangent are 0.

    Args:
      samples: of n samples.
      losses: of the generator, one a sample.
      real: mean gradient of real examples, as `HeadParts.gradient` gives it.
      temperature: above 0.
    """
    weights = jax.nn.softmax(-losses / temperature)
    whole = samples.gradient(weights)
    square, scale = jnp.sum(whole * whole), jnp.sqrt(jnp.sum(real * real))
    usable = (square > 0) & (scale > 0)
    square, scale = (jnp.where(usable, x, jnp.ones_like(x)) for x in (square, scale))
    along_real = samples.along(real) / (scale * jnp.sqrt(square))
    cosine = jnp.sum(weights * along_real)
    derivative = along_real - cosine * samples.along(whole) / square
    zero = jnp.zeros_like(cosine)
    return HeadMatch(
        jnp.where(usable, cosine, zero), weights, jnp.where(usable, weights * derivative / temperature, zero)
    )
