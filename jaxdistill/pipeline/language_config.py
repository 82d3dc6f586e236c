"""The configuration of a language model's training: typed, frozen, checked at construction."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxdistill.core.errors import UserError
from jaxdistill.data.corpus import Corpus, Judged, load_corpus
from jaxdistill.generation.choice import Sampling
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.models.decoder_config import FIXED, DecoderConfig
from jaxdistill.models.train_tokenizer import END_OF_TEXT
from jaxdistill.pipeline.checks import at_least, check_types
from jaxdistill.pipeline.config import LARGEST_SEED


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Which texts.

    Attributes:
      sources: tasks, splits of them, files: see `data.corpus.load_corpus`. None is enough for a dry run, whose rows are
        then full.
      judged: tasks whose texts end with what is thought of them, see `data.corpus.Judged`, beside `sources`.
      ending, label_words, window: of these.
      lower: write all texts in lower case.
      dev_texts: texts of the dev part that are scored, the first in the order of a hash; 0 for all.
    """

    sources: tuple[str, ...] = ("toy/reviews",)
    judged: tuple[str, ...] = ()
    ending: str = " It was {label}"
    label_words: tuple[str, ...] = ()
    window: int = 0
    lower: bool = False
    dev_texts: int = 0

    def __post_init__(self):
        check_types(self, "corpus")
        at_least(self, "corpus", {"window": 0, "dev_texts": 0})
        if self.judged and "{label}" not in self.ending:
            raise UserError(f"corpus.ending is {self.ending!r}: {{label}} has to stand where the label word goes")

    @property
    def names(self) -> tuple[str, ...]:
        """Of everything that texts come from, as a user reads them."""
        return (*self.sources, *(f"{name} (judged)" for name in self.judged))

    def load(self) -> Corpus:
        """The texts; see `data.corpus.load_corpus`."""
        judged = Judged(self.judged, self.ending, self.label_words, self.window) if self.judged else None
        return load_corpus(self.sources, judged=judged, lower=self.lower)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer of a model from scratch; a loaded model has its own.

    Attributes:
      folder: one with tokenizer.json, or vocab.json and merges.txt; empty learns byte pairs from the training texts.
      vocabulary: of learned ones: tokens at most.
      end: token that closes a text, and opens one too.
      special: further special tokens of learned ones.
    """

    folder: str = ""
    vocabulary: int = 4096
    end: str = END_OF_TEXT
    special: tuple[str, ...] = ()

    def __post_init__(self):
        check_types(self, "tokenizer")
        if self.folder and self.special:
            raise UserError(f"tokenizer.special is for a tokenizer that is learned, not for that of {self.folder!r}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model from scratch, in the manner of GPT-2 or Llama, or one to go on with.

    Attributes:
      name: a Hugging Face folder or hub id to fine-tune; empty draws a model of the sizes below. For a dry run, a
        folder may hold nothing but config.json.
      family: "gpt2": learned positions, layer normalisation, gelu, the word table is the head too. "llama": rotary
        positions, root-mean-square normalisation, gated silu, a head of its own, no biases.
      width, layers, heads: hidden size, depth, attention heads.
      kv_heads: key and value heads, fewer than `heads` only in Llama; 0 for as many.
      intermediate: size of the feed-forward layers; 0 for four times the width.
      positions: tokens it can read; 0 for those of a training row.
      dropout: rates of a model from scratch, used where training.dropout says so; Llama has it in attention alone.
      scan_layers, remat_layers: see `models.decoder.Decoder`.
    """

    name: str = ""
    family: Literal["gpt2", "llama"] = "gpt2"
    width: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 0
    intermediate: int = 0
    positions: int = 0
    dropout: float = 0.1
    scan_layers: bool = False
    remat_layers: bool = False

    def __post_init__(self):
        check_types(self, "model")
        at_least(self, "model", {"width": 1, "layers": 1, "heads": 1, "kv_heads": 0, "intermediate": 0, "positions": 0})
        if self.width % self.heads:
            raise UserError(f"model.width is {self.width}: accepted is a multiple of the {self.heads} heads")
        try:
            self.decoder_config(vocabulary=1, positions=1)
        except UserError as error:
            raise UserError(f"model: {error}") from None

    def decoder_config(self, *, vocabulary: int, positions: int) -> DecoderConfig:
        """The config of a model from scratch.

        Args:
          vocabulary: rows of the word table.
          positions: tokens of a row, where `positions` says nothing.
        """
        llama = {"family": "llama", **FIXED["llama"], "activation": "silu", "norm_epsilon": 1e-5, "tied_head": False}
        llama |= {"attention_bias": False, "feed_forward_bias": False, "rotary_width": self.width // self.heads}
        rate = 0.0 if self.family == "llama" else self.dropout
        return DecoderConfig(
            vocabulary=vocabulary,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads or self.heads,
            head_width=self.width // self.heads,
            intermediate=self.intermediate or 4 * self.width,
            positions=self.positions or positions,
            embedding_width=self.width,
            embedding_dropout=rate,
            residual_dropout=rate,
            attention_dropout=self.dropout,
            **(llama if self.family == "llama" else {}),
        )


@dataclasses.dataclass(frozen=True)
class SamplesConfig:
    """Texts that the trained model writes into `samples.txt`.

    Attributes:
      count: texts from the start token.
      prompts: texts that it goes on with, one sample each.
      max_new: tokens of a sample at most; as many as the model can read where that is fewer.
      temperature, top_p: of the draw.
    """

    count: int = 8
    prompts: tuple[str, ...] = ()
    max_new: int = 64
    temperature: float = 1.0
    top_p: float = 0.95

    def __post_init__(self):
        check_types(self, "samples")
        at_least(self, "samples", {"count": 0, "max_new": 1})
        Sampling(max_new=self.max_new, temperature=self.temperature, top_p=self.top_p)  # refuses what cannot be


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """One training of a language model.

    Attributes:
      seed: all randomness.
      devices: of the mesh; 0 uses one device without a mesh, -1 all there are. Several processes use all of theirs.
      model_devices: how many of them share one copy of the model, each with its part of every layer; the others take
        other rows. Parameters and optimiser are cut over all devices in any case, and gathered where they are read.
      checkpoint_seconds: time between checkpoints.
    """

    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: LanguageModelling = LanguageModelling()
    samples: SamplesConfig = SamplesConfig()
    seed: int = 0
    devices: int = 0
    model_devices: int = 1
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        check_types(self, "config")
        at_least(self, "config", {"devices": -1, "model_devices": 1, "checkpoint_seconds": 0})
        if self.devices >= 0 and self.devices % self.model_devices or not self.devices and self.model_devices > 1:
            raise UserError(
                f"model_devices is {self.model_devices}: accepted are divisors of devices, which is {self.devices}"
            )
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed is {self.seed}: accepted are seeds from 0 to {LARGEST_SEED}")
        if self.model.name and self.tokenizer != TokenizerConfig():
            raise UserError(f"tokenizer is set, but {self.model.name!r} brings its own: leave it at its default")
        if self.model.positions and self.model.positions < self.training.row_length:
            raise UserError(
                f"model.positions is {self.model.positions}: accepted is training.row_length, "
                f"{self.training.row_length}, or more"
            )


def smoke_language_model(config: LanguageModelConfig) -> LanguageModelConfig:
    """The same training on the built-in reviews with a tiny model: four updates, in seconds."""
    row_length = min(config.training.row_length, 32)
    training = dataclasses.replace(
        config.training,
        updates=4,
        epochs=0.0,
        rows=4,
        micro_batches=min(config.training.micro_batches, 2),
        selections=2,
        row_length=row_length,
    )
    sizes = {"width": 32, "layers": 2, "heads": 2, "kv_heads": min(config.model.kv_heads, 1), "intermediate": 64}
    return dataclasses.replace(
        config,
        corpus=CorpusConfig(dev_texts=20),
        tokenizer=TokenizerConfig(vocabulary=300),
        model=dataclasses.replace(config.model, name="", positions=row_length, **sizes),
        training=training,
        devices=0,
        model_devices=1,
        samples=dataclasses.replace(config.samples, count=2, max_new=16, prompts=config.samples.prompts[:1]),
    )
