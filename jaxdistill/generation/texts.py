"""Texts from a language model: prompts in, valid strings out, with what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.generation.batches import Drawn, sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Scorer
from jaxdistill.io.progress import Progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts, to be tokenised; token ids, as they are; one text; one token that every text starts with.
Prompts = Sequence[str] | Sequence[Sequence[int]] | str | int


class GeneratedTexts(NamedTuple):
    """Texts, those of one prompt one after another, prompts not included.

    Attributes:
      texts: decoded without special tokens, or as `read` gave them; the stop token is not part of them.
      token_ids: what they were decoded from, before special tokens were left out.
      stopped: whether each ended in a stop token (else it was cut at `max_new`).
      rejected: texts drawn and found not valid.
      drawn_tokens: of all texts, also those rejected; stop tokens included.
      seconds: of decoding, from the first prompt to the last token on the host; compiling not included.
      compile_seconds: of compiling; 0 where the program was there already.
    """

    texts: tuple[Any, ...]
    token_ids: tuple[tuple[int, ...], ...]
    stopped: tuple[bool, ...]
    rejected: int
    drawn_tokens: int
    seconds: float
    compile_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second of decoding."""
        return self.drawn_tokens / self.seconds


def generate_texts(
    scorer: Scorer,
    params: PyTree,
    tokenizer: Tokenizer,
    prompts: Prompts,
    count: int,
    sampling: Sampling,
    key: Key,
    *,
    micro_batch: int = 32,
    read: Callable[[Sequence[int]], Any] | None = None,
    early_exit: bool = True,
    label: str | None = None,
) -> GeneratedTexts:
    """Draw `count` valid texts for each prompt.

    A text that is not valid is drawn again, with a key of its own in each attempt, so that the other texts stay what
    they are.

    Args:
      scorer, params: see `decode.decode`.
      tokenizer: of the models; tokenises prompts as it is (with the special tokens that it adds), decodes texts.
      prompts: one start token or text, or several prompts as texts or token ids.
      count: texts a prompt.
      sampling: see there.
      key: of all texts.
      micro_batch, early_exit: see `batches.sample`.
      read: what a text is, from its tokens without the stop token; `None` means that it is not valid. By default all
        texts are, also empty ones, decoded without special tokens.
      label: of progress lines; none without.

    Raises:
      UserError: as many texts were rejected as were asked for; nothing was asked for; see `batches.sample`.
    """
    ids = encode_prompts(tokenizer, prompts)
    order = [(i, j) for i in range(len(ids)) for j in range(count)]
    if not order:
        raise UserError(f"generate: {len(ids)} prompts and {count} texts for each; at least one of both is needed")
    progress = Progress(label, len(order)) if label else None
    texts: dict[tuple[int, int], tuple[Any, tuple[int, ...], bool]] = {}
    attempt = rejected = 0
    drawn: list[Drawn] = []
    try:
        while wanted := [row for row in order if row not in texts]:
            options = {"micro_batch": micro_batch, "early_exit": early_exit}
            report = None if progress is None else _after(progress, len(texts), len(order))
            of_attempt = jax.random.fold_in(key, attempt)
            drawn.append(
                sample(scorer, params, ids, count, sampling, of_attempt, wanted=wanted, progress=report, **options)
            )
            for row, tokens, length, stopped in zip(wanted, *drawn[-1][:3], strict=True):
                found = tuple(tokens[:length].tolist())
                text = tokenizer.decode(list(found), skip_special_tokens=True) if read is None else read(found)
                if text is None:
                    rejected += 1
                else:
                    texts[row] = text, found, bool(stopped)
            if rejected >= len(order):
                raise UserError(
                    f"generate: {rejected} texts were not valid while {len(order)} were asked for, {len(texts)} of "
                    "which were found; check the model and the rule for valid texts, or raise max_new"
                )
            attempt += 1
    finally:
        if progress is not None:
            progress.close()
    strings, token_ids, stopped = zip(*(texts[row] for row in order), strict=True)
    return GeneratedTexts(
        strings,
        token_ids,
        stopped,
        rejected,
        sum(part.drawn_tokens for part in drawn),
        sum(part.seconds for part in drawn),
        sum(part.compile_seconds for part in drawn),
    )


def encode_prompts(tokenizer: Tokenizer, prompts: Prompts) -> list[list[int]]:
    """Token ids of prompts; see `generate_texts`."""
    if isinstance(prompts, int):
        return [[prompts]]
    if isinstance(prompts, str):
        prompts = [prompts]
    return [tokenizer.encode(prompt).ids if isinstance(prompt, str) else list(prompt) for prompt in prompts]


def _after(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Progress of an attempt after which some of the texts may have to be drawn again."""

    def report(drawn: int) -> None:
        progress.update(min(before + drawn, total))

    return report
