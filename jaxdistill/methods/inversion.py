"""Embeddings to texts: a first guess, and corrections of it that are kept where they come closer.

DaLLME-style, clean-room: after the descriptions in Tao et al. (Findings of EMNLP 2024) and Morris et al. (EMNLP 2023).
The candidates are ranked by the cosine of their own embeddings, all of it on the device.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree, pytree
from jaxdistill.generation.beam import Beams, beam_search
from jaxdistill.io.progress import Progress
from jaxdistill.models.inverter import Guess, Inverter
from jaxdistill.models.t5 import T5Cache

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, START, END, UNKNOWN = range(4)
EmbedIds = Callable[[PyTree, Int[Array, "r l"], Bool[Array, "r l"]], Float[Array, "r d"]]


@dataclasses.dataclass(frozen=True)
class Tokens:
    """An inverter's tokens: those of the embedder that its corpus uses.

    Attributes:
      embedder_ids: of each token the embedder's. The first four are padding, start, end and unknown words; of these
        the embedder reads the last alone.
    """

    embedder_ids: tuple[int, ...]

    def __post_init__(self):
        if len(self.embedder_ids) < 5:
            raise UserError(f"inverter: {len(self.embedder_ids)} tokens; at least one beside the four special ones")

    def encode(
        self, tokenizer: Tokenizer, texts: Sequence[str], length: int
    ) -> tuple[Int[np.ndarray, "n l"], Int[np.ndarray, " n"]]:
        """Tokens of texts, cut to `length`, padded; and how many each has."""
        own = np.full(max(max(self.embedder_ids) + 1, tokenizer.get_vocab_size()), UNKNOWN, np.int32)
        own[list(self.embedder_ids)] = np.arange(len(self.embedder_ids))
        ids, lengths = np.full((len(texts), length), PADDING, np.int32), np.zeros(len(texts), np.int32)
        for row, found in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            kept = own[np.asarray(found.ids[:length], np.int64)]
            ids[row, : len(kept)], lengths[row] = kept, len(kept)
        return ids, lengths

    def decode(self, tokenizer: Tokenizer, ids: Int[np.ndarray, "n l"], lengths: Int[np.ndarray, " n"]) -> list[str]:
        """Texts of tokens."""
        theirs = np.asarray(self.embedder_ids)[ids]
        rows = [row[:count].tolist() for row, count in zip(theirs, lengths, strict=True)]
        return [text.strip() for text in tokenizer.decode_batch(rows, skip_special_tokens=True)]


def choose_tokens(
    tokenizer: Tokenizer, texts: Sequence[str], special: Sequence[int], unknown: int, most: int
) -> Tokens:
    """The tokens that texts use most.

    Args:
      tokenizer: of the embedder.
      texts: of the corpus.
      special: tokens of the embedder that no text is written with.
      unknown: its token for unknown words.
      most: tokens in all; 0 for all that are used.
    """
    counts = np.zeros(tokenizer.get_vocab_size(), np.int64)
    for found in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, np.asarray(found.ids, np.int64), 1)
    counts[[*special, unknown]] = 0
    order = np.argsort(-counts, kind="stable")
    order = order[: int(np.sum(counts > 0))]
    return Tokens((*[unknown] * 4, *(int(token) for token in (order[: most - 4] if most else order))))


@dataclasses.dataclass(frozen=True)
class Correcting:
    """How guesses are corrected.

    Attributes:
      steps: corrections of each text at most; 0 takes the first guess.
      beams: texts kept from step to step, and candidates made of each; 1 is greedy.
      tolerance: a text whose best cosine grew by less in a step is left as it is; 0 never ends early.
      rows: texts at once; of each, `beams`^2 candidates are in memory.
    """

    steps: int = 20
    beams: int = 4
    tolerance: float = 1e-3
    rows: int = 16

    def __post_init__(self):
        for field, least in {"steps": 0, "beams": 1, "tolerance": 0.0, "rows": 1}.items():
            if not (value := getattr(self, field)) >= least:
                raise UserError(f"correcting.{field} is {value}: accepted is {least} or more")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "corrector_params", "embedder_ids", "embed_params"],
    meta_fields=["inverter", "corrector", "embed", "length"],
)
@dataclasses.dataclass(frozen=True)
class Models:
    """All that an inversion takes; modules, functions and numbers are static.

    Attributes:
      inverter, params: makes the first guess.
      corrector, corrector_params: corrects it; `None` where there is none.
      embedder_ids: see `Tokens`.
      embed: `embed(embed_params, token_ids, mask)` embeds texts of the embedder's tokens, without special ones.
      embed_params: see there.
      length: tokens of a text at most.
    """

    inverter: Inverter
    params: PyTree
    corrector: Inverter | None
    corrector_params: PyTree
    embedder_ids: Int[Array, " v"]
    embed: EmbedIds
    embed_params: PyTree
    length: int


@pytree
class Texts:
    """Texts as tokens, with their embeddings; `lengths` counts the tokens before the end."""

    token_ids: Int[Array, "*r l"]
    lengths: Int[Array, "*r"]
    embeddings: Float[Array, "*r d"]


@pytree
class Search:
    """Where the correction of some rows stands.

    Attributes:
      beams: the texts that are corrected next.
      cosines: of these; -inf for what is no text.
      best: of each row, the text that came closest so far.
      best_cosine: its cosine.
      active: rows that are still corrected.
    """

    beams: Texts
    cosines: Float[Array, "r m"]
    best: Texts
    best_cosine: Float[Array, " r"]
    active: Bool[Array, " r"]


class Inverted(NamedTuple):
    """Texts of some embeddings.

    Attributes:
      token_ids, lengths: see `Texts`.
      cosines: of each text's embedding with what was asked for.
      history: [t+1, n], the best cosine after each step, the first guess first.
    """

    token_ids: Int[np.ndarray, "n l"]
    lengths: Int[np.ndarray, " n"]
    cosines: Float[np.ndarray, " n"]
    history: Float[np.ndarray, "t n"]


def invert(
    models: Models, targets: Float[np.ndarray, "n d"], settings: Correcting, *, label: str = "texts inverted"
) -> Inverted:
    """Texts whose embeddings point where the targets do.

    Args:
      models: see there.
      targets: finite.
      settings: see there; without a corrector there are no corrections.
      label: of the progress line.

    Raises:
      UserError: a target that is not finite.
    """
    if not np.all(np.isfinite(targets)):
        raise UserError("inversion: an embedding is not finite")
    steps = settings.steps if models.corrector is not None else 0
    found, histories = [], []
    progress = Progress(label, len(targets))
    try:
        for begin in range(0, len(targets), settings.rows):
            index = np.minimum(np.arange(begin, begin + settings.rows), len(targets) - 1)
            rows = jnp.asarray(targets[index], jnp.float32)
            search = _start(models, rows, settings.beams)
            history = [search.best_cosine]
            for _ in range(steps):
                search = _corrected(models, rows, search, settings.beams, settings.tolerance)
                history.append(search.best_cosine)
                if not bool(jnp.any(search.active)):
                    break
            history += history[-1:] * (steps + 1 - len(history))
            real = min(settings.rows, len(targets) - begin)
            found.append(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], (search.best, search.best_cosine)))
            histories.append(np.stack([np.asarray(x)[:real] for x in history]))
            progress.update(begin + real)
    finally:
        progress.close()
    best, cosines = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    return Inverted(best.token_ids, best.lengths, cosines, np.concatenate(histories, axis=1))


def embed_texts(models: Models, token_ids: Int[Array, "*r l"], lengths: Int[Array, "*r"]) -> Texts:
    """Texts with their embeddings; what lies behind a text is padding afterwards. Jitted by the caller."""
    shape, length = token_ids.shape[:-1], token_ids.shape[-1]
    ids, counts = token_ids.reshape(-1, length), lengths.reshape(-1)
    places = jnp.arange(length)[None]
    ids = jnp.where(places < counts[:, None], ids, PADDING)
    mask = places < counts[:, None]
    embeddings = models.embed(models.embed_params, models.embedder_ids[ids], mask)
    return Texts(ids.reshape(*shape, length), lengths, embeddings.reshape(*shape, -1))


@jax.jit
def guessed(models: Models, targets: Float[Array, "r d"]) -> Texts:
    """First guesses, greedy."""
    read: Any = models.inverter.apply({"params": models.params}, targets, method="read")
    found = _search(models.inverter, models.params, read, 1, models.length)
    return embed_texts(models, *_cut(found.token_ids[:, 0], found.lengths[:, 0], models.length))


@jax.jit
def once_corrected(models: Models, targets: Float[Array, "r d"], texts: Texts) -> Texts:
    """Each text corrected once, greedily: what a corrector learns from in the second half of its training."""
    return jax.tree.map(lambda x: x[:, 0], _candidates(models, targets, texts, 1))


def _search(inverter: Inverter, params: PyTree, read: tuple[Array, Array], beams: int, length: int) -> Beams:
    """Texts of what the decoder reads; the end token has a place of its own behind `length` tokens.

    What is no word of a text is never written: read again, it would be another text.
    """

    def step(params: PyTree, tokens: Array, cache: T5Cache) -> Any:
        logits, cache = inverter.apply({"params": params}, tokens, cache, method="step")  # type: ignore[misc]
        return logits.at[..., np.array([START, UNKNOWN])].set(-jnp.inf), cache

    cache: Any = inverter.apply({"params": params}, *read, length + 1, method="start")
    return beam_search(step, params, cache, beams=beams, length=length + 1, start=START, end=END, padding=PADDING)


def _cut(token_ids: Int[Array, "*r l"], lengths: Int[Array, "*r"], length: int) -> tuple[Array, Array]:
    return token_ids[..., :length], jnp.minimum(lengths, length)


def _candidates(models: Models, targets: Float[Array, "r d"], texts: Texts, beams: int) -> Texts:
    """`beams` corrections of each text [r, ...], as [r, beams, ...]."""
    assert models.corrector is not None
    mask = jnp.arange(texts.token_ids.shape[-1])[None] < texts.lengths[:, None]
    guess = Guess(texts.token_ids, mask, texts.embeddings)
    read: Any = models.corrector.apply({"params": models.corrector_params}, targets, guess, method="read")
    found = _search(models.corrector, models.corrector_params, read, beams, models.length)
    return embed_texts(models, *_cut(found.token_ids, found.lengths, models.length))


def _start(models: Models, targets: Float[Array, "r d"], beams: int) -> Search:
    """The first guess of each row, as its only beam."""
    best = guessed(models, targets)
    cosine = cosines(best.embeddings, targets)
    beam = jax.tree.map(lambda x: jnp.repeat(x[:, None], beams, axis=1), best)
    only = jnp.where(jnp.arange(beams)[None] == 0, cosine[:, None], -jnp.inf)
    return Search(beam, only, best, cosine, jnp.ones(len(targets), bool))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _corrected(models: Models, targets: Float[Array, "r d"], search: Search, beams: int, tolerance: float) -> Search:
    """One correction of all beams of all rows; rows that are done stay as they are."""
    rows = targets.shape[0]
    flat = jax.tree.map(lambda x: x.reshape(rows * beams, *x.shape[2:]), search.beams)
    made = _candidates(models, jnp.repeat(targets, beams, axis=0), flat, beams)
    made = jax.tree.map(lambda x: x.reshape(rows, beams * beams, *x.shape[2:]), made)
    # What is corrected competes too: a text that cannot be bettered stays.
    pool = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), search.beams, made)
    found = jax.vmap(cosines, (1, None), 1)(made.embeddings, targets)
    # Candidates of beams that are no texts are none either.
    found = jnp.where(jnp.repeat(jnp.isfinite(search.cosines), beams, axis=1), found, -jnp.inf)
    ranked = jnp.concatenate([search.cosines, found], axis=1)
    ranked = jnp.where(_repeated(pool.token_ids), -jnp.inf, ranked)
    kept, place = jax.lax.top_k(ranked, beams)
    chosen = jax.tree.map(lambda x: jnp.take_along_axis(x, _like(place, x), axis=1), pool)
    better = (kept[:, 0] > search.best_cosine) & search.active
    best = jax.tree.map(lambda new, old: jnp.where(_like(better, old), new[:, 0], old), chosen, search.best)
    best_cosine = jnp.where(better, kept[:, 0], search.best_cosine)
    active = search.active & (best_cosine - search.best_cosine >= tolerance)
    return Search(chosen, kept, best, best_cosine, active)


def _repeated(token_ids: Int[Array, "r p l"]) -> Bool[Array, "r p"]:
    """Texts that stand before in their row already."""
    same = jnp.all(token_ids[:, :, None] == token_ids[:, None], axis=-1)
    place = jnp.arange(token_ids.shape[1])
    earlier = place[:, None] > place[None]
    return jnp.any(same & earlier[None], axis=2)


def _like(x: Array, other: Array) -> Array:
    """`x` with axes behind it, as many as `other` has."""
    return x.reshape(x.shape + (1,) * (other.ndim - x.ndim))


def cosines(a: Float[Array, "r d"], b: Float[Array, "r d"]) -> Float[Array, " r"]:
    """Row by row."""
    norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(norms, 1e-12)
