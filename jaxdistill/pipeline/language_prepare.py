"""Texts, tokenizer and model of a language model's configuration."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.data.corpus import Corpus
from jaxdistill.data.documents import encode_documents
from jaxdistill.data.encoding import Encoded
from jaxdistill.methods.language_step import training_shardings
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_folder import load_decoder, read_decoder_config
from jaxdistill.models.hub import find_folder
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
      shapes: of its parameters.
      make_params: `make_params(mesh)` is its parameters before training, drawn or read, on the default device or where
        `methods.language_step.training_shardings` puts them on a mesh.
      folder: where a loaded model lies, with its tokenizer files; `None` for one from scratch.
      start, end: tokens that open and close texts.
      notes: what a user should know.
    """

    train: Encoded
    dev: Encoded
    dev_texts: int
    tokenizer: Tokenizer
    decoder: Decoder
    shapes: PyTree
    make_params: Callable[[Mesh | None], PyTree]
    folder: Path | None
    start: int
    end: int
    notes: tuple[str, ...]


def corpus_of(config: LanguageModelConfig) -> Corpus:
    """The texts, dev cut to what is scored."""
    corpus = config.corpus.load()
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
        decoder, folder = decoder_of(config), find_folder(settings.name)
        tokenizer = load_tokenizer(folder)
        if not decoder.config.end_tokens:
            raise UserError(f"{folder / 'config.json'}: no eos_token_id; training needs the token that closes a text")
        if tokenizer.get_vocab_size() > decoder.config.vocabulary:
            raise UserError(
                f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the model only "
                f"{decoder.config.vocabulary}"
            )
    else:
        tokenizer = _tokenizer(config, corpus, kept)
        decoder = decoder_of(config)
        decoder = decoder.clone(config=with_tokenizer(decoder.config, tokenizer, end=config.tokenizer.end))
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
    return LanguageProblem(
        train=train,
        dev=dev,
        dev_texts=len(corpus.dev),
        tokenizer=tokenizer,
        decoder=decoder,
        shapes=parameter_shapes(decoder),
        make_params=functools.partial(_params, config, decoder, key),
        folder=folder,
        start=start,
        end=end,
        notes=tuple(notes),
    )


def decoder_of(config: LanguageModelConfig) -> Decoder:
    """The module, by sizes alone: no weights are read, and the vocabulary of a model from scratch is that asked for.

    Raises:
      UserError: `model.name` leads nowhere, its config.json is of no family that there is, or it is "tiny".
    """
    settings = config.model
    if settings.name == "tiny":
        raise UserError("model.name is 'tiny', which has no tokenizer: leave it empty for a new model")
    if settings.name:
        sizes = read_decoder_config(find_folder(settings.name))
    else:
        sizes = settings.decoder_config(vocabulary=config.tokenizer.vocabulary, positions=config.training.row_length)
    return Decoder(sizes, scan_layers=settings.scan_layers, remat_layers=settings.remat_layers)


def parameter_shapes(decoder: Decoder) -> PyTree:
    """Shapes of all parameters; none is made."""
    return jax.eval_shape(functools.partial(init_decoder, decoder), jax.eval_shape(lambda: jax.random.key(0)))


def _params(config: LanguageModelConfig, decoder: Decoder, key: Key, mesh: Mesh | None) -> PyTree:
    """The parameters before training, each born where it belongs."""
    shardings = None if mesh is None else functools.partial(training_shardings, mesh, decoder)
    if config.model.name:
        options = {"scan_layers": decoder.scan_layers, "remat_layers": decoder.remat_layers, "dropout": None}
        return load_decoder(config.model.name, **options, shardings=shardings).params
    init = functools.partial(init_decoder, decoder)
    return init(key) if shardings is None else jax.jit(init, out_shardings=shardings(jax.eval_shape(init, key)))(key)


def _tokenizer(config: LanguageModelConfig, corpus: Corpus, kept: Path | None) -> Tokenizer:
    """The tokenizer of a model from scratch: that of a folder, the one that the run keeps, or one learned now."""
    settings = config.tokenizer
    if settings.folder:
        return load_tokenizer(Path(settings.folder))
    if kept is not None and kept.is_file():
        return load_tokenizer(kept.parent)
    options = {"vocabulary": settings.vocabulary, "end": settings.end, "special": settings.special}
    return train_tokenizer(corpus.train, **options)
