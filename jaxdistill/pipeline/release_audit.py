"""Whether whole runs of a method show that one record was among their data: distillations with a canary and without."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.features import read_texts
from jaxdistill.evaluation.membership import label_margins, nearest_text_scores
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.privacy_audit import attack, epsilon_from_errors, epsilon_from_scores
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem, Run
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.training import text_split
from jaxdistill.privacy.accounting import Budget

_ATTACKS = ("loss", "nearest text")
_CANARY_WORDS = 8
_FEWEST = 12


def audit_releases(
    config: ExperimentConfig,
    *,
    runs: int,
    rows: int = 0,
    delta: float = 1e-5,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Distil `runs` times with a canary among the training texts and as often without, and try to tell which is which.

    The canary is a row of random words of the training texts under a random label. What is looked at is the set: how
    much of the canary stands in the nearest text, and how well a learner trained on it knows the canary's label. Half
    of the runs choose the threshold, the other half prove: of R runs a side, an epsilon of about ln(R / 8) at most.
    Nothing is written.

    Args:
      config: of the experiment; methods that make texts.
      runs: on each side, at least 12: of fewer nothing follows.
      rows: random training texts of each run, the same in all; 0 for all. The fewer, the more one record counts.
      delta: of the bound; a private method's own takes its place.
      say: prints one line.

    Returns:
      by attack: the fields of `evaluation.privacy_audit.Attack`, "epsilon", the lower bound, "highest", the bound of an
      attack without errors, and "claimed", a private method's epsilon or `None`.

    Raises:
      UserError: fewer than 12 runs, or a method whose sets hold no texts.
    """
    method = method_named(config.method)
    if runs < _FEWEST:
        raise UserError(f"audit: {runs} runs on each side; at least {_FEWEST} are needed to prove anything")
    if not method.makes_texts:
        raise UserError(f"audit: {config.method!r} makes no texts: there is none to look for a canary in")
    claimed, privacy = None, getattr(config.settings, "privacy", None)
    if privacy is not None and privacy.private:
        claimed, delta = privacy.epsilon, privacy.delta
    Budget(1.0, delta)  # refuses what cannot be
    half = runs - runs // 2
    highest = epsilon_from_errors(half, half, 0, half, delta=delta)
    say(f"{runs} runs on each side: an attack without a mistake would prove an epsilon of {highest:.2f}, none more")
    problem = prepare(config.task, config.learner)
    if problem.data.vectors is not None or len(problem.data.task.text_columns) != 1:
        raise UserError(f"audit: {problem.data.task.name} has no single text column")
    rng, key = np.random.default_rng(config.seed), named_key(config.seed, "audit releases")
    train = problem.data.train
    train = train.take(rng.permutation(len(train))[: rows or len(train)])
    canary = _canary(train, problem.classes, rng)
    say(f"canary, as class {problem.data.task.label_names[canary.labels[0]]}: {canary.texts[0][0]}")
    sides = (_with_train(problem, _joined(train, canary)), _with_train(problem, train))
    examiner = _Examiner(problem, canary, config)
    scores = np.zeros((2, runs, len(_ATTACKS)))
    progress = Progress("audit: runs", 2 * runs)
    try:
        for number, side in itertools.product(range(runs), range(2)):
            distil_key, learner_key = jax.random.split(jax.random.fold_in(key, 2 * number + side))
            distilled = method.distill(config.settings, sides[side], key=distil_key, run=Run(say=lambda line: None))
            scores[side, number] = examiner(distilled, learner_key)
            progress.update(2 * number + side + 1)
    finally:
        progress.close()
    result = {}
    for column, name in enumerate(_ATTACKS):
        members, others = scores[0, :, column], scores[1, :, column]
        epsilon = epsilon_from_scores(members, others, delta=delta)
        facts = {"epsilon": epsilon, "highest": highest, "claimed": claimed}
        result[name] = attack(members, others).to_json() | facts
        said = f"{name}: AUC {result[name]['auc']:.3f}, epsilon at least {epsilon:.3f}"
        if claimed is not None:
            said += f", claimed {claimed:g}" + (": REFUTED" if epsilon > claimed else "")
        say(said)
    return result


class _Examiner:
    """Scores of the canary by a set: high ones say that it was there. Compiled once."""

    def __init__(self, problem: Problem, canary: Split, config: ExperimentConfig):
        self._problem, self._canary, self._recipe = problem, canary, config.evaluation.recipe
        self._trainer = problem.trainer()
        self._learner = self._trainer.learner(self._recipe)
        self._encoded = self._encode(canary)
        self._read = jax.jit(lambda variables, batch: self._learner.apply(variables, batch).logits)

    def __call__(self, distilled: DistilledSet, key: Key) -> tuple[float, float]:
        texts = text_split(distilled)
        trained = self._trainer.on_texts(self._encode(texts), self._recipe, key, soft_labels=distilled.soft_labels)
        row_length = self._problem.row_length
        logits = read_texts(
            self._read, self._learner, trained, self._encoded, np.zeros(1, np.int64), row_length=row_length
        )
        nearest = nearest_text_scores([self._canary.texts[0][0]], [text for (text,) in texts.texts])
        return float(label_margins(logits, self._canary.labels)[0]), float(nearest[0])

    def _encode(self, split: Split) -> Encoded:
        return encode(split, self._problem.pretrained.tokenizer, self._problem.longest)


def _canary(train: Split, classes: int, rng: np.random.Generator) -> Split:
    """One text of words that stand in the training texts, under a label drawn at random."""
    words = sorted({word for (text,) in train.texts for word in words_of(text)})
    text = " ".join(words[i] for i in rng.integers(len(words), size=_CANARY_WORDS))
    return Split([(text,)], rng.integers(classes, size=1).astype(np.int32))


def _joined(train: Split, canary: Split) -> Split:
    return Split([*train.texts, *canary.texts], np.concatenate([train.labels, canary.labels]))


def _with_train(problem: Problem, train: Split) -> Problem:
    data = dataclasses.replace(problem.data, train=train)
    return dataclasses.replace(problem, data=data, train=encode(train, problem.pretrained.tokenizer, problem.longest))
