"""What a method gets and gives: `distill(config, problem, *, key, run) -> DistilledSet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdistill.core.types import Batch, Key, Learner, Synthetic, Variables
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.sources import TaskData
from jaxdistill.evaluation import protocols
from jaxdistill.evaluation.fine_tuning import Trainer
from jaxdistill.evaluation.recipes import DILM, Recipe
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.metrics import MetricWriter
from jaxdistill.models.pretrained import Pretrained
from jaxdistill.models.words import WordVectors
from jaxdistill.objectives.inner_problem import InnerSpec

# In place of the hash of training texts that nothing may be told of.
WITHHELD = "withheld"


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A task made ready for one learner.

    Attributes:
      data: texts and labels.
      pretrained: the learner with its tokenizer.
      fine_tuning: `fine_tuning(dropout)` is the learner that fine-tunes on texts, see `evaluation.fine_tuning.Trainer`.
      train, dev, test: the splits, tokenised.
      row_length: positions of a packed row of real text.
      notes: what a user should know of data and model.
      words: where whole texts have vectors (a task of vectors, sentence vectors), the table that all learners share.
    """

    data: TaskData
    pretrained: Pretrained
    fine_tuning: Callable[[bool], Learner]
    train: Encoded
    dev: Encoded
    test: Encoded
    row_length: int
    notes: tuple[str, ...] = ()
    words: WordVectors | None = None

    @property
    def classes(self) -> int:
        return len(self.data.task.label_names)

    @property
    def longest(self) -> int:
        """Positions that hold any training text and that the learner can read."""
        return max(int(self.train.lengths.max()), self.pretrained.learner.min_length)

    def trainer(self) -> Trainer:
        """What fine-tunes fresh learners; keep it, for it holds what is compiled."""
        return Trainer(self.fine_tuning, row_length=self.row_length, length=self.longest)

    def base(self) -> Variables:
        """The learner's variables before `Learner.refresh`; the same for everyone, since refresh draws the rest."""
        return self.pretrained.learner.init(jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Run:
    """The only way a method touches the world.

    Attributes:
      make_writer: opens the metric writers, given the first step that will be written.
      checkpoints: where state is kept; `None` keeps none.
      checkpoint_seconds: time between checkpoints.
      mesh: devices; `None` uses the default one.
      protocol: how checkpoints are chosen.
      recipe: how learners will train on texts when the result is evaluated; what is chosen on dev is chosen by it.
      full_lr: peak learning rate at which the learner fine-tunes on plenty of real data.
      stop: asked after every outer step; True ends the run after a last checkpoint (`Stopped` is raised).
      say: prints one line for the user.
      folder: of the run, for what else it keeps (experts); `None` keeps nothing.
    """

    make_writer: Callable[[int], MetricWriter] | None = None
    checkpoints: Checkpoints | None = None
    checkpoint_seconds: float = 60.0
    mesh: Mesh | None = None
    protocol: protocols.Protocol = protocols.CLEAN
    recipe: Recipe = DILM
    full_lr: float = 5e-5
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print
    folder: Path | None = None


class Stopped(Exception):
    """The run was asked to stop and has kept a checkpoint; the same command goes on from there."""


@runtime_checkable
class DistillFn(Protocol):
    def __call__(self, config: Any, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
        """Distil a task.

        Args:
          config: the method's own, static.
          problem: data and learner; the test split is read only where `run.protocol` selects on it.
          key: all randomness.
          run: everything with a side effect.

        Raises:
          UserError: the configuration does not fit the problem.
          Stopped: the run was interrupted; a checkpoint is kept.
        """
        ...


class Method(NamedTuple):
    """An entry of the registry.

    Attributes:
      config: dataclass of the method's settings; `config()` is its default.
      distill: see `DistillFn`.
      initial: `initial(config, problem, key)` is (what is learned, what is not) before the first outer step; it raises
        `UserError` when the configuration learns nothing.
      inner_spec: `inner_spec(config, classes)` says how a learner trains on the result by its learned schedule; it
        returns `None` when nothing but texts and labels was chosen, and a fixed recipe trains on them.
      makes_texts: whether its sets hold texts, on which a fixed recipe can train.
      match: `match(config, problem, spec)` is what its outer loop descends, a `methods.meta_learning.Match`; `None`
        for meta-model matching.
    """

    config: type
    distill: DistillFn
    initial: Callable[[Any, Problem, Key], tuple[Synthetic, Batch]]
    inner_spec: Callable[[Any, int], InnerSpec | None]
    makes_texts: bool = False
    match: Callable[..., Any] | None = None


def withheld(facts: dict[str, Any], problem: Problem, leaky: bool = False) -> dict[str, Any]:
    """A private run's manifest without what is counted in or hashed from the training texts, which tells of them."""
    if leaky:
        return facts
    notes = list(problem.pretrained.notes)
    cost = {name: value for name, value in facts["cost"].items() if name != "real_examples"}
    return facts | {"source_hash": WITHHELD, "notes": notes, "cost": cost}


def manifest(method: str, config: Any, problem: Problem, key: Key, cost: dict[str, Any]) -> dict[str, Any]:
    """The fields of `manifest.json` that a method knows."""
    return {
        "task": problem.data.task.name,
        "method": method,
        "learner": problem.pretrained.source,
        "config": config,
        "seeds": np.asarray(jax.random.key_data(key)).tolist(),
        "source_hash": problem.data.source_hash,
        "cost": cost,
        "notes": list(problem.notes),
    }
