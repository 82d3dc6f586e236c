"""How good distilled texts are as texts: fluency, diversity, and what they share with the training texts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdistill.evaluation.diversity import diversity
from jaxdistill.evaluation.likelihoods import LanguageModel
from jaxdistill.evaluation.neighbours import Neighbours, nearest_by_encoder, nearest_by_ngrams
from jaxdistill.evaluation.overlap import TrainingWords
from jaxdistill.evaluation.perplexity import text_perplexities
from jaxdistill.models.pretrained import short_name

Texts = Sequence[tuple[str, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """With what texts are compared and by whom they are judged.

    Attributes:
      training: texts of the training split, one or two strings each.
      language_model: of the fluency; `None` leaves it out.
      encoder: whose sentence vectors find the nearest training texts, see `models.pretrained.load_model`; empty
        finds them by their shared words. It reads all training texts.
      cache: folder in which a language model's scores are kept; `None` keeps none.
    """

    training: Texts
    language_model: LanguageModel | None = None
    encoder: str = ""
    cache: Path | None = None

    @functools.cached_property
    def words(self) -> TrainingWords:
        """The words of the training texts; made once."""
        return TrainingWords(_joined(self.training))


class TextQuality(NamedTuple):
    """Figures of a set of texts, and the training text nearest to each.

    Attributes:
      figures: in plain JSON types, shares as fractions: "texts" (their number), "fluency" (of each scorer, see
        `perplexity.Perplexities.summary`), "diversity" (see `diversity.diversity`), "overlap" (see
        `overlap.Overlap.summary`, and "nearest_words" or "nearest_<encoder>", the mean similarity to the nearest
        training text: Jaccard coefficient of their words, or cosine).
      nearest: row of the nearest training text of each text.
      similarities: to it.
      similarity: name of the similarity, "words" or an encoder.
    """

    figures: dict[str, Any]
    nearest: tuple[tuple[str, ...], ...]
    similarities: Float[np.ndarray, " n"]
    similarity: str


def text_quality(texts: Texts, judge: Judge) -> TextQuality:
    """Measure a set of texts. Pairs are read as one text, the second behind the first.

    Dist-n and perplexities depend on how many texts there are and how long they are: compare them with those of as
    many real texts.

    Args:
      texts: one or two strings each, at least one.
      judge: see there.
    """
    joined = _joined(texts)
    figures: dict[str, Any] = {"texts": len(texts)}
    if judge.language_model is not None:
        label = f"texts under {judge.language_model.name}: batches"
        fluency = text_perplexities(judge.language_model, joined, cache=judge.cache, label=label)
        figures["fluency"] = {fluency.metric: fluency.summary()}
    near: Neighbours
    if judge.encoder:
        near = nearest_by_encoder(judge.encoder, texts, judge.training)
        similarity = short_name(judge.encoder)
    else:
        near, similarity = nearest_by_ngrams(joined, _joined(judge.training)), "words"
    similarities = np.asarray(near.similarities[:, 0], np.float64)
    figures["diversity"] = diversity(joined)
    figures["overlap"] = judge.words.overlap(joined).summary() | {f"nearest_{similarity}": float(similarities.mean())}
    nearest = tuple(judge.training[row] for row in near.rows[:, 0])
    return TextQuality(figures, nearest, similarities, similarity)


def _joined(texts: Texts) -> list[str]:
    return ["\n".join(text) for text in texts]
