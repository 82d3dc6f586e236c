"""Many noisy sums over the course of a training: Poisson samples in place of real batches, all paid for beforehand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, pytree
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import pad
from jaxdistill.privacy.accounting import Budget
from jaxdistill.privacy.mechanism import Carried, Clip, Mechanism


@dataclasses.dataclass(frozen=True)
class TrainingPrivacy:
    """What the result may tell of the training texts. One labelled text, there or not, is the unit.

    Attributes:
      mode: "off"; "poisson", everything that is made of training texts is made of noisy clipped sums over random parts
        of them, one part an outer step.
      epsilon, delta: of the whole run.
      bound: largest norm of what a text contributes to a sum.
      clip: see `privacy.mechanism.Mechanism`.
      feature_bound: largest norm of a feature vector, where features are matched; longer ones are shortened.
      rate: share of the texts in each sum, every text drawn by itself.
      micro_batch: texts whose contributions are in memory at once.
      records: texts of a class, a public estimate: how large sums are, and the signal that can be hoped for.
      least_ratio: the lowest ratio of signal to noise, by that estimate, that a run is worth starting with.
      force: start in spite of it.
      noise_seed: makes the noise reproducible and so void of privacy, for research; below 0 the noise is secret.
      leaky: allow baselines of real texts; marks the run as not private.
      signal: False leaves every sample empty, so that sums are noise alone: the control that shows what the private
        texts were worth.
    """

    mode: Literal["off", "poisson"] = "off"
    epsilon: float = 4.0
    delta: float = 1e-5
    bound: float = 1.0
    clip: Clip = "clip"
    feature_bound: float = 10.0
    rate: float = 0.01
    micro_batch: int = 16
    records: int = 0
    least_ratio: float = 0.5
    force: bool = False
    noise_seed: int = -1
    leaky: bool = False
    signal: bool = True

    def __post_init__(self):
        if self.mode not in ("off", "poisson"):
            raise UserError(f"privacy.mode is {self.mode!r}: give off or poisson")
        if not self.private:
            return
        self.budget()
        self.mechanism(1.0)
        if not 0.0 < self.feature_bound < math.inf:
            raise UserError(f"privacy.feature_bound is {self.feature_bound}: accepted is a number above 0")
        if self.records < 1:
            raise UserError(
                f"privacy.records is {self.records}: give a public estimate of how many training texts a class has"
            )

    @property
    def private(self) -> bool:
        """Whether the mode promises anything."""
        return self.mode != "off"

    def budget(self) -> Budget:
        return Budget(self.epsilon, self.delta)

    def mechanism(self, sigma: float) -> Mechanism:
        """With noise of the given standard deviation, over the bound."""
        return Mechanism(sigma, self.bound, self.clip, self.rate, self.micro_batch)


@pytree
class PrivateBatch:
    """A Poisson sample of texts, padded to a size that tells nothing, and the key of the noise of its sums.

    Attributes:
      texts: unpacked; those that only fill up are not included.
      classes: of each text.
      included: which are there.
      key: of this batch and of no other.
    """

    texts: Carried[Batch]
    classes: Carried[Int[Array, " n"]]
    included: Carried[Bool[Array, " n"]]
    key: Key


class PrivateBatches:
    """Poisson samples of a training split: `batches(step)` is a pure function of (key, step).

    Args:
      encoded: the split.
      privacy: settings.
      key: secret.
      length: positions of a text, a public number.
    """

    def __init__(self, encoded: Encoded, privacy: TrainingPrivacy, key: Key, length: int):
        self._encoded, self._privacy, self._key, self._length = encoded, privacy, key, length
        mean = privacy.rate * len(encoded)
        # More than ten standard deviations above the mean: a larger sample is not met in the life of a universe.
        most = min(len(encoded), math.ceil(mean + 10.0 * math.sqrt(mean) + 20.0))
        self._capacity = -(-most // privacy.micro_batch) * privacy.micro_batch

    def __call__(self, step: int) -> PrivateBatch:
        """The sample of a step, numpy leaves but for the key."""
        sample_key, noise_key = jax.random.split(jax.random.fold_in(self._key, step))
        drawn = np.asarray(jax.random.bernoulli(sample_key, self._privacy.rate, (len(self._encoded),)))
        rows = np.flatnonzero(drawn) if self._privacy.signal else np.zeros(0, np.int64)
        texts = pad(self._encoded, rows, length=self._length, examples=self._capacity)
        classes = np.asarray(texts.labels, np.int32)
        kept = Batch(token_ids=texts.token_ids, mask=texts.mask, token_types=texts.token_types, labels=classes)
        return PrivateBatch(Carried(kept), Carried(classes), Carried(np.arange(self._capacity) < len(rows)), noise_key)


def noisy_class_sums(mechanism: Mechanism, classes: int) -> Callable[..., Float[Array, "c k"]]:
    """`objectives.private.NoisySums` of `PrivateBatch`es, whose releases were charged beforehand.

    Args:
      mechanism: of every sum.
      classes: of the task.
    """

    def sums(
        contribution: Callable[[Batch], Float[Array, "m k"]], real_batch: PrivateBatch, /, *, by_class: bool
    ) -> Float[Array, "c k"]:
        blocks = real_batch.classes if by_class else jax.tree.map(jnp.zeros_like, real_batch.classes)
        return mechanism.noisy_sums(
            contribution,
            real_batch.texts,
            blocks,
            jax.tree.map(jnp.asarray, real_batch.included),
            classes if by_class else 1,
            key=real_batch.key,
        )

    return sums
