"""Any number of texts, a few rows at a time: memory is that of one micro-batch, the texts do not depend on its size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.decode import Candidates, decode
from jaxdistill.generation.scorers import Scorer


class Drawn(NamedTuple):
    """Texts in host memory, those of one prompt one after another.

    Attributes:
      token_ids, lengths, stopped, log_probabilities: see `decode.Samples`.
      compile_seconds: spent on compiling, 0 where the program was there already.
      seconds: spent on decoding, compiling not included.
    """

    token_ids: Int[np.ndarray, "n t"]
    lengths: Int[np.ndarray, " n"]
    stopped: Bool[np.ndarray, " n"]
    log_probabilities: Float[np.ndarray, "n t"] | None
    compile_seconds: float
    seconds: float

    @property
    def drawn_tokens(self) -> int:
        """Tokens of all texts, stop tokens included."""
        return int(self.lengths.sum() + self.stopped.sum())


def sample(
    scorer: Scorer,
    params: PyTree,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    key: Key,
    *,
    micro_batch: int = 32,
    wanted: Sequence[tuple[int, int]] | None = None,
    candidates: Candidates | None = None,
    early_exit: bool = True,
    log_probabilities: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Drawn:
    """Draw `samples` texts for each of the m prompts.

    Sample j of prompt i has the key `fold_in(fold_in(key, i), j)`: it depends neither on the other prompts nor on how
    many samples there are. A prompt is read once for up to `micro_batch` samples. All micro-batches have one shape, so
    one program is compiled.

    Args:
      scorer, params, sampling, early_exit, log_probabilities: see `decode.decode`.
      prompts: token ids, of any lengths of at least 1.
      samples: texts a prompt.
      key: of all texts.
      micro_batch: rows at once.
      wanted: (prompt, sample) of the texts to draw, in rising order; `None` for all m * samples.
      candidates: one row for each of the m * samples texts.
      progress: called with the number of texts drawn so far.

    Returns:
      The wanted texts in their order.

    Raises:
      UserError: no prompts, an empty one, tokens outside the vocabulary, positions without candidates, scores that are
        not finite, more positions than the model has.
    """
    _check(prompts, samples, micro_batch, scorer.vocabulary)
    if candidates is not None:
        _check_candidates(candidates, len(prompts) * samples, sampling, scorer.vocabulary)
    token_ids, mask = left_padded(prompts)
    order = [(i, j) for i in range(len(prompts)) for j in range(samples)] if wanted is None else list(wanted)
    times = min(samples, micro_batch)
    at_once = max(1, min(micro_batch // times, len(prompts)))
    found: list[dict[str, np.ndarray]] = []
    compile_seconds = seconds = 0.0
    for piece in _pieces(order, at_once, times):
        numbers, rows = piece[:, 0, 0], piece.reshape(-1, 2)
        part = None
        if candidates is not None:
            place = rows[:, 0] * samples + rows[:, 1]
            part = Candidates(candidates.token_ids[place], candidates.mask[place])
        arguments = (params, token_ids[numbers], mask[numbers], _keys(key, piece))
        options = {"early_exit": early_exit, "log_probabilities": log_probabilities}
        start = time.perf_counter()
        decode.lower(scorer, *arguments, sampling, part, **options).compile()  # kept: the call below finds it
        compiled = time.perf_counter()
        texts = jax.block_until_ready(decode(scorer, *arguments, sampling, part, **options))
        compile_seconds, seconds = compile_seconds + compiled - start, seconds + time.perf_counter() - compiled
        kept = _fresh(piece)
        found.append({name: np.asarray(x)[kept] for name, x in vars(texts).items() if x is not None})
        if not found[-1]["sound"].all():
            prompt, number = rows[kept][np.argmin(found[-1]["sound"])]
            raise UserError(
                f"sample: scores of sample {number} of prompt {prompt} were not finite, or nothing was left to draw; "
                "check the model's weights, the banned tokens and the candidates"
            )
        if progress is not None:
            progress(sum(len(part["lengths"]) for part in found))
    joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return Drawn(
        joined["token_ids"],
        joined["lengths"],
        joined["stopped"],
        joined.get("log_probabilities"),
        compile_seconds,
        seconds,
    )


def left_padded(texts: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, "m l"], Bool[np.ndarray, "m l"]]:
    """Token ids in one array, and where they are: the texts end together, so no slot is empty after a prompt."""
    length = max(len(text) for text in texts)
    token_ids, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), bool)
    for i, text in enumerate(texts):
        token_ids[i, length - len(text) :] = text
        mask[i, length - len(text) :] = True
    return token_ids, mask


def _pieces(order: Sequence[tuple[int, int]], at_once: int, times: int) -> Iterator[Int[np.ndarray, "p s 2"]]:
    """Micro-batches of `at_once` prompts with `times` samples each, as (prompt, sample).

    What is missing to the full shape is filled up by repeating the last line or the last sample of a line.
    """
    lines: list[list[tuple[int, int]]] = []
    for row in order:
        if not lines or lines[-1][0][0] != row[0] or len(lines[-1]) == times:
            lines.append([])
        lines[-1].append(row)
    full = [line + [line[-1]] * (times - len(line)) for line in lines]
    for start in range(0, len(full), at_once):
        piece = full[start : start + at_once]
        yield np.asarray(piece + [[piece[-1][-1]] * times] * (at_once - len(piece)), np.int32)


def _fresh(piece: Int[np.ndarray, "p s 2"]) -> Bool[np.ndarray, " r"]:
    """Rows that do not repeat the one before."""
    rows = piece.reshape(-1, 2)
    return np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])


@jax.jit
def _keys(key: Key, piece: Int[Array, "p s 2"]) -> Key:
    def one(row: jax.Array) -> Key:
        return jax.random.fold_in(jax.random.fold_in(key, row[0]), row[1])

    return jax.vmap(jax.vmap(one))(piece)


def _check(prompts: Sequence[Sequence[int]], samples: int, micro_batch: int, vocabulary: int) -> None:
    for name, value in {"prompts": len(prompts), "samples": samples, "micro_batch": micro_batch}.items():
        if value < 1:
            raise UserError(f"sample: {name} is {value}; at least 1 is needed")
    for i, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise UserError(f"sample: prompt {i} has no tokens; start it with the model's start token")
        outside = [token for token in prompt if not 0 <= token < vocabulary]
        if outside:
            raise UserError(
                f"sample: token {outside[0]} of prompt {i} is outside the vocabulary of {vocabulary} tokens"
            )


def _check_candidates(candidates: Candidates, rows: int, sampling: Sampling, vocabulary: int) -> None:
    if candidates.token_ids.shape != candidates.mask.shape or candidates.token_ids.shape[:2] != (
        rows,
        sampling.max_new,
    ):
        raise UserError(
            f"sample: candidates of shape {candidates.token_ids.shape}, mask of {candidates.mask.shape}; expected "
            f"({rows} texts, {sampling.max_new} positions, candidates)"
        )
    ids, mask = np.asarray(candidates.token_ids), np.asarray(candidates.mask)
    outside = mask & ((ids < 0) | (ids >= vocabulary))
    if outside.any():
        raise UserError(f"sample: candidate {ids[outside][0]} is outside the vocabulary of {vocabulary} tokens")
    empty = ~(mask & ~np.isin(ids, sampling.banned)).any(axis=2)
    if empty.any():
        row, position = np.argwhere(empty)[0]
        raise UserError(f"sample: position {position} of text {row} has no candidate that is not banned")
