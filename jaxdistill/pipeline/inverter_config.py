"""The configuration of an inverter's training: typed, frozen, checked at construction."""

from __future__ import annotations

import dataclasses

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.embed_space import EmbedSpace
from jaxdistill.methods.inversion import Correcting
from jaxdistill.methods.inverter_training import InverterTraining
from jaxdistill.models.t5_config import T5Config
from jaxdistill.pipeline.checks import at_least, check_types
from jaxdistill.pipeline.config import LARGEST_SEED
from jaxdistill.pipeline.language_config import CorpusConfig


@dataclasses.dataclass(frozen=True)
class InverterConfig:
    """One inverter.

    Attributes:
      space: what it inverts.
      corpus: texts that it learns from. Texts that stand in the dev or test split of a task among its sources are left
        out, and such as share 13 words in a row with one.
      texts: training texts at most, drawn at random; 0 for all.
      vocabulary: tokens that it writes with, the most frequent ones; 0 for all that the corpus uses.
      length: tokens of a text at most; what is longer is learned cut off.
      width, layers, heads, intermediate: of encoder and decoder.
      soft_tokens: see `models.inverter.Inverter`.
      training: see there.
      correcting: of the round trip of dev texts that the result tells of.
      round_trip: dev texts of it.
      seed: all randomness.
      checkpoint_seconds: time between checkpoints.
    """

    space: EmbedSpace = EmbedSpace()
    corpus: CorpusConfig = CorpusConfig(dev_texts=1000)
    texts: int = 0
    vocabulary: int = 0
    length: int = 64
    width: int = 384
    layers: int = 4
    heads: int = 6
    intermediate: int = 1024
    soft_tokens: int = 16
    training: InverterTraining = InverterTraining()
    correcting: Correcting = Correcting()
    round_trip: int = 200
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        check_types(self, "config")
        least = {"texts": 0, "vocabulary": 0, "length": 1, "width": 1, "layers": 1, "heads": 1, "intermediate": 1}
        at_least(self, "config", least | {"soft_tokens": 1, "round_trip": 2, "checkpoint_seconds": 0})
        if self.width % self.heads:
            raise UserError(f"width is {self.width}: accepted is a multiple of the {self.heads} heads")
        if self.corpus.judged or self.corpus.lower:
            raise UserError(
                "corpus.judged and corpus.lower are for language models: an inverter learns texts as they are"
            )
        if 0 < self.vocabulary < 5:
            raise UserError(f"vocabulary is {self.vocabulary}: accepted are 5 or more, and 0 for all")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed is {self.seed}: accepted are seeds from 0 to {LARGEST_SEED}")

    def t5(self, vocabulary: int, *, start: int, end: int, padding: int) -> T5Config:
        """The encoder-decoder of these sizes; the word table is the head too."""
        return T5Config(
            vocabulary=vocabulary,
            width=self.width,
            heads=self.heads,
            head_width=self.width // self.heads,
            intermediate=self.intermediate,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            dropout=0.0,
            start=start,
            end=end,
            padding=padding,
        )


def smoke_inverter(config: InverterConfig) -> InverterConfig:
    """The same training on the built-in reviews with tiny models, in seconds."""
    updates = {"updates": 4, "corrector_updates": min(4, config.training.corrector_updates), "rows": 8, "selections": 1}
    return dataclasses.replace(
        config,
        space=EmbedSpace(model="tiny", max_length=32),
        corpus=CorpusConfig(dev_texts=8),
        texts=64,
        vocabulary=0,
        length=8,
        width=16,
        layers=1,
        heads=2,
        intermediate=32,
        soft_tokens=2,
        training=dataclasses.replace(config.training, **updates),
        correcting=Correcting(steps=1, beams=2, rows=4),
        round_trip=4,
    )
