"""The space that texts are embedded in, clustered and inverted from: declared once, hashed, and the same for all three.

The space of DaLLME-style distillation, after Tao et al., Findings of EMNLP 2024. An inverter is of use in the very
space it was trained for: with another pooling, without the normalisation or with a dense layer more, vectors look alike
and decode to garbage. So every artefact keeps the digest of its space, and `check_same` compares them.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.evaluation.embed_encoders import load_encoder
from jaxdistill.evaluation.score_cache import parameter_hash
from jaxdistill.io import atomic
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.io.progress import Progress
from jaxdistill.models.pretrained import short_name

POOLINGS = ("mean",)
_TOKENS = 8192  # of a batch, padding included
_CHUNK = 8192  # texts tokenised at once
_SHORT, _STEP = 16, 32  # lengths of rows: each costs a compilation


@dataclasses.dataclass(frozen=True)
class EmbedSpace:
    """What a sentence vector is made by, checked when made.

    Attributes:
      model: see `embed_encoders.load_encoder`.
      pooling: "mean" of the last hidden states over all tokens, special ones included.
      normalised: whether vectors have length 1.
      dense: whether the linear layer that comes with the model follows on the mean.
      max_length: tokens of a text that are read, special ones included where texts are read in one piece.
      window: tokens of a piece, special ones included; 0 reads texts in one. The vector of a text is the mean of those
        of its pieces, normalised again where the space is.
      stride: tokens from the start of a piece to that of the next; at most those of the text in a piece. 0 without
        windows.
    """

    model: str = "minilm"
    pooling: str = "mean"
    normalised: bool = True
    dense: bool = False
    max_length: int = 128
    window: int = 0
    stride: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"embed space: pooling {self.pooling!r} is unknown; accepted are {', '.join(POOLINGS)}")
        if self.max_length < 1 or not 0 <= self.window <= self.max_length:
            raise UserError(
                f"embed space: max_length {self.max_length}, window {self.window}; expected at least 1 token, and "
                "windows of at most as many (0 for none)"
            )
        if not (self.window and 0 < self.stride <= self.window) and not self.window == self.stride == 0:
            raise UserError(
                f"embed space: stride {self.stride} with a window of {self.window}; expected 0 without windows, "
                "from 1 to the window with them"
            )

    @property
    def digest(self) -> str:
        """`Embedder.digest` of this space; reads the model each time."""
        return Embedder(self).digest

    @property
    def row_length(self) -> int:
        """Most positions of a row that the encoder reads."""
        return self.window or self.max_length


class Embedder:
    """Makes vectors of texts, or of rows of token ids without leaving the device.

    Attributes:
      space: what it was made for.
      params: of the frozen encoder, for `embed_ids`.
      tokenizer: of the encoder, without truncation or padding.
      prefix, suffix: ids of the tokens that stand in front of a text and behind it ([CLS] and [SEP]).
      width: d.
    """

    def __init__(self, space: EmbedSpace):
        """
        Raises:
          UserError: see `embed_encoders.load_encoder`; rows beyond the limit of the model or without room for a text, a
            stride that leaves tokens out.
        """
        encoder = load_encoder(space.model, dense=space.dense)
        self.space, self.params, self.tokenizer = space, encoder.params, encoder.tokenizer
        self.prefix, self.suffix, self._mean = encoder.prefix, encoder.suffix, encoder.mean
        rows = f"embed space: rows of {space.row_length} tokens"
        if encoder.limit is not None and space.row_length > encoder.limit:
            raise UserError(f"{rows}; {space.model} reads at most {encoder.limit}")
        room = space.row_length - self._special
        if room < 1:
            raise UserError(f"{rows} leave no room beside {self._special} special ones")
        if space.stride > room:
            raise UserError(
                f"embed space: stride {space.stride} leaves tokens out; expected at most {room}, a window of "
                f"{space.window} less {self._special} special tokens"
            )
        one = jax.ShapeDtypeStruct((1, self._special + 1), jnp.int32)
        mask = jax.ShapeDtypeStruct(one.shape, jnp.bool_)
        self.width: int = jax.eval_shape(self.embed_ids, self.params, one, mask).shape[1]
        self._read = jax.jit(self.embed_ids, static_argnames="add_special")

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all fields of the space, the numbers of the encoder's parameters and the tokenizer.

        Of a folder only its last name counts, not where it lies.
        """
        fields = plain(self.space) | {"model": short_name(self.space.model)}
        return fingerprint([fields, parameter_hash(self.params), self.tokenizer.to_str()])

    def embed_ids(
        self,
        params: PyTree,
        ids: Int[Array, "r l"],
        mask: Bool[Array, "r l"],
        *,
        add_special: bool = False,
    ) -> Float[Array, "r d"]:
        """Vectors of rows of token ids; pure, to be jitted and differentiated in `params`.

        What the mask hides changes nothing. Each row is read in one piece.

        Args:
          params: as `params`.
          ids: texts between `prefix` and `suffix`.
          mask: True where there is a token.
          add_special: the rows hold the texts alone, from their first position on and without gaps; `prefix` and
            `suffix` are put around them.

        Raises:
          UserError: rows longer than `space.row_length`.
        """
        length = ids.shape[1] + (self._special if add_special else 0)
        if length > self.space.row_length:
            raise UserError(
                f"embed space: rows of {length} tokens, special ones included; this space reads "
                f"{self.space.row_length} at once"
            )
        if add_special:
            ids, mask = self._with_special(ids, mask)
        vectors = self._mean(params, ids, mask)
        return _unit(vectors) if self.space.normalised else vectors

    def ids(
        self,
        token_ids: Int[Array, "r l"] | Int[np.ndarray, "r l"],
        mask: Bool[Array, "r l"] | Bool[np.ndarray, "r l"],
        *,
        add_special: bool = False,
    ) -> Float[Array, "r d"]:
        """`embed_ids` with the encoder's parameters, compiled once a shape."""
        return self._read(self.params, token_ids, mask, add_special=add_special)

    def texts(self, texts: Sequence[str], *, cache: Path | None = None, label: str = "") -> Float32[np.ndarray, "n d"]:
        """Vectors of texts, white space around them taken off.

        Texts are sorted by length and padded to one of a few, so each of those costs a compilation.

        Args:
          texts: any.
          cache: folder where vectors are kept, one file for all of these texts in this space.
          label: of a progress line; empty shows none.

        Raises:
          UserError: a text without a token, one whose vector is not finite or cannot be normalised, or a file of the
            cache that holds something else.
        """
        if cache is None:
            return self._made(texts, label)
        path = Path(cache) / f"{self.digest[:32]}-{fingerprint(list(texts))[:32]}.npy"
        if path.exists():
            return _kept(path, (len(texts), self.width))
        vectors = self._made(texts, label)
        file = io.BytesIO()
        np.save(file, vectors, allow_pickle=False)
        atomic.write_bytes(path, file.getvalue())
        return vectors

    def cosines(self, texts: Sequence[str], targets: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """How near each text comes to a vector, as it is written: decoded tokens may be cut otherwise when read again.

        Args:
          texts: any; one without a token has the cosine -1.
          targets: of each text.
        """
        usable = np.array([bool(self.tokenizer.encode(text, add_special_tokens=False).ids) for text in texts], bool)
        cosines = np.full(len(texts), -1.0)
        if usable.any():
            vectors = self.texts([text for text, use in zip(texts, usable, strict=True) if use])
            own = targets[usable]
            norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(own, axis=1)
            cosines[usable] = np.sum(vectors * own, axis=1) / np.maximum(norms, 1e-12)
        return cosines

    @property
    def _special(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def _with_special(self, ids: Int[Array, "r l"], mask: Bool[Array, "r l"]) -> tuple[Array, Array]:
        before, length = len(self.prefix), ids.shape[1] + self._special
        ends = before + jnp.sum(mask, axis=1, dtype=jnp.int32)[:, None]
        places = jnp.arange(length, dtype=jnp.int32)[None]
        around = jnp.pad(ids, ((0, 0), (before, len(self.suffix))))
        around = around.at[:, :before].set(jnp.asarray(self.prefix, ids.dtype)[None])
        for i, token in enumerate(self.suffix):
            around = jnp.where(places == ends + i, jnp.asarray(token, ids.dtype), around)
        return around, places < ends + len(self.suffix)

    def _made(self, texts: Sequence[str], label: str) -> Float32[np.ndarray, "n d"]:
        owners, pieces = self._pieces(texts)
        found = np.zeros((len(pieces), self.width), np.float32)
        batches = list(_batches(np.array(list(map(len, pieces)), np.int64), self.space.row_length))
        progress = Progress(label, len(batches)) if label else None
        try:
            for done, (rows, length, members) in enumerate(batches, start=1):
                ids, mask = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
                mask[:, 0] = True  # also of rows that are filler
                for row, i in enumerate(members):
                    ids[row, : len(pieces[i])], mask[row, : len(pieces[i])] = pieces[i], True
                found[members] = np.asarray(self._read(self.params, ids, mask))[: len(members)]
                if progress is not None:
                    progress.update(done)
        finally:
            if progress is not None:
                progress.close()
        vectors = found if not self.space.window else self._means(found, owners, len(texts))
        if not (finite := np.isfinite(vectors).all(axis=1)).all():
            raise UserError(f"the vector of text {np.argmin(finite)} is not finite: the encoder's weights are broken")
        if self.space.normalised and len(none := np.flatnonzero(~vectors.any(axis=1))):
            raise UserError(f"the vector of text {none[0]} is 0 and cannot be normalised: no token has one")
        return vectors

    def _pieces(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, " w"], list[Int32[np.ndarray, " _"]]]:
        """Token ids of all pieces of the texts with the special tokens around them, and whose they are."""
        room = self.space.row_length - self._special
        most = self.space.max_length if self.space.window else room
        owners, pieces = [], []
        for owner, ids in enumerate(self._tokens(texts)):
            if not ids:
                raise UserError(f"text {owner} has no token: {texts[owner]!r}")
            ids = ids[:most]
            last = max(len(ids) - room, 0)
            starts = range(0, last + self.space.stride, self.space.stride) if self.space.window else (0,)
            for start in starts:
                pieces.append(np.array([*self.prefix, *ids[start : start + room], *self.suffix], np.int32))
                owners.append(owner)
        return np.array(owners, np.int64), pieces

    def _tokens(self, texts: Sequence[str]) -> Iterator[list[int]]:
        for start in range(0, len(texts), _CHUNK):
            chunk = [text.strip() for text in texts[start : start + _CHUNK]]
            yield from (found.ids for found in self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False))

    def _means(
        self, found: Float32[np.ndarray, "w d"], owners: Int[np.ndarray, " w"], count: int
    ) -> Float32[np.ndarray, "n d"]:
        total = np.zeros((count, self.width), np.float32)
        np.add.at(total, owners, found)
        means = total / np.bincount(owners, minlength=count).astype(np.float32)[:, None]
        return np.asarray(_unit(jnp.asarray(means))) if self.space.normalised else means


def check_same(space_digest: str, other: str, what: str) -> None:
    """Whether something was made in this space.

    Args:
      space_digest: of the space in use.
      other: that the thing was made in.
      what: it is, for the message.

    Raises:
      UserError: it was made in another one.
    """
    if space_digest != other:
        raise UserError(
            f"{what} belongs to the embedding space {other[:12]}, not to {space_digest[:12]}: model, weights, "
            "tokenizer, pooling, normalisation, dense layer and lengths have to be the same"
        )


def _unit(vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Of length 1; a vector of zeros stays."""
    squares = jnp.sum(vectors * vectors, axis=1, keepdims=True)
    # Where the length is 0 its derivative is not finite.
    return vectors * jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def _batches(lengths: Int[np.ndarray, " w"], longest: int) -> Iterator[tuple[int, int, Int[np.ndarray, " m"]]]:
    """(rows, positions, members) of batches; those of a length have one shape, but where a few rows are enough."""
    columns = np.where(lengths <= _SHORT, _SHORT, -(-lengths // _STEP) * _STEP)
    columns = np.minimum(columns, longest)
    for length in np.unique(columns)[::-1]:
        members = np.flatnonzero(columns == length)
        rows = min(max(_TOKENS // int(length), 1), 1 << (len(members) - 1).bit_length())
        for start in range(0, len(members), rows):
            yield rows, int(length), members[start : start + rows]


def _kept(path: Path, shape: tuple[int, int]) -> Float32[np.ndarray, "n d"]:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} does not hold vectors ({error}): remove it to embed the texts again") from None
    if vectors.shape != shape or vectors.dtype != np.float32:
        found = f"{vectors.dtype} {vectors.shape}, expected float32 {shape}"
        raise UserError(f"{path} holds {found}: remove it to embed the texts again")
    return vectors
