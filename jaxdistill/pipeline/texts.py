"""Fluency, diversity and overlap of the texts that a method has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.likelihoods import load_language_model
from jaxdistill.evaluation.text_quality import Judge, TextQuality, text_quality
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import WITHHELD, Problem
from jaxdistill.methods.registry import BASELINES
from jaxdistill.models.decoder_folder import read_decoder_config
from jaxdistill.models.hub import find_folder
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.pipeline.config import EvaluationConfig


class WrittenTexts(NamedTuple):
    """What is said of the texts of some distilled sets.

    Attributes:
      entry: of `result.json`: "sets", the figures of each set (`evaluation.text_quality.TextQuality`), and "dev",
        those of as many dev texts of the same classes.
      first: of the first set, with its nearest training texts.
    """

    entry: dict[str, Any]
    first: TextQuality


def writes_texts(method: str, texts: bool) -> bool:
    """Whether the texts of a method are its own. Those of coresets and of `teacher_labels` are training texts: to
    compare them with the training split says nothing.

    Args:
      method: that made a set; it need not be in the registry.
      texts: whether it makes texts at all.
    """
    return texts and method not in BASELINES


def check_text_scorers(evaluation: EvaluationConfig, method: str, texts: bool) -> None:
    """Whether the models that judge texts are there and have something to judge, before anything is computed.

    Raises:
      UserError: a method that writes no texts, or a name that leads nowhere.
    """
    given = {"language_model": evaluation.language_model, "text_encoder": evaluation.text_encoder}
    for name, value in given.items():
        if value and not writes_texts(method, texts):
            raise UserError(
                f"evaluation.{name} judges texts that a method wrote, and {method!r} writes none: leave it out"
            )
        if value and value != "tiny":
            folder = find_folder(value)
            load_tokenizer(folder)
            if name == "language_model":
                read_decoder_config(folder)


def judge_texts(
    evaluation: EvaluationConfig, problem: Problem, sets: Sequence[DistilledSet], cache: Path | None = None
) -> WrittenTexts | None:
    """Measure the texts that a method wrote; `None` for vectors, for chosen training texts, and where the manifest
    withholds what the training texts were: a comparison with them would tell.

    Args:
      evaluation: names the language model and the encoder.
      problem: whose training texts are compared with.
      sets: of one method.
      cache: folder in which the scores of the language model are kept.

    Raises:
      UserError: the language model or the encoder cannot be used.
    """
    if not writes_texts(sets[0].manifest["method"], sets[0].texts is not None):
        return None
    if sets[0].manifest.get("source_hash") == WITHHELD:
        return None
    model = load_language_model(evaluation.language_model) if evaluation.language_model else None
    judge = Judge(problem.data.train.texts, model, evaluation.text_encoder, cache)
    judged = [text_quality(distilled.texts or [], judge) for distilled in sets]
    real = text_quality(_alike(problem.data.dev, np.asarray(sets[0].labels), problem.classes), judge)
    return WrittenTexts({"sets": [quality.figures for quality in judged], "dev": real.figures}, judged[0])


def text_lines(entry: dict[str, Any] | None) -> list[str]:
    """The entry as lines for a terminal: the first set beside the dev texts."""
    if entry is None:
        return []
    own, real = entry["sets"][0], entry["dev"]

    def line(name: str, path: Sequence[str], form: str) -> str | None:
        values = []
        for figures in (own, real):
            for key in path:
                figures = figures[key]
            values.append(figures)
        if None in values:
            return None
        return f"  {name}: {values[0]:{form}} (dev texts {values[1]:{form}})"

    lines = [line(f"{metric} of the texts", ("fluency", metric, "mean"), ".1f") for metric in own.get("fluency", {})]
    lines += [
        line("distinct bigrams", ("diversity", "dist_2"), ".3f"),
        line("new trigrams", ("overlap", "new_3grams"), ".3f"),
        line("copies of training texts", ("overlap", "copied"), ".3f"),
    ]
    return [found for found in lines if found is not None]


def _alike(split: Split, labels: np.ndarray, classes: int) -> list[tuple[str, ...]]:
    """As many texts of each class as there are labels of it, or all where there are fewer, always the same ones."""
    order = np.random.default_rng(0).permutation(len(split))
    chosen = []
    for number, count in enumerate(np.bincount(labels, minlength=classes)):
        chosen += order[split.labels[order] == number][:count].tolist()
    return [split.texts[row] for row in chosen]
