"""The learners whose heads a generator is matched at: fresh ones on their way through real data, and their gradients.

What they do depends on real data and keys alone, never on the generator. So each training is made once, kept in the run
folder and met again and again, where the published code trains a new learner every ten updates.

Source: DiLM (Maekawa et al. 2024), stage 1.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Learner, Outputs, Variables
from jaxdistill.data.encoding import Encoded
from jaxdistill.evaluation.features import read_texts
from jaxdistill.evaluation.recipes import DILM, Recipe, Step
from jaxdistill.io.plain import plain
from jaxdistill.io.progress import Progress
from jaxdistill.io.trajectories import Trajectory, open_trajectory, save_trajectory
from jaxdistill.methods.base import Problem, Run, Stopped
from jaxdistill.methods.coreset import Coreset, choose_several
from jaxdistill.objectives.head_matching import head_has_bias, head_parts


@dataclasses.dataclass(frozen=True)
class Learners:
    """Settings.

    Attributes:
      trainings: different learners; outer loop o meets learner o modulo this number. With as many as there are outer
        loops none is met twice, as published: then none is kept either.
      matches: states of each at which gradients are compared, the first before any training.
      every: steps between them.
      recipe: of their training on real data; its schedule goes on after the last match.
      teacher: how the real texts are chosen whose gradients are matched.
      teacher_sets: different choices, met in turn.
      teacher_per_class: texts of each class in a choice.
      teacher_pool: see `methods.coreset.ChosenTexts.pool`.
    """

    trainings: int = 4
    matches: int = 10
    every: int = 20
    recipe: Recipe = dataclasses.replace(DILM, dropout=False)
    teacher: Literal["k_means", "herding", "random"] = "k_means"
    teacher_sets: int = 10
    teacher_per_class: int = 200
    teacher_pool: int = 0

    def __post_init__(self):
        for field in ("trainings", "matches", "every", "teacher_sets", "teacher_per_class"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"learners.{field} is {value}: it must be at least 1")
        if self.teacher not in ("k_means", "herding", "random"):
            raise UserError(f"learners.teacher is {self.teacher!r}: give k_means, herding or random")
        if self.steps[-1] > self.recipe.steps:
            raise UserError(
                f"learners.every is {self.every}: the last of {self.matches} matches is at step {self.steps[-1]}, and "
                f"their training ends at {self.recipe.steps}"
            )

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of training done at each match."""
        return tuple(self.every * match for match in range(self.matches))


class Match(NamedTuple):
    """A learner at a match.

    Attributes:
      variables: trainable and frozen.
      real: mean gradient of its head on the real texts of each class, see `objectives.head_matching`.
    """

    variables: Variables
    real: Float[np.ndarray, "c c e"]


def head_outputs(learner: Learner, variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(logits, features) of each example."""
    outputs = learner.apply(variables, batch)
    return outputs.logits, outputs.features


def check_head(learner: Learner) -> None:
    """Raise `UserError` unless the head has one logit a class."""
    if learner.shape["logits"] != learner.shape["classes"]:
        raise UserError("a generator is matched at a head with one logit a class: set learner.network.one_logit=False")


class LearnerBank:
    """The learners of a run.

    Args:
      config: settings.
      problem: data and learner.
      key: all randomness.
      run: its folder keeps the trainings (a temporary one serves where there is none); its signal stops.
      loops: outer loops of the run, which say whether any learner is met twice.

    Raises:
      UserError: the learner's head is not linear with one logit a class; a class has too few texts.
    """

    def __init__(self, config: Learners, problem: Problem, *, key: Key, run: Run, loops: int):
        self._config, self._problem, self._run = config, problem, run
        self._kept = config.trainings < loops
        self._trainer = problem.trainer()
        self.learner = learner = self._trainer.learner(config.recipe)
        check_head(learner)
        self.read = jax.jit(functools.partial(head_outputs, learner))
        self._train_key, teacher_key = jax.random.split(key)
        settings = Coreset(per_class=config.teacher_per_class, pool=config.teacher_pool)
        keys = jax.random.split(teacher_key, config.teacher_sets)
        self.teachers = choose_several(config.teacher, settings, problem, list(keys))
        if run.folder is not None:
            self._folder = run.folder / "learners"
        else:  # it goes when the bank does
            self._temporary = tempfile.TemporaryDirectory(prefix="jaxdistill_learners_")
            self._folder = Path(self._temporary.name)
        self._facts = {
            "learners": plain(config),
            "learner": problem.pretrained.source,
            "source_hash": problem.data.source_hash,
            "key": np.asarray(jax.random.key_data(key)).tolist(),
        }
        self._trajectories: dict[int, Trajectory] = {}
        self._gradients: dict[tuple[int, int, int], Float[np.ndarray, "c c e"]] = {}
        self._opened: tuple[int, Variables] | None = None

    def at(self, loop: int, match: int) -> Match:
        """The learner of an outer loop at one of its matches."""
        config = self._config
        number, teacher = loop % config.trainings, (loop * config.matches + match) % config.teacher_sets
        variables = self.variables(number, config.steps[match])
        place = (number, match, teacher)
        real = self._gradients.get(place)
        if real is None:
            real = self._real(variables, self.teachers[teacher])
            if self._kept:
                self._gradients[place] = real
        return Match(variables, real)

    def variables(self, number: int, step: int) -> Variables:
        """A learner after so many steps, one of `Learners.steps`."""
        start = self._start(number)
        if step == 0:
            return start
        if number not in self._trajectories:
            path, facts = self._folder / f"learner_{number:04d}", self._facts | {"number": number}
            if not path.exists():
                self._train(number, path, facts)
            self._trajectories[number] = open_trajectory(path, start.trainable, facts)
        difference = self._trajectories[number].difference(step)
        return Variables(jax.tree.map(lambda b, d: b + d, start.trainable, difference), start.frozen)

    def _start(self, number: int) -> Variables:
        if self._opened is None or self._opened[0] != number:
            key = jax.random.fold_in(self._train_key, number)
            start = self._trainer.start(self._config.recipe, key)
            # On the host: a training uses up the buffers it starts from.
            self._opened = number, Variables(jax.device_get(start.trainable), start.frozen)
        return self._opened[1]

    def _train(self, number: int, path: Path, facts: dict) -> None:
        """Train a learner and keep its states; of learners that are met once, only the present one's."""
        if not self._kept and self._folder.exists():
            self._trajectories.clear()
            shutil.rmtree(self._folder)
        config, snapshots = self._config, []
        progress = Progress(f"learner {number + 1} of {config.trainings}: steps on real texts", config.recipe.steps)

        def on_step(step: Step, indices: Int[np.ndarray, " n"]) -> None:
            if self._run.stop():
                raise Stopped("stopped while training learners on real texts")
            if step.done in config.steps:
                snapshots.append((step.done, jax.device_get(step.variables.trainable)))
                if not np.isfinite(float(step.loss)):
                    raise UserError(f"a learner diverged within {step.done} steps: lower learners.recipe.lr")
            progress.update(step.done)

        try:
            key = jax.random.fold_in(self._train_key, number)
            self._trainer.on_split(self._problem.train, config.recipe, key, on_step=on_step)
        finally:
            progress.close()
        save_trajectory(path, self._start(number).trainable, snapshots, facts)

    def _real(self, variables: Variables, members: Int[np.ndarray, " m"]) -> Float[np.ndarray, "c c e"]:
        """Mean gradient of the head on the chosen texts of each class."""
        problem, encoded = self._problem, self._problem.train
        logits, features = self.read_texts(variables, encoded, members)
        labels = encoded.labels[members]
        outputs = Outputs(logits=jnp.asarray(logits), features=jnp.asarray(features))
        parts = head_parts(outputs, jnp.asarray(labels), bias=head_has_bias(self.learner))
        means = (labels[None] == np.arange(problem.classes)[:, None]) / self._config.teacher_per_class
        return np.stack([parts.gradient(jnp.asarray(row, jnp.float32)) for row in means])

    def read_texts(
        self, variables: Variables, encoded: Encoded, members: Int[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, "m c"], Float[np.ndarray, "m d"]]:
        """Logits and features of texts."""
        variables = jax.device_put(variables)  # once, not with each batch
        row_length = self._problem.row_length
        return read_texts(self.read, self.learner, variables, encoded, members, row_length=row_length)
