"""Whether the code that adds the noise does what its claim says: attacks on releases with and without a canary.

Sources: `evaluation.privacy_audit`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core.types import Key
from jaxdistill.evaluation.privacy_audit import attack, epsilon_from_one_run, epsilon_from_scores, gaussian_auc
from jaxdistill.io.plain import plain
from jaxdistill.privacy.accounting import Budget, Ledger
from jaxdistill.privacy.mechanism import Mechanism, Sealed

# Spends without limit: what is audited are releases of made-up records.
_UNLIMITED = 1e15


@dataclasses.dataclass(frozen=True)
class MechanismAudit:
    """What the releases of a mechanism gave away.

    Attributes:
      epsilon: lower bound; 0 where nothing was proved.
      claimed: epsilon of the claim.
      flagged: whether the claim is refuted.
      delta: of both.
      auc, auc_low, auc_high: of telling releases with the canary from those without, by one release each.
      expected_auc: of a Gaussian mechanism of that noise; `None` with sampling, whose curve is another.
      draws: releases on each side.
      one_run: of one release that holds about half of many canaries: "epsilon", "canaries", "guesses", "correct".
    """

    epsilon: float
    claimed: float
    flagged: bool
    delta: float
    auc: float
    auc_low: float
    auc_high: float
    expected_auc: float | None
    draws: int
    one_run: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return plain(self)


def audit_mechanism(
    mechanism: Mechanism,
    claim: Budget,
    *,
    size: int,
    releases: int = 1,
    norm: float = 1.0,
    draws: int = 4000,
    canaries: int = 1000,
    key: Key,
) -> MechanismAudit:
    """Attack the releases of `mechanism` with the worst record there is: alone in the data, against no record.

    Under "replace_one" it is against its opposite, the farthest that one record can be from another.

    Args:
      mechanism: the very code that a run releases by.
      claim: what all `releases` together are said to keep.
      size: numbers of a release.
      releases: of a run, all of which the attacker sees.
      norm: of the canary, over the bound: above 1 it has to be clipped.
      draws: runs on each side.
      canaries: of the audit by one run, `size` at most.
      key: of canaries and noise.
    """
    key, canary_key, one_key = jax.random.split(key, 3)
    direction = _unit(jax.random.normal(canary_key, (size,)))
    scores, length = [], norm * mechanism.bound
    replaced = claim.adjacency == "replace_one"
    for canary, own in zip((length, -length if replaced else 0.0), jax.random.split(key), strict=True):
        sums = _released(mechanism, jnp.tile(canary * direction, (draws, 1)), np.arange(draws), draws, releases, own)
        scores.append(np.asarray(sums @ direction, np.float64))
    found = attack(*scores)
    epsilon = epsilon_from_scores(*scores, delta=claim.delta)
    one_run = _one_run(mechanism, claim, size, releases, norm, canaries, one_key)
    shift = (2.0 if replaced else 1.0) * releases**0.5
    return MechanismAudit(
        epsilon=epsilon,
        claimed=claim.epsilon,
        flagged=max(epsilon, one_run["epsilon"]) > claim.epsilon,
        delta=claim.delta,
        auc=found.auc,
        auc_low=found.auc_low,
        auc_high=found.auc_high,
        expected_auc=None if mechanism.rate < 1.0 else gaussian_auc(mechanism.sigma / shift),
        draws=draws,
        one_run=one_run,
    )


def _one_run(
    mechanism: Mechanism, claim: Budget, size: int, releases: int, norm: float, canaries: int, key: Key
) -> dict[str, Any]:
    """One run on canaries at right angles, each in it by a coin; the fifth with the clearest scores is guessed."""
    canaries = min(canaries, size)
    canary_key, coin_key, key = jax.random.split(key, 3)
    directions = jnp.linalg.qr(jax.random.normal(canary_key, (size, canaries)))[0].T
    included = np.asarray(jax.random.bernoulli(coin_key, 0.5, (canaries,)))
    absent = -1.0 if claim.adjacency == "replace_one" else 0.0
    records = norm * mechanism.bound * jnp.where(jnp.asarray(included)[:, None], directions, absent * directions)
    total = _released(mechanism, records, np.zeros(canaries, np.int64), 1, releases, key)[0]
    order = np.argsort(np.asarray(directions @ total, np.float64), kind="stable")
    half = max(1, canaries // 10)
    correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    epsilon = epsilon_from_one_run(canaries, 2 * half, correct, delta=claim.delta)
    return {"epsilon": epsilon, "canaries": canaries, "guesses": 2 * half, "correct": correct}


def _released(
    mechanism: Mechanism, records: Float[Array, "n k"], blocks: np.ndarray, count: int, releases: int, key: Key
) -> Float[Array, "{count} k"]:
    """Sums of all blocks over all releases of a run."""
    mechanism = dataclasses.replace(mechanism, micro_batch=min(4096, len(blocks)))
    total = jnp.zeros((count, records.shape[1]))
    for number, own in enumerate(jax.random.split(key, releases)):
        total = total + mechanism.release(
            lambda part: part["vector"],
            Sealed({"vector": records}),
            Sealed(blocks),
            count,
            key=own,
            ledger=Ledger(Budget(_UNLIMITED, 0.5)),
            identity=str(number),
            what="audit",
        )
    return total


def _unit(vectors: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)
