"""What releases cost in epsilon and delta, and the ledger that refuses to exceed a budget.

The arithmetic is that of dp-accounting: the exact curve of the Gaussian mechanism where nothing else was released,
privacy loss distributions otherwise, which bound epsilon from above.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from absl import logging

from jaxdistill.core.errors import UserError
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps, plain

# Two data sets are neighbours where one has a record more, or where one record is another.
Adjacency = Literal["add_remove", "replace_one"]
# Relative room for rounding where the noise was calibrated to the very budget.
_ROUNDING = 1e-6
# Of the logarithm of the noise: steps downwards in search of too little, and how near the least is met.
_STEP, _TOLERANCE = 0.35, 1e-4


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that a run may spend.

    Attributes:
      epsilon: above 0.
      delta: in (0, 1).
      adjacency: which data sets are neighbours. A sum of clipped records changes by the bound where a record is added
        or removed, and by twice the bound where one is replaced.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency = "add_remove"

    def __post_init__(self):
        if not 0.0 < self.epsilon < math.inf:
            raise UserError(f"epsilon is {self.epsilon}: accepted is a number above 0")
        if not 0.0 < self.delta < 1.0:
            raise UserError(f"delta is {self.delta}: accepted is a number between 0 and 1, both excluded")
        if self.adjacency not in ("add_remove", "replace_one"):
            raise UserError(f"adjacency is {self.adjacency!r}: give add_remove or replace_one")


@dataclasses.dataclass(frozen=True)
class Release:
    """Sums of clipped records that were, or are to be, made public with Gaussian noise.

    Attributes:
      identity: of the very numbers: data, settings, key. The same release twice tells nothing new and costs once.
      what: for readers.
      sigma: standard deviation of the noise, over the clipping bound.
      rate: probability with which each record is in a sum, drawn anew for each; 1 for all records.
      count: sums.
    """

    identity: str
    what: str
    sigma: float
    rate: float = 1.0
    count: int = 1

    def __post_init__(self):
        if not 0.0 < self.sigma < math.inf:
            raise UserError(f"sigma of {self.what!r} is {self.sigma}: accepted is a number above 0")
        if not 0.0 < self.rate <= 1.0:
            raise UserError(f"rate of {self.what!r} is {self.rate}: accepted is a number above 0 and at most 1")
        if self.count < 1:
            raise UserError(f"count of {self.what!r} is {self.count}: accepted is 1 or more")


def epsilon_of(releases: Sequence[Release], delta: float, adjacency: Adjacency = "add_remove") -> float:
    """The least epsilon that is known to hold for all releases together.

    Raises:
      UserError: Poisson sampling under "replace_one", for which there is no accountant here.
    """
    import dp_accounting

    if not releases:
        return 0.0
    _check(releases, adjacency)
    if all(release.rate == 1.0 for release in releases):
        # Gaussian releases compose to one Gaussian release.
        shift = math.sqrt(sum(release.count / _standard(release, adjacency) ** 2 for release in releases))
        return float(dp_accounting.get_epsilon_gaussian(1.0 / shift, delta))
    return _accounted("pld", _plain(releases), delta, adjacency)


def renyi_epsilon_of(releases: Sequence[Release], delta: float, adjacency: Adjacency = "add_remove") -> float:
    """The same by Rényi divergences: a looser bound, from arithmetic of its own."""
    if not releases:
        return 0.0
    _check(releases, adjacency)
    verbosity = logging.get_verbosity()
    # It warns of each order that it leaves out, and leaves out many.
    logging.set_verbosity(logging.ERROR)
    try:
        return _accounted("rdp", _plain(releases), delta, adjacency)
    finally:
        logging.set_verbosity(verbosity)


@functools.cache
def calibrate(budget: Budget, *, rate: float = 1.0, count: int = 1) -> float:
    """The least noise, over the clipping bound, by which `count` sums keep the budget.

    Args:
      budget: for all of them.
      rate: see `Release`.
      count: see `Release`.
    """
    import dp_accounting
    from scipy.optimize import brentq

    Release("", "sums to be calibrated", 1.0, rate, count)  # refuses what cannot be
    full = float(dp_accounting.get_sigma_gaussian(budget.epsilon, budget.delta)) * math.sqrt(count)
    if rate == 1.0:
        return full * (2.0 if budget.adjacency == "replace_one" else 1.0)

    def excess(log_sigma: float) -> float:
        # Of the logarithm: nearly a line, so that few values of it are asked for, each a second of work or so.
        sums = [Release("", "sums to be calibrated", math.exp(log_sigma), rate, count)]
        return math.log(max(epsilon_of(sums, budget.delta, budget.adjacency), 1e-12) / budget.epsilon)

    enough = math.log(full)  # sampling never asks for more noise
    while excess(enough - _STEP) <= 0.0:
        enough -= _STEP
    found = cast(float, brentq(excess, enough - _STEP, enough, xtol=_TOLERANCE))
    while excess(found) > 0.0:
        found += _TOLERANCE
    return math.exp(found)


class Ledger:
    """All that a run has made public, written down before it is made public.

    Args:
      budget: of the run.
      path: JSON file that outlives the process; entries there count as spent. `None` keeps them in memory.

    Raises:
      UserError: the file is of another budget or cannot be read.
    """

    def __init__(self, budget: Budget, path: str | os.PathLike | None = None):
        self.budget, self._path = budget, None if path is None else Path(path)
        self._releases: list[Release] = []
        if self._path is not None and self._path.exists():
            self._releases = _read(self._path, budget)

    @property
    def releases(self) -> tuple[Release, ...]:
        return tuple(self._releases)

    def epsilon(self) -> float:
        """Spent so far, at the budget's delta."""
        return epsilon_of(self._releases, self.budget.delta, self.budget.adjacency)

    def charge(self, release: Release) -> float:
        """Enter a release that is about to be made; call it before the noise is drawn.

        Returns:
          epsilon of all releases, this one included.

        Raises:
          UserError: the budget would be exceeded; nothing is entered then.
        """
        if release in self._releases:
            return self.epsilon()
        if any(release.identity == other.identity for other in self._releases):
            raise UserError(f"ledger: {release.what!r} has the identity of another release with other noise")
        budget = self.budget
        after = epsilon_of([*self._releases, release], budget.delta, budget.adjacency)
        if after > budget.epsilon * (1.0 + _ROUNDING):
            raise UserError(
                f"ledger: {release.what!r} with sigma {release.sigma:.4g} would spend epsilon {after:.4f} at delta "
                f"{budget.delta:g}, {self.epsilon():.4f} of it before: the budget is {budget.epsilon:g}; raise sigma "
                "or the budget"
            )
        self._releases.append(release)
        if self._path is not None:
            atomic.write_text(self._path, dumps(self.to_json()) + "\n")
        return after

    def to_json(self) -> dict[str, Any]:
        """For the manifest, plain."""
        delta, adjacency = self.budget.delta, self.budget.adjacency
        return {
            "budget": plain(self.budget),
            "epsilon": self.epsilon(),
            "epsilon_by_renyi_divergences": renyi_epsilon_of(self._releases, delta, adjacency),
            "releases": [plain(release) for release in self._releases],
        }

    def __str__(self) -> str:
        budget = self.budget
        sums = sum(release.count for release in self._releases)
        return (
            f"spent: epsilon {self.epsilon():.4f} of {budget.epsilon:g} at delta {budget.delta:g}, "
            f"{budget.adjacency}, {sums} {'release' if sums == 1 else 'releases'}"
        )


def _read(path: Path, budget: Budget) -> list[Release]:
    try:
        stored = json.loads(path.read_text())
        kept, releases = Budget(**stored["budget"]), [Release(**entry) for entry in stored["releases"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a ledger ({error}); what was spent cannot be told, so nothing may be") from None
    if kept != budget:
        raise UserError(
            f"{path}: of a budget of epsilon {kept.epsilon:g}, delta {kept.delta:g}, {kept.adjacency}; asked for are "
            f"epsilon {budget.epsilon:g}, delta {budget.delta:g}, {budget.adjacency}: take another folder"
        )
    return releases


def _check(releases: Sequence[Release], adjacency: Adjacency) -> None:
    if adjacency == "replace_one" and any(release.rate < 1.0 for release in releases):
        raise UserError("adjacency replace_one is accounted for sums of all records only: Poisson sums need add_remove")


def _standard(release: Release, adjacency: Adjacency) -> float:
    """Noise over the sensitivity of a sum."""
    return release.sigma / (2.0 if adjacency == "replace_one" else 1.0)


def _event(release: Release, adjacency: Adjacency) -> Any:
    import dp_accounting

    event = dp_accounting.GaussianDpEvent(_standard(release, adjacency))
    if release.rate < 1.0:
        event = dp_accounting.PoissonSampledDpEvent(release.rate, event)
    return dp_accounting.SelfComposedDpEvent(event, release.count)


def _plain(releases: Sequence[Release]) -> tuple[Release, ...]:
    """What their cost depends on."""
    return tuple(dataclasses.replace(release, identity="", what="") for release in releases)


@functools.cache
def _accounted(kind: str, releases: tuple[Release, ...], delta: float, adjacency: Adjacency) -> float:
    import dp_accounting

    accountant = dp_accounting.pld.PLDAccountant() if kind == "pld" else dp_accounting.rdp.RdpAccountant()
    for release in releases:
        accountant.compose(_event(release, adjacency))
    return float(accountant.get_epsilon(delta))
