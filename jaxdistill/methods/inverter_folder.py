"""Trained inverters as folders: sizes, tokens and space as JSON, parameters as safetensors."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import UInt64

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.evaluation.embed_space import Embedder, EmbedSpace, check_same
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.score_cache import parameter_hash
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps, fingerprint, plain
from jaxdistill.methods.inversion import Models, Tokens
from jaxdistill.models.inverter import Inverter
from jaxdistill.models.t5_config import T5Config

_CONFIG, _INVERTER, _CORRECTOR = "inverter.json", "inverter.safetensors", "corrector.safetensors"
_TEXTS = "texts.npy"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedInverter:
    """An inverter with all that it belongs to.

    Attributes:
      space, digest: what it inverts.
      tokens: what it writes with.
      length: tokens of a text at most.
      inverter, params: the first guess.
      corrector_params: of the corrector, `None` where there is none.
      facts: of its training, plain: "round_trip" among them.
      read: `text_hashes` of the texts that it was trained on, sorted.
    """

    space: EmbedSpace
    digest: str
    tokens: Tokens
    length: int
    inverter: Inverter
    params: PyTree
    corrector_params: PyTree
    facts: dict[str, Any]
    read: UInt64[np.ndarray, " n"]

    @functools.cached_property
    def parameters(self) -> str:
        """Hash of the numbers of inverter and corrector."""
        return fingerprint([parameter_hash(self.params), parameter_hash(self.corrector_params)])

    def models(self, embedder: Embedder) -> Models:
        """For `methods.inversion.invert`.

        Raises:
          UserError: the embedder is another than the inverter's.
        """
        check_same(embedder.digest, self.digest, "the inverter")
        return Models(
            self.inverter,
            self.params,
            None if self.corrector_params is None else self.inverter.clone(corrects=True),
            self.corrector_params,
            jnp.asarray(self.tokens.embedder_ids, jnp.int32),
            functools.partial(embedder.embed_ids, add_special=True),
            embedder.params,
            self.length,
        )


def text_hashes(texts: Iterable[str]) -> UInt64[np.ndarray, " n"]:
    """A number of each text by its words, sorted: whether texts were read can be told by them, and nothing else."""
    numbers = [hashlib.blake2b(" ".join(words_of(text)).encode(), digest_size=8).digest() for text in texts]
    return np.sort(np.frombuffer(b"".join(numbers), np.uint64))


def save_inverter(folder: str | os.PathLike, trained: TrainedInverter) -> None:
    """Write a folder, atomically, in place of one that is there."""
    from safetensors.flax import save

    inverter = trained.inverter
    values = {
        "space": plain(trained.space),
        "digest": trained.digest,
        "tokens": list(trained.tokens.embedder_ids),
        "length": trained.length,
        "config": plain(inverter.config),
        "embedding_width": inverter.embedding_width,
        "soft_tokens": inverter.soft_tokens,
        "facts": trained.facts,
    }
    with atomic.folder(folder) as path:
        (path / _CONFIG).write_text(dumps(values) + "\n")
        for name, params in ((_INVERTER, trained.params), (_CORRECTOR, trained.corrector_params)):
            if params is not None:
                flat = {"/".join(key): jnp.asarray(value) for key, value in flatten_dict(params).items()}
                (path / name).write_bytes(save(flat))
        np.save(path / _TEXTS, trained.read)


def load_inverter(folder: str | os.PathLike) -> TrainedInverter:
    """Read what `save_inverter` wrote.

    Raises:
      UserError: it is no such folder.
    """
    path = Path(folder)
    try:
        values = json.loads((path / _CONFIG).read_text())
        inverter = Inverter(T5Config(**values["config"]), values["embedding_width"], values["soft_tokens"])
        return TrainedInverter(
            space=EmbedSpace(**values["space"]),
            digest=values["digest"],
            tokens=Tokens(tuple(values["tokens"])),
            length=values["length"],
            inverter=inverter,
            params=_read(path / _INVERTER),
            corrector_params=_read(path / _CORRECTOR) if (path / _CORRECTOR).exists() else None,
            facts=values["facts"],
            read=np.load(path / _TEXTS),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is no folder of an inverter ({error}): train one by experiments.train_inverter"
        ) from None


def _read(path: Path) -> PyTree:
    from safetensors import SafetensorError
    from safetensors.flax import load

    try:
        return unflatten_dict({tuple(name.split("/")): value for name, value in load(path.read_bytes()).items()})
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from None
