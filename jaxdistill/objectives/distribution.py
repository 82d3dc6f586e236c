"""Distribution matching: in a learner's feature space, synthetic samples lie where real ones of their class lie.

Source: Zhao & Bilen 2023 (mean features of random networks); MMD with other kernels, Gretton et al. 2012.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import weighted_mean
from jaxdistill.core.types import Batch, Key, Learner, Objective, PyTree, Synthetic, Variables
from jaxdistill.objectives.distances import KERNELS, Kernel, weighted_mmd
from jaxdistill.objectives.inner_problem import InnerSpec, make_schedule, with_inputs
from jaxdistill.objectives.meta_model import MetaModelConstants
from jaxdistill.objectives.private import NoisySums, bounded_features, counted_features, mean_features

Encoder = Literal["learner", "random"]
Features = Literal["head", "mean"]


@dataclasses.dataclass(frozen=True)
class DistributionMatching:
    """What is matched, and where.

    Attributes:
      kernel: see `objectives.distances.weighted_mmd`.
      encoder: "learner" as it starts (pretrained, where it is); "random" draws all of it anew for each match, words
        excepted.
      features: "head", the vector that the classifier reads; "mean", the mean of the last hidden states over the
        tokens (`Learner.embed`).
      per_class: compare each class and average; otherwise all samples at once.
    """

    kernel: Kernel = "mean"
    encoder: Encoder = "learner"
    features: Features = "head"
    per_class: bool = True

    def __post_init__(self):
        for field, known in (("kernel", KERNELS), ("encoder", get_args(Encoder)), ("features", get_args(Features))):
            if (value := getattr(self, field)) not in known:
                raise UserError(f"unknown {field} {value!r}: give one of {', '.join(known)}")


def distribution_matching(
    learner: Learner,
    spec: InnerSpec,
    matching: DistributionMatching,
    noisy: NoisySums | None = None,
    bound: float = 1.0,
) -> Objective:
    """Objective: squared distance of two feature distributions, averaged over classes.

    With hard labels a sample belongs to the class it was made for. Learned labels spread it: it counts for class c
    with weight max(q_c, 0), q its target, so that labels are learned too. Step sizes play no part (their gradient is
    0). A class that the real batch or the set lacks is left out. Constants are `MetaModelConstants`; there is no state.
    Metrics: "matched_classes".

    With `noisy`, the real side is mean vectors, made of noisy sums of what the examples of each class contribute: their
    vector, no longer than `bound`, and a count.

    Raises:
      UserError: the learner has no mean features; a kernel other than "mean" with `noisy`.
    """
    if noisy is not None and matching.kernel != "mean":
        raise UserError(f'kernel {matching.kernel!r} needs real examples one by one: with privacy give "mean"')
    if matching.features == "mean" and learner.embed is None:
        raise UserError('this learner has no sentence vectors: give features "head"')
    encode = _encoder(learner, matching.features)

    def objective(synthetic: Synthetic, state: tuple[()], constants: MetaModelConstants, real_batch: PyTree, key: Key):
        draw = learner.randomize if matching.encoder == "random" else learner.refresh
        variables = draw(constants.base, key)
        schedule = make_schedule(spec, synthetic, constants.support, variables.frozen, key)
        data, texts = schedule.minibatch(jnp.arange(spec.samples))
        found = encode(variables, with_inputs(texts.fixed, data))
        own = _memberships(spec, data["labels"], matching.per_class)
        if noisy is not None:
            found = bounded_features(found, bound)
            sums = noisy(
                lambda examples: counted_features(encode(variables, examples), bound),
                real_batch,
                by_class=matching.per_class,
            )
            target = jax.lax.stop_gradient(mean_features(sums, bound))
            real = jnp.eye(target.shape[0])
        else:
            target = jax.lax.stop_gradient(encode(variables, real_batch))
            real = _real_memberships(real_batch, own.shape[0], target.dtype)

        def distance(weights: tuple[Array, Array]) -> Float[Array, ""]:
            return weighted_mmd(target, found, *weights, matching.kernel)

        # Classes that the batch lacks, or for which no sample was made, are left out.
        present = ((jnp.sum(real, axis=-1) > 0) & (jnp.sum(own, axis=-1) > 0)).astype(target.dtype)
        loss = weighted_mean(jax.vmap(distance)((real, own.astype(target.dtype))), present)
        return loss, (state, {"matched_classes": jnp.sum(present)})

    return objective


def feature_size(learner: Learner, matching: DistributionMatching, variables: Variables) -> int:
    """Numbers of a feature vector.

    Args:
      learner, matching: see `distribution_matching`.
      variables: of the learner.
    """
    text = Batch(token_ids=jnp.zeros((1, max(2, learner.min_length)), jnp.int32))
    return jax.eval_shape(_encoder(learner, matching.features), variables, text).shape[1]


def _encoder(learner: Learner, features: Features):
    if features == "mean":
        assert learner.embed is not None
        return learner.embed

    def encode(variables: Variables, batch: Batch) -> Float[Array, "n d"]:
        return learner.apply(variables, batch).features

    return encode


def _memberships(spec: InnerSpec, targets: Float[Array, "n c"], per_class: bool) -> Float[Array, "k n"]:
    """How much each sample counts for each class."""
    if not per_class:
        return jnp.ones((1, spec.samples))
    if spec.label_kind == "hard":
        return jnp.eye(spec.classes)[:, spec.sample_classes]
    return jnp.maximum(targets, 0.0).T


def _real_memberships(batch: Batch, count: int, dtype: jnp.dtype) -> Float[Array, "k n"]:
    assert batch.labels is not None
    weights = jnp.ones(batch.labels.shape, dtype) if batch.weights is None else batch.weights.astype(dtype)
    if count == 1:
        return weights[None]
    return jax.nn.one_hot(batch.labels, count, dtype=dtype).T * weights[None]
