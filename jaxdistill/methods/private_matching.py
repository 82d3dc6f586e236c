"""What matching needs where nothing may be told of a training text: samples, noise, and a ledger charged for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.methods.base import Problem, Run
from jaxdistill.objectives.private import NoisySums
from jaxdistill.privacy.accounting import Ledger, Release, calibrate
from jaxdistill.privacy.mechanism import cosine_ceiling, signal_to_noise
from jaxdistill.privacy.noise import guarantee, noise_key
from jaxdistill.privacy.training import PrivateBatches, TrainingPrivacy, noisy_class_sums


@dataclasses.dataclass(frozen=True)
class Use:
    """A part of a method that reads training texts.

    Attributes:
      sums: that it needs.
      size: numbers of a sum.
    """

    sums: int
    size: int


@dataclasses.dataclass(frozen=True)
class Private:
    """What a private run reads its training texts by.

    Attributes:
      sums: noisy sums of a batch.
      batches: of each part that reads, by name.
      facts: for the manifest, plain.
    """

    sums: NoisySums
    batches: Mapping[str, Callable[[int], Any]]
    facts: dict[str, Any]


def make_private(privacy: TrainingPrivacy, problem: Problem, uses: Mapping[str, Use], *, run: Run) -> Private:
    """Calibrate the noise of all sums that a run needs, charge the ledger for them, and tell what may be hoped for.

    Samples of one part are independent of those of another: each sum is a release of its own.

    Args:
      privacy: settings.
      problem: data and learner.
      uses: by name.
      run: its folder keeps the ledger and the secret of the noise.

    Raises:
      UserError: less signal than the settings ask for, a ledger that refuses, data or devices that have no private way.
    """
    if problem.data.vectors is not None:
        raise UserError(
            "privacy: the learner's table holds the vectors of the training texts; give one that reads words"
        )
    if jax.process_count() > 1 or run.mesh is not None:
        raise UserError("privacy: sums are made on one device: give devices 0, one process")
    count = sum(use.sums for use in uses.values())
    sigma = calibrate(privacy.budget(), rate=privacy.rate, count=count)
    ratios = {}
    for name, use in uses.items():
        # Sums add up: rate x sums times the signal, the square root of sums times the noise.
        ratios[name] = signal_to_noise(privacy.records, sigma, use.size) * privacy.rate * use.sums**0.5
        run.say(
            f"private: {name}, {use.sums:,} sums of {use.size:,} numbers, sigma {sigma:.4f}; at {privacy.records:,} "
            f"texts a class their signal together is at most {ratios[name]:.3g} times the noise, a cosine of "
            f"{cosine_ceiling(ratios[name]):.3f} with the clean sum"
        )
        if ratios[name] < privacy.least_ratio and not privacy.force:
            raise UserError(
                f"privacy: {name} has a signal of at most {ratios[name]:.3g} times the noise, below least_ratio "
                f"{privacy.least_ratio:g}: match fewer parameters, take a larger epsilon or rate or more texts, or "
                "privacy.force"
            )
    ledger = Ledger(privacy.budget(), None if run.folder is None else run.folder / "privacy.json")
    key = noise_key(run.folder, privacy.noise_seed)
    secret = np.asarray(jax.random.key_data(key)).tolist()
    identity = fingerprint([problem.data.source_hash, problem.pretrained.source, plain(privacy), plain(uses), secret])
    what = f"sums of {', '.join(uses)}"
    ledger.charge(Release(identity, what, sigma, privacy.rate, count))
    run.say(str(ledger))
    length = problem.row_length
    batches = {
        name: PrivateBatches(problem.train, privacy, jax.random.fold_in(key, number), length)
        for number, name in enumerate(uses)
    }
    facts = {
        "mode": privacy.mode,
        "guarantee": guarantee(privacy.budget(), known_seed=privacy.noise_seed >= 0, leaky=privacy.leaky),
        "sigma": sigma,
        "clip": privacy.clip,
        "numbers_a_class": max(use.size for use in uses.values()),
        "uses": {name: dataclasses.asdict(use) for name, use in uses.items()},
        "signal_to_noise_at_most": min(ratios.values()),
        "ledger": ledger.to_json(),
    }
    sums = noisy_class_sums(privacy.mechanism(sigma), problem.classes)
    return Private(sums, batches, facts)
