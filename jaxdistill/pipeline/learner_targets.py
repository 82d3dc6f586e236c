"""Other learners than that of the run, trained on the same texts: the cross-architecture columns of a table."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.splits import Split
from jaxdistill.methods.base import Problem
from jaxdistill.models.classic_learner import NETWORKS
from jaxdistill.models.pretrained import check_model
from jaxdistill.pipeline.config import ExperimentConfig, LearnerConfig, WordsConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import problem_of
from jaxdistill.pipeline.scores import Outcome
from jaxdistill.pipeline.text_sources import Source


def learner_config(name: str, learner: LearnerConfig) -> LearnerConfig:
    """The configuration of a target: that of the learner of the run where it is about any learner (type of products,
    word vectors), and the default elsewhere.

    Args:
      name: of the target, as `LearnerConfig.name`.
      learner: of the run.
    """
    words = WordsConfig() if learner.words.sentence_encoder else learner.words
    dtype = "float32" if name in NETWORKS else learner.dtype
    return LearnerConfig(name=name, words=words, dtype=dtype)


def check_learner(name: str, problem: Problem) -> None:
    """Whether a learner can be a target; reads no weights, and downloads what is not there yet.

    Raises:
      UserError: there is no such model, or the task has no texts.
    """
    if problem.data.task.vector_format is not None:
        raise UserError(f"target {name!r} reads texts, but {problem.data.task.name} is of vectors: give encoder")
    if name not in NETWORKS:
        try:
            check_model(name)
        except UserError as error:
            accepted = f"accepted are learners ({', '.join(NETWORKS)}, a pretrained model) and text models"
            raise UserError(f"target {name!r}: {error}; {accepted} such as linear_svm/tfidf") from None


class LearnerTarget:
    """A learner with the data of a run tokenised for it.

    Learner i of every set has the same fresh head, and that of learner i of the run where both are the same model: so
    scores can be paired.

    Args:
      name: see `LearnerConfig.name`.
      config: of the run.
      problem: its data.
      stop: asked before each step; True raises `Stopped`.

    Attributes:
      parameters: of the learner, trained or not.
      notes: what a user should know of the model.
    """

    def __init__(self, name: str, config: ExperimentConfig, problem: Problem, stop: Callable[[], bool]):
        self._name, self._evaluation = name, config.evaluation
        # Vectors of whole texts are for the learner of the run.
        data = dataclasses.replace(problem.data, vectors=None, notes=())
        learner = learner_config(name, config.learner)
        own = problem_of(data, problem.train.weights, None, config.task, learner)
        self._evaluator = Evaluator(own, named_key(config.seed, "evaluate"), stop=stop)
        shapes = jax.eval_shape(own.pretrained.learner.init, jax.random.key(0))
        self.parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
        # How many texts are cut the run says of its own learner.
        self.notes = tuple(f"{name}: {note}" for note in own.notes if "truncated" not in note)

    def outcomes(self, source: Source, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Outcomes of learners trained on the sets of a source in turn by the recipe of the run, as they come."""
        evaluation = self._evaluation
        if source.everything:
            return self._evaluator.full(evaluation.full_epochs, evaluation.full_lr, numbers)
        sets = source.sets
        assert len(sets) == 1 or all(texts.soft_labels is None for texts in sets), "random subsets have hard labels"
        draw = functools.partial(_texts, source)
        label = f"{self._name} on {source.name}"
        return self._evaluator.by_recipe(label, draw, evaluation.recipe, numbers, soft_labels=sets[0].soft_labels)


def _texts(source: Source, number: int) -> Split:
    return source.sets[number % len(source.sets)].split
