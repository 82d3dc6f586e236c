"""Scores on test of other models, trained on the same sets of texts: `EvaluationConfig.targets`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Key
from jaxdistill.data.encoding import encode
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.features import mean_features
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.report_sections import seconds_of_training
from jaxdistill.evaluation.statistics import Summary, crossed_difference, paired_difference, summarise
from jaxdistill.evaluation.text_models import MODELS, Target, counts, is_text_model, target_named, train
from jaxdistill.evaluation.tfidf import Tfidf
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Problem, Stopped
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.learner_targets import LearnerTarget, check_learner
from jaxdistill.pipeline.scores import Outcome, Scores, counted, parts, values
from jaxdistill.pipeline.text_sources import LabelledTexts, Source


def check_targets(targets: Sequence[str], problem: Problem, name: str, texts: bool) -> None:
    """Whether the targets can be trained.

    Args:
      targets: as in `EvaluationConfig`.
      problem: data and learner.
      name: of the method or set, for errors.
      texts: whether it gives texts.

    Raises:
      UserError: vectors, which no other model reads, a learner that there is not, or encoder features of a learner that
        has none.
    """
    if targets and not texts:
        raise UserError(f"evaluation.targets train on texts, but {name!r} gives vectors: leave targets out")
    for target in targets:
        if not is_text_model(target):
            check_learner(target, problem)
            continue
        if target_named(target).features != "encoder" and problem.data.task.vector_format is not None:
            raise UserError(f"target {target!r} reads texts, but {problem.data.task.name} is of vectors: give encoder")
        if target_named(target).features == "encoder" and problem.pretrained.learner.embed is None:
            raise UserError(
                f"target {target!r} sees features of the learner, but {problem.pretrained.source!r} has no sentence "
                "vectors: accepted are tfidf and tfidf_train"
            )


def score_targets(
    config: ExperimentConfig,
    problem: Problem,
    own: Sequence[Source],
    others: Sequence[Source],
    kept: Scores,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train every target on every set and score it on test.

    Args:
      config: its seed and evaluation are used.
      problem: data and learner.
      own: the method's sets, one of each distillation seed.
      others: baselines.
      kept: scores already there are not taken again.
      stop: asked before each training; True raises `Stopped`.

    Returns:
      for each target "test" (summary over the method's sets), "also" (the same where the metric is a mean of others),
      "baselines" (summaries by name), "paired" (differences to the baselines that have an interval), and of a learner
      its number of "parameters" and "notes". A model without randomness is trained once a set: there n is the number of
      sets. Learners train by the recipe of the run.
    """
    names, sources = config.evaluation.targets, (*own, *others)
    texts = {name: target_named(name) for name in names if is_text_model(name)}
    trainer = Trainer(problem, named_key(config.seed, "targets"), stop)
    total = sum(source.trainings(target.seeded) for target in texts.values() for source in sources)
    progress = Progress("models that are not neural, trained and scored on test", total) if total else None
    entries, done = {}, 0
    try:
        for name, target in texts.items():
            outcomes: dict[str, list[Outcome]] = {}
            for source in sources:
                make = functools.partial(trainer.outcomes, target, source)
                outcomes[source.name] = kept.get(f"{name}/{source.name}", source.trainings(target.seeded), make)
                done += source.trainings(target.seeded)
                if progress is not None:
                    progress.update(done, name)
            entries[name] = _entry(config, outcomes, own, others)
    finally:
        if progress is not None:
            progress.close()
    for name in names:
        if name not in texts:
            learner = LearnerTarget(name, config, problem, stop)
            outcomes = {
                source.name: kept.get(
                    f"{name}/{source.name}", source.trainings(True), functools.partial(learner.outcomes, source)
                )
                for source in sources
            }
            facts = {"parameters": learner.parameters, "notes": list(learner.notes)}
            entries[name] = _entry(config, outcomes, own, others) | facts
    return {name: entries[name] for name in names}


def _entry(
    config: ExperimentConfig, outcomes: dict[str, list[Outcome]], own: Sequence[Source], others: Sequence[Source]
) -> dict[str, Any]:
    """What there is to say of the scores of a target, by source."""
    ddof = protocol_named(config.evaluation.protocol).std_ddof
    rows = [outcomes[source.name] for source in own]
    baselines = {source.name: values(outcomes[source.name]) for source in others}
    return {
        "test": summarise([values(row) for row in rows], ddof=ddof).to_json(),
        "also": {part: summarise(scores, ddof=ddof).to_json() for part, scores in parts(rows).items()},
        "baselines": {other: summarise(scores, ddof=ddof).to_json() for other, scores in baselines.items()},
        "paired": _differences([values(row) for row in rows], baselines),
        "diverged": sum(made.diverged for made in sum(outcomes.values(), [])),
    }


class Trainer:
    """Trains targets; holds the features that several of them share.

    Args:
      problem: data and learner.
      key: of seeded models. Model i of every set has the same seed, so that scores can be paired.
      stop: asked before each training; True raises `Stopped`.
    """

    def __init__(self, problem: Problem, key: Key, stop: Callable[[], bool] = lambda: False):
        self._problem, self._key, self._stop = problem, key, stop
        self._draws: dict[str, list[LabelledTexts]] = {}
        self._words: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._vectors: dict[str, list[np.ndarray]] = {}

    def outcomes(self, target: Target, source: Source, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Outcomes of a target trained on the sets of a source in turn, as they come.

        Args:
          target: model and features.
          source: what it trains on.
          numbers: of the trainings.
        """
        self._draws.setdefault(source.name, source.sets)
        draws, data = self._draws[source.name], self._problem.data
        for number in numbers:
            if self._stop():
                raise Stopped(f"stopped while evaluating on test of {data.task.name}")
            draw = number % len(draws)
            texts = draws[draw]
            features, test_features = self._features(target.features, source.name, draw)
            seed = numpy_seed(jax.random.fold_in(self._key, number)) % 2**32
            predict = train(target.model, features, texts.split.labels, texts.soft_labels, seed=seed)
            confusion = counts(data.test.labels, predict(test_features), self._problem.classes)
            yield counted(confusion, data.task.metric)

    def _features(self, kind: str, name: str, draw: int) -> tuple[Any, Any]:
        """Features of a set and of the test split."""
        sets = [texts.split for texts in self._draws[name]]
        if kind == "tfidf":
            if (name, draw) not in self._words:
                vectoriser = Tfidf(sets[draw].texts)
                self._words[name, draw] = vectoriser(sets[draw].texts), vectoriser(self._problem.data.test.texts)
            return self._words[name, draw]
        if kind == "tfidf_train":
            vectoriser, test = self._all_words
            return vectoriser(sets[draw].texts), test
        if name not in self._vectors:
            # All sets of a name in one go, also where some have their scores: the same batches give the same bits.
            texts = [text for split in sets for text in split.texts]
            vectors = self._encoder(Split(texts, np.concatenate([split.labels for split in sets])))
            self._vectors[name] = np.split(vectors, np.cumsum([len(split) for split in sets])[:-1])
        return self._vectors[name][draw], self._test_vectors

    @functools.cached_property
    def _all_words(self) -> tuple[Tfidf, Any]:
        vectoriser = Tfidf(self._problem.data.train.texts)
        return vectoriser, vectoriser(self._problem.data.test.texts)

    @functools.cached_property
    def _test_vectors(self) -> Float[np.ndarray, "m d"]:
        return self._encoder(self._problem.data.test)

    def _encoder(self, split: Split) -> Float[np.ndarray, "n d"]:
        """Mean features scaled to unit length, as TF-IDF is: regularisation means the same on both."""
        problem, learner = self._problem, self._problem.pretrained.learner
        longest = max(int(encoded.lengths.max()) for encoded in (problem.train, problem.dev, problem.test))
        encoded = encode(split, problem.pretrained.tokenizer, longest)
        members = np.arange(len(encoded))
        vectors = mean_features(learner, problem.base(), encoded, members, row_length=problem.row_length)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _differences(own: list[list[float]], baselines: dict[str, list[float]]) -> dict[str, Any]:
    found = {name: _difference(own, scores) for name, scores in baselines.items()}
    entries = {name: summary.to_json() for name, summary in found.items() if summary is not None}
    keys = ("mean", "std", "n", "ci95", "clustered")
    return {name: {key: entry[key] for key in keys} for name, entry in entries.items()}


def _difference(own: list[list[float]], base: list[float]) -> Summary | None:
    """Difference of scores [distillation seeds, trainings] to a baseline's, training i to training i.

    Where one side is a single training it is set against every one of the other: their randomness is all there is. With
    one training on both sides only several distillation seeds give an interval.

    Returns:
      the summary, or `None` where there is no interval.
    """
    sizes = len(own[0]), len(base)
    size = max(sizes) if 1 in sizes else min(sizes)

    def spread(scores: list[float]) -> list[float]:
        return scores * size if len(scores) == 1 else scores[:size]

    rows, against = [spread(row) for row in own], spread(base)
    if len(own) > 1 and size > 1:
        return crossed_difference(rows, against)
    return paired_difference(rows, [against] * len(own)) if max(len(own), size) > 1 else None


def target_notes(
    config: ExperimentConfig, problem: Problem, targets: dict[str, Any], *, full: bool = True
) -> list[str]:
    """Sentences on what the targets of a run did not see, and what else there is to say of them.

    Args:
      config, problem: of the run.
      targets: what `score_targets` gave.
      full: whether they also trained on all data.
    """
    notes = [note for entry in targets.values() for note in entry.get("notes", ())]
    for name, entry in targets.items():
        if entry["diverged"]:
            notes.append(f"{name}: {entry['diverged']} learners diverged (their loss is not finite): they count as 0")
    texts = [name for name in targets if is_text_model(name)]
    if texts and config.task.balance.by == "reweighting" and problem.train.weights is not None:
        notes.append("models that are not neural do not see the weights of balanced training")
    for name in texts:
        most = MODELS[target_named(name).model].most_texts
        if full and config.evaluation.full_epochs and most is not None and len(problem.data.train) > most:
            notes.append(f"full data: {name} trains on {most:,} random ones of {len(problem.data.train):,} texts")
    return notes


def target_lines(result: dict[str, Any]) -> list[str]:
    """The scores as lines for a terminal."""

    def shown(name: str, entry: dict[str, Any]) -> str:
        spread = "" if entry["std"] is None else f" +- {entry['std']:.1f}"
        return f"{name} {entry['mean']:.1f}{spread} ({entry['n']})"

    targets = result.get("targets", {})
    lines = ["other models on the same texts (trainings):"] if targets else []
    for target, entry in targets.items():
        scores = {result["method"]: entry["test"]} | entry["baselines"]
        facts = [f"{entry['parameters']:,} parameters"] if "parameters" in entry else []
        seconds = seconds_of_training(result, target)
        facts += [] if seconds is None else [f"{seconds:.1f} s a training"]
        behind = f"; {', '.join(facts)}" if facts else ""
        lines.append(f"  {target}: {', '.join(shown(*pair) for pair in scores.items())}{behind}")
        if (gain := entry["paired"].get("random")) is not None:
            low, high = gain["ci95"]
            lines.append(f"    minus random: {gain['mean']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}")
    return lines
