"""Which tokens a text may be made of."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int32

from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VocabularyFilter = Literal["alpha", "punct", "none"]
_FORBIDDEN = frozenset("*;:_\n-'<>{}[]()/\\|=+%@~`^#$&")
_LONGEST = 17
_MARKS = re.compile(r" ?(?:[.,!?'\"]+|[0-9]+)")
_EDGES = re.compile(r"^\W+|\W+$")
_LETTERS = re.compile(r"[a-z]+")


def readable_tokens(
    tokenizer: Tokenizer, kind: VocabularyFilter, excluded: Collection[int] = ()
) -> Int32[np.ndarray, " a"]:
    """Token ids that a filter keeps, ascending; rows of a model beyond its tokenizer are never among them.

    Args:
      tokenizer: of the model.
      kind: "alpha" keeps what has the letters a to z once non-word characters are cut off both ends, at most 17
        characters and none of a list of marks (no full stop, comma, digit or hyphen), as the published GRADMM does;
        "punct" adds tokens of . , ! ? ' " or digits alone; "none" keeps all.
      excluded: tokens that are never kept: those that end a text.

    Raises:
      UserError: nothing is kept.
    """
    words = [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]
    kept = [i for i, word in enumerate(words) if i not in excluded and _keeps(word, kind)]
    if not kept:
        raise UserError(f"vocabulary filter {kind!r} keeps none of the tokenizer's {len(words)} tokens")
    return np.asarray(kept, np.int32)


def _keeps(word: str, kind: VocabularyFilter) -> bool:
    if kind == "none":
        return True
    if kind == "punct" and _MARKS.fullmatch(word):
        return True
    if len(word) > _LONGEST or _FORBIDDEN & set(word):
        return False
    return _LETTERS.fullmatch(_EDGES.sub("", word.lower().strip())) is not None
