"""The one way from private records to anything public: a clipped sum with Gaussian noise, charged to a ledger."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, Literal, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.privacy.accounting import Ledger, Release

Clip = Literal["clip", "normalize"]
Value = TypeVar("Value")


class Sealed(Generic[Value]):
    """Private records that nothing but a mechanism may read: whatever else touches them raises.

    A run in a private mode holds its records as one of these and nothing else, so that what reads clean values by
    mistake fails at once instead of leaking.

    Args:
      value: the records.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Value):
        object.__setattr__(self, "_value", value)

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise PermissionError("private records are read by the mechanism of a release alone")

    __getattr__ = __setattr__ = __getitem__ = __iter__ = __len__ = __array__ = __bool__ = __eq__ = _refuse
    __hash__ = __reduce__ = __reduce_ex__ = _refuse

    def __repr__(self) -> str:
        return "Sealed(...)"


def _open(records: Sealed[Value]) -> Value:
    return object.__getattribute__(records, "_value")


class Carried(Sealed[Value]):
    """Sealed records that a compiled step is given: functions of trees, and they alone, see through the seal."""

    __slots__ = ()


jax.tree_util.register_pytree_node(Carried, lambda sealed: ((_open(sealed),), None), lambda _, parts: Carried(*parts))


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """A clipped sum with Gaussian noise.

    Formal guarantees: whatever the records and the function of them, one record changes the sum by at most `bound` in
    L2 norm, up to rounding, where it is added or removed, and by at most twice that where it is replaced. A release is
    the Gaussian mechanism on that sum, of standard deviation `sigma * bound`, preceded by Poisson sampling where `rate`
    is below 1. Noise is of floating point numbers and not hardened against attacks on their rounding; it is as random
    as its key is secret.

    Attributes:
      bound: largest L2 norm of what a record contributes.
      sigma: noise, over the bound.
      clip: "clip" shortens what is longer than the bound; "normalize" brings everything but zero to that length.
      rate: probability with which each record takes part; 1 for all.
      micro_batch: records at once.
    """

    sigma: float
    bound: float = 1.0
    clip: Clip = "clip"
    rate: float = 1.0
    micro_batch: int = 32

    def __post_init__(self):
        for field in ("sigma", "bound"):
            if not 0.0 < (value := getattr(self, field)) < math.inf:
                raise UserError(f"{field} is {value}: accepted is a number above 0")
        if self.clip not in ("clip", "normalize"):
            raise UserError(f"clip is {self.clip!r}: give clip or normalize")
        if not 0.0 < self.rate <= 1.0:
            raise UserError(f"rate is {self.rate}: accepted is a number above 0 and at most 1")
        if self.micro_batch < 1:
            raise UserError(f"micro_batch is {self.micro_batch}: accepted is 1 or more")

    def release(
        self,
        contribution: Callable[[PyTree], Float[Array, "m k"]],
        records: Sealed[PyTree],
        blocks: Sealed[Int[np.ndarray, " n"]],
        count: int,
        *,
        key: Key,
        ledger: Ledger,
        identity: str,
        what: str,
    ) -> Float[Array, "{count} k"]:
        """Make the sums of all blocks public, once.

        Each record is in one block, so that all blocks together have the sensitivity of one of them. A block without
        records follows the same path.

        Args:
          contribution: of each record of a micro-batch, clipped here; of records that are all zeros too. Pure: it must
            not look from one record at another.
          records: arrays with a leading axis of records.
          blocks: of each record, its block (its class).
          count: blocks, a public number.
          key: of this release and of no other.
          ledger: charged before anything is drawn.
          identity: see `accounting.Release`.
          what: for readers.

        Raises:
          UserError: the budget would be exceeded.
        """
        ledger.charge(Release(identity, what, self.sigma, self.rate))
        noise_key, sample_key = jax.random.split(key)
        members = _open(blocks)
        included = jnp.ones(members.shape, bool)
        if self.rate < 1.0:
            included = jax.random.bernoulli(sample_key, self.rate, members.shape)
        return self.noisy_sums(contribution, records, blocks, Sealed(included), count, key=noise_key)

    def noisy_sums(
        self,
        contribution: Callable[[PyTree], Float[Array, "m k"]],
        records: Sealed[PyTree],
        blocks: Sealed[Any],
        included: Sealed[Bool[Array, " n"]],
        count: int,
        *,
        key: Key,
    ) -> Float[Array, "{count} k"]:
        """The sums of the records at hand; for who has charged a ledger for them, drawn by `rate`, beforehand.

        Args:
          contribution, records, blocks, count: see `release`.
          included: records that take part.
          key: of the noise of these sums and of no others.
        """
        total = clipped_sums(
            contribution,
            _open(records),
            jnp.asarray(_open(blocks)),
            _open(included),
            count,
            bound=self.bound,
            clip=self.clip,
            micro_batch=self.micro_batch,
        )
        return total + self.sigma * self.bound * jax.random.normal(key, total.shape, total.dtype)


def clipped(vectors: Float[Array, "m k"], bound: float, clip: Clip = "clip") -> Float[Array, "m k"]:
    """Rows of at most the given norm; a row that is not finite becomes 0, since an error would tell of it."""
    finite = jnp.all(jnp.isfinite(vectors), axis=1, keepdims=True)
    vectors = jnp.where(finite, vectors, 0.0)
    # By the largest entry first: squares of large numbers overflow.
    largest = jnp.max(jnp.abs(vectors), axis=1, keepdims=True)
    scaled = vectors / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=1, keepdims=True))
    unit = scaled / jnp.where(norm > 0, norm, 1.0)
    if clip == "normalize":
        return bound * unit
    return jnp.where(largest > bound / jnp.where(norm > 0, norm, 1.0), bound * unit, vectors)


def clipped_sums(
    contribution: Callable[[PyTree], Float[Array, "m k"]],
    records: PyTree,
    blocks: Int[Array, " n"],
    included: Bool[Array, " n"],
    count: int,
    *,
    bound: float,
    clip: Clip = "clip",
    micro_batch: int = 32,
) -> Float[Array, "{count} k"]:
    """Sum of the clipped contributions of each block's included records, without noise: nothing to make public.

    Args:
      contribution, records, blocks, count: see `Mechanism.release`.
      included: records that take part.
      bound, clip: see `Mechanism`.
      micro_batch: records in memory at once.
    """
    rows = blocks.shape[0]
    parts = max(1, -(-rows // micro_batch))

    def cut(x: Array | np.ndarray) -> Array:
        x = jnp.asarray(x)
        filled = jnp.zeros((parts * micro_batch - rows, *x.shape[1:]), x.dtype)
        return jnp.concatenate([x, filled]).reshape(parts, micro_batch, *x.shape[1:])

    @jax.jit
    def sums(records: PyTree, blocks: Array, included: Array) -> Array:
        def add(total: Array, part: tuple[PyTree, Array, Array]) -> tuple[Array, None]:
            own, block, takes_part = part
            rows = jnp.where(takes_part[:, None], clipped(contribution(own), bound, clip), 0.0)
            return total + jax.ops.segment_sum(rows, block, count), None

        first = jax.eval_shape(contribution, jax.tree.map(lambda x: x[0], records))
        return jax.lax.scan(add, jnp.zeros((count, first.shape[1]), first.dtype), (records, blocks, included))[0]

    return sums(jax.tree.map(cut, records), cut(blocks), cut(included))


def signal_to_noise(records: int, sigma: float, size: int) -> float:
    """Highest ratio of signal to noise of a sum, from public numbers: all contributions of full length and alike.

    Args:
      records: of the block, a public estimate.
      sigma: noise over the bound.
      size: numbers of the sum.
    """
    return records / (sigma * math.sqrt(size))


def cosine_ceiling(ratio: float) -> float:
    """Highest cosine that a noisy sum of such a ratio can be expected to have with the clean one."""
    return ratio / math.sqrt(1.0 + ratio * ratio)


def paper_noise(records: int, epsilon: float, delta: float, bound: float = 1.0) -> float:
    """Standard deviation that the published GRADMM adds to each number of a class's mean gradient.

    Not private from end to end: it uses the private number of records, and what follows reads clean values.

    Args:
      records: of the class.
      epsilon: above 0; up to 1 by the classical formula, beyond by Zhao et al.'s.
      delta: in (0, 1).
      bound: of the norm of a record's gradient.
    """
    if not (0.0 < epsilon < math.inf and 0.0 < delta < 1.0):
        raise UserError(f"epsilon {epsilon} and delta {delta}: accepted are epsilon above 0 and delta between 0 and 1")
    if epsilon <= 1.0:
        return bound / records * math.sqrt(2.0 * math.log(1.25 / delta)) / epsilon
    a = math.sqrt(math.log(2.0 / (math.sqrt(16.0 * delta + 1.0) - 1.0)))
    return bound / records * (a + math.sqrt(a * a + epsilon)) / (epsilon * math.sqrt(2.0))
