"""Sets drawn from a generator, and what learners trained on them say of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Key, PyTree
from jaxdistill.coresets import selection
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.features import mean_features
from jaxdistill.evaluation.metrics import metric_named, percent
from jaxdistill.evaluation.scoring import Score, Scorer, split_batches
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem, Run, Stopped
from jaxdistill.methods.dilm_pool import draw_texts
from jaxdistill.methods.dilm_settings import DiLM
from jaxdistill.methods.dilm_texts import Generator


def learner_reads(problem: Problem, texts: Sequence[tuple[str, ...]], labels: Int[np.ndarray, " n"]) -> Encoded:
    """Texts in the learner's tokens."""
    return encode(Split(list(texts), labels), problem.pretrained.tokenizer, problem.longest)


def draw_set(
    config: DiLM,
    generator: Generator,
    params: PyTree,
    problem: Problem,
    per_class: int,
    key: Key,
    *,
    say: bool = False,
) -> tuple[Split, dict[str, Any]]:
    """Stage 2: draw `oversample` times as many texts as are wanted, keep those that represent them.

    Returns:
      the texts, interleaved by class; and what was drawn, plain.
    """
    draw_key, choose_key = jax.random.split(key)
    count = per_class * config.oversample
    pooling = config.pooling
    by_class, found = draw_texts(
        generator,
        params,
        count,
        draw_key,
        top_p=pooling.top_p,
        temperature=pooling.temperature,
        micro_batch=pooling.micro_batch,
        label="texts drawn" if say else None,
    )
    facts = {
        "texts": count * problem.classes,
        "rejected": found.rejected,
        "stopped": float(np.mean(found.stopped)),
        "tokens_per_second": found.tokens_per_second,
    }
    labels = np.repeat(np.arange(problem.classes, dtype=np.int32), count)
    drawn = Split([text for own in by_class for text in own], labels)
    features = None
    if config.oversample > 1 and selection.coreset_named(config.choose).needs_features:
        encoded = learner_reads(problem, drawn.texts, labels)
        features = mean_features(
            problem.pretrained.learner,
            problem.base(),
            encoded,
            np.arange(len(drawn)),
            row_length=problem.row_length,
        )
    if config.oversample == 1:
        picked = np.arange(len(drawn)).reshape(problem.classes, per_class).T.reshape(-1)
    else:
        names, seed = problem.data.task.label_names, numpy_seed(choose_key)
        picked = selection.select(config.choose, features, labels, per_class, class_names=names, seed=seed)
    return drawn.take(picked), facts


class Judge:
    """Scores a generator by learners trained on sets drawn from it; always the same draws, heads and orders.

    Args:
      config: settings.
      generator: whose parameters are given with each call.
      problem: data and learner.
      key: of draws and learners.
      run: its protocol says on which split, its recipe how learners train, its signal stops.
    """

    def __init__(self, config: DiLM, generator: Generator, problem: Problem, key: Key, run: Run):
        self._config, self._generator, self._problem, self._key, self._run = config, generator, problem, key, run
        self._trainer = problem.trainer()
        self._scorer = Scorer(self._trainer.learner(run.recipe))
        split = problem.dev if run.protocol.select_on == "dev" else problem.test
        number = config.matching.sets * config.matching.students
        self._parts = [np.arange(first, len(split), number) for first in range(min(number, len(split)))]
        learner, row_length = problem.pretrained.learner, problem.row_length
        self._batches = split_batches(split, learner, row_length=row_length, groups=self._parts)

    def __call__(self, params: PyTree) -> tuple[float, dict[str, float]]:
        """(score, higher is better; what to log)."""
        matching, problem, run = self._config.matching, self._problem, self._run
        scores: list[Score] = []
        progress = Progress("learners that score the generator", len(self._parts))
        try:
            for i in range(matching.sets):
                set_key, student_key = jax.random.split(jax.random.fold_in(self._key, i))
                texts, _ = draw_set(self._config, self._generator, params, problem, matching.per_class, set_key)
                encoded = learner_reads(problem, texts.texts, texts.labels)
                for j in range(min(matching.students, len(self._parts) - len(scores))):
                    if run.stop():
                        raise Stopped("stopped while scoring the generator")
                    trained = self._trainer.on_texts(encoded, run.recipe, jax.random.fold_in(student_key, j))
                    scores.append(self._scorer(trained, self._batches, group=len(scores)))
                    progress.update(len(scores))
        finally:
            progress.close()
        total = functools.reduce(Score.__add__, scores)
        metric, where = problem.data.task.metric, run.protocol.select_on
        if total.diverged:
            return -np.inf, {f"{where}_{metric}": 0.0, f"{where}_loss": total.loss}
        value = metric_named(metric)(total.confusion)
        return value, {f"{where}_{metric}": percent(value), f"{where}_loss": total.loss}
