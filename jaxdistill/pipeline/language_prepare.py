"""Texts, tokenizer and model of a language model's configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.data.corpus import Corpus, load_corpus
from jaxdistill.data.documents import encode_documents
from jaxdistill.data.encoding import Encoded
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_folder import load_decoder
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.models.train_tokenizer import train_tokenizer, with_tokenizer
from jaxdistill.pipeline.language_config import LanguageModelConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageProblem:
    """Texts made ready for one model.

    Attributes:
      train, dev: documents.
      dev_texts: texts that dev was made of.
      tokenizer: of the model.
      decoder: the module.
      params: its parameters before training.
      folder: where a loaded model lies, with its tokenizer files; `None` for one from scratch.
      start, end: tokens that open and close texts.
      notes: what a user should know.
    """

    train: Encoded
    dev: Encoded
    dev_texts: int
    tokenizer: Tokenizer
    decoder: Decoder
    params: PyTree
    folder: Path | None
    start: int
    end: int
    notes: tuple[str, ...]


def corpus_of(config: LanguageModelConfig) -> Corpus:
    """The texts, dev cut to what is scored."""
    corpus = load_corpus(config.corpus.sources)
    count = config.corpus.dev_texts or len(corpus.dev)
    return dataclasses.replace(corpus, dev=corpus.dev[:count])


def prepare_language_model(
    config: LanguageModelConfig,
    corpus: Corpus,
    *,
    key: Key,
    kept: Path | None = None,
) -> LanguageProblem:
    """Tokenizer, documents and model.

    Args:
      config: see there.
      corpus: see `corpus_of`.
      key: of a model from scratch.
      kept: where a run keeps the tokenizer that it has learned; one that is there is read, none is written.

    Raises:
      UserError: see `models.decoder_folder.load_decoder`, `models.train_tokenizer` and `data.documents`; a loaded model
        without an end token or tokenizer.
    """
    training, settings = config.training, config.model
    folder: Path | None = None
    if settings.name:
        options = {"scan_layers": settings.scan_layers, "remat_layers": settings.remat_layers, "dropout": None}
        loaded = load_decoder(settings.name, **options)
        if loaded.folder is None:
            raise UserError(f"model.name is {settings.name!r}, which has no tokenizer: leave it empty for a new model")
        tokenizer, decoder, params, folder = load_tokenizer(loaded.folder), loaded.decoder, loaded.params, loaded.folder
        if not decoder.config.end_tokens:
            raise UserError(f"{folder / 'config.json'}: no eos_token_id; training needs the token that closes a text")
        if tokenizer.get_vocab_size() > decoder.config.vocabulary:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the model only "
                f"{decoder.config.vocabulary}"
            )
    else:
        tokenizer = _tokenizer(config, corpus, kept)
        decoder = Decoder(
            new_config(config, tokenizer), scan_layers=settings.scan_layers, remat_layers=settings.remat_layers
        )
        params = init_decoder(decoder, key)
    end = decoder.config.end_tokens[0]
    start = end if decoder.config.start_token is None else decoder.config.start_token
    for prompt in config.samples.prompts:
        if (length := 1 + len(tokenizer.encode(prompt))) >= decoder.config.positions:
            raise UserError(
                f"the prompt {prompt[:30]!r} has {length} tokens: accepted are fewer than the model's "
                f"{decoder.config.positions} positions"
            )
    documents = {
        "row_length": training.row_length,
        "end": end,
        "start": start if training.start_token else None,
        "truncate": training.truncate,
    }
    train, dev = (encode_documents(texts, tokenizer, **documents) for texts in (corpus.train, corpus.dev))
    notes = [*corpus.notes, f"vocabulary of {tokenizer.get_vocab_size():,} tokens"]
    if train.truncated:
        notes.append(f"{train.truncated:,} training texts were cut to {training.row_length} tokens")
    return LanguageProblem(train, dev, len(corpus.dev), tokenizer, decoder, params, folder, start, end, tuple(notes))


def new_config(config: LanguageModelConfig, tokenizer: Tokenizer) -> DecoderConfig:
    """The decoder config of a model from scratch."""
    sizes, rate = config.model, config.model.dropout
    return with_tokenizer(
        DecoderConfig(
            width=sizes.width,
            layers=sizes.layers,
            heads=sizes.heads,
            kv_heads=sizes.heads,
            head_width=sizes.width // sizes.heads,
            intermediate=sizes.intermediate or 4 * sizes.width,
            positions=sizes.positions or config.training.row_length,
            embedding_width=sizes.width,
            embedding_dropout=rate,
            residual_dropout=rate,
            attention_dropout=rate,
        ),
        tokenizer,
        end=config.tokenizer.end,
    )


def _tokenizer(config: LanguageModelConfig, corpus: Corpus, kept: Path | None) -> Tokenizer:
    """The tokenizer of a model from scratch: that of a folder, the one that the run keeps, or one learned now."""
    settings = config.tokenizer
    if settings.folder:
        return load_tokenizer(Path(settings.folder))
    if kept is not None and kept.is_file():
        return load_tokenizer(kept.parent)
    options = {"vocabulary": settings.vocabulary, "end": settings.end, "special": settings.special}
    return train_tokenizer(corpus.train, **options)
