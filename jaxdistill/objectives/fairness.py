"""Terms of an outer loss that ask a learner to treat groups alike: contrastive, group-difference and adversarial.

Each is a function of the hidden features or the losses of one real batch; the caller weighs it and adds it to the loss.
They are differentiated once, in what the features depend on.

Source: Han et al., "Towards Fair (Supervised) Dataset Distillation for Text Classification", SustaiNLP 2022.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy, weighted_mean
from jaxdistill.core.outer import apply_optimizer
from jaxdistill.core.types import Batch, Key, PyTree

# Relative size under which a difference of two mean losses is rounding.
_ROUNDING = 1e-5


def supervised_contrastive(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    temperature: float = 0.01,
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Supervised contrastive loss: features of one label attract each other, those of others repel.

    Of example i, with P_i the others of its label and s_ij = ⟨h_i, h_j⟩ / temperature of the features as they are
    (not normalised), −Σ_{p in P_i} (s_ip − log Σ_{j≠i} exp s_ij) / (1 + |P_i|), averaged over examples. The 1 makes it
    0, not undefined, where an example has no positive. For fairness, the loss of the classes is added and that of the
    groups subtracted (Shen et al. 2021, "Contrastive Learning for Fair Representations"). Memory is n² numbers.

    Args:
      features: hidden features h.
      labels: class or group ids.
      temperature: positive; static.
      weights: weight of each example in the mean; an example of weight 0 (filler) is not compared with either.

    Raises:
      UserError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise UserError(f"contrastive temperature {temperature} must be positive")
    counted = jnp.ones(labels.shape, bool) if weights is None else weights > 0
    similarity = features @ features.T / temperature
    others = ~jnp.eye(len(labels), dtype=bool) & counted[None, :]
    positives = others & (labels[:, None] == labels[None, :])
    # An example that is alone is compared with itself: it has no positives, and the logarithm of 0 would spoil them.
    compared = others | ~jnp.any(others, axis=1, keepdims=True)
    masked = jnp.where(compared, similarity, -jnp.inf)
    log_share = similarity - jax.nn.logsumexp(masked, axis=1, keepdims=True)
    attraction = jnp.sum(jnp.where(positives, log_share, 0.0), axis=1)
    return weighted_mean(-attraction / (1.0 + jnp.sum(positives, axis=1).astype(features.dtype)), weights)


def group_difference(
    losses: Float[Array, " n"],
    labels: Int[Array, " n"],
    groups: Int[Array, " n"],
    weights: Float[Array, " n"] | None = None,
    *,
    num_classes: int,
    num_groups: int,
) -> Float[Array, ""]:
    """Σ_y Σ_g sign(L_yg − L_y) L_yg, the differences of the groups' mean losses within each class.

    L_yg is the mean loss of class y in group g and L_y that of class y; the sign is a constant. For two groups this is
    Σ_y |L_y0 − L_y1|. Cells that the batch lacks are skipped, and with them a class of which it has one group only.
    Source: Shen et al. 2022, "Optimising Equal Opportunity Fairness in Model Training".

    Args:
      losses: of each example.
      labels, groups: class and group of each example.
      weights: weights of the means; 0 drops an example.
      num_classes, num_groups: static.
    """
    counted = jnp.ones_like(losses) if weights is None else weights.astype(losses.dtype)
    cells = labels * num_groups + groups

    def sums(values: Float[Array, " n"]) -> Float[Array, "c g"]:
        return jax.ops.segment_sum(values, cells, num_classes * num_groups).reshape(num_classes, num_groups)

    totals, sizes = sums(losses * counted), sums(counted)
    present = sizes > 0
    of_cell = totals / jnp.where(present, sizes, 1.0)
    size_of_class = jnp.sum(sizes, axis=1, keepdims=True)
    of_class = jnp.sum(totals, axis=1, keepdims=True) / jnp.where(size_of_class > 0, size_of_class, 1.0)
    compared = present & (jnp.sum(present, axis=1, keepdims=True) >= 2)
    # Equal losses (of a learner that knows nothing yet) differ by rounding, and its signs need not cancel out.
    difference = of_cell - of_class
    real = compared & (jnp.abs(difference) > _ROUNDING * jnp.abs(of_class))
    sign = jax.lax.stop_gradient(jnp.where(real, jnp.sign(difference), 0.0))
    return jnp.sum(sign * of_cell)


def even_groups(batch: Batch) -> Batch:
    """The batch with weights under which the groups of each class weigh alike, and classes what they weighed before.

    What is matched with it is then the mean of the groups of a class, not that of the class, in which a large group
    drowns a small one (FairDD, Zhou et al. 2024). Groups that a class lacks are left out.

    Args:
      batch: real examples with class ids and groups.
    """
    assert batch.groups is not None and batch.labels is not None
    weights = jnp.ones(batch.labels.shape, batch.groups.dtype) if batch.weights is None else batch.weights
    # Examples of the same class, and of the same class and group: n² numbers, but no count of classes is needed.
    same_class = (batch.labels[:, None] == batch.labels[None, :]).astype(weights.dtype)
    of_cell = jnp.einsum("nm,m,mg->ng", same_class, weights, batch.groups)  # weight of each group in the own class
    of_class = jnp.sum(of_cell, axis=-1)
    groups_present = jnp.sum((of_cell > 0).astype(weights.dtype), axis=-1)
    own = jnp.sum(of_cell * batch.groups, axis=-1)
    share = of_class / (jnp.maximum(groups_present, 1.0) * jnp.where(own > 0, own, 1.0))
    return dataclasses.replace(batch, weights=weights * share)


class Adversary(nn.Module):
    """Tells the group from hidden features: two layers, the first with a leaky ReLU, and a linear output.

    There is no activation before the output. Weights and biases are uniform in ±1/sqrt(fan-in), the default of the
    library in which the published adversary was written.

    Attributes:
      num_groups: outputs.
      hidden: units of both layers.
    """

    num_groups: int
    hidden: int = 256

    @nn.compact
    def __call__(self, features: Float[Array, "n d"]) -> Float[Array, "n g"]:
        y = nn.leaky_relu(_uniform_dense(self.hidden, features, "layer_0"), 0.01)
        y = _uniform_dense(self.hidden, y, "layer_1")
        return _uniform_dense(self.num_groups, y, "output")


def adversary_init(key: Key, width: int, num_groups: int, *, hidden: int = 256) -> tuple[PyTree, PyTree]:
    """Fresh (parameters, Adam state) of an adversary.

    Args:
      key: randomness of the parameters.
      width: d of the features it will read.
      num_groups: g, at least 2.
      hidden: units of its layers.

    Raises:
      UserError: fewer than two groups.
    """
    if num_groups < 2:
        raise UserError(f"an adversary tells groups apart: there must be at least 2, got {num_groups}")
    params = Adversary(num_groups, hidden).init(key, jnp.zeros((1, width)))["params"]
    return params, optax.adam(1.0).init(params)


def adversary_loss(
    params: PyTree,
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    weights: Float[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy of the adversary's guess of the group, weighted mean over examples.

    Subtract lambda times it from the outer loss, with the parameters constant: the gradient in the features is that of
    a gradient-reversal layer in front of the adversary (Ganin & Lempitsky 2015), the value differs in sign.
    """
    # The parameters say how large the network is: one source of truth.
    hidden, num_groups = params["output"]["kernel"].shape
    logits = Adversary(num_groups, hidden).apply({"params": params}, features)
    assert isinstance(logits, jax.Array)
    return cross_entropy(logits, groups, weights)


def adversary_step(
    params: PyTree,
    opt_state: PyTree,
    features: Float[Array, "n d"],
    groups: Int[Array, " n"],
    lr: float | Float[Array, ""] = 1e-4,
    weights: Float[Array, " n"] | None = None,
) -> tuple[PyTree, PyTree, Float[Array, ""]]:
    """One Adam step of the adversary; the features are constants.

    Args:
      params, opt_state: of the adversary; see `adversary_init`.
      features: hidden features of the learner on a real batch.
      groups: their groups.
      lr: step size; may be traced.
      weights: weight of each example; 0 for filler.

    Returns:
      new parameters, new Adam state, loss before the step.
    """
    constant = jax.lax.stop_gradient(features)
    loss, gradient = jax.value_and_grad(adversary_loss)(params, constant, groups, weights)
    params, opt_state = apply_optimizer(optax.adam(lr), gradient, opt_state, params)
    return params, opt_state, loss


def _uniform_dense(units: int, x: Float[Array, "n d"], name: str) -> Float[Array, "n u"]:
    bound = x.shape[-1] ** -0.5

    def uniform(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(units, param_dtype=x.dtype, kernel_init=uniform, bias_init=uniform, name=name)(x)
