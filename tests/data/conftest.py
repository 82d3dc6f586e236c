"""A readable tokenizer, and random encoded splits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from jaxdistill.data.encoding import Encoded


@pytest.fixture
def tokenizer() -> tokenizers.Tokenizer:
    """Word-level, with BERT's special tokens: [CLS] is 2, [SEP] is 3, the word wN is 4 + N."""
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(50)))
    tokenizer = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


@pytest.fixture
def make_encoded() -> Callable[..., Encoded]:
    """`make_encoded(n, longest, seed)`: examples of 2..longest tokens, all distinct, the first of each negative."""

    def make(n: int, longest: int = 20, seed: int = 0) -> Encoded:
        draw = np.random.default_rng(seed)
        lengths = draw.integers(2, longest, size=n, endpoint=True)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.arange(1, offsets[-1] + 1, dtype=np.int32)
        ids[offsets[:-1]] *= -1
        return Encoded(
            ids=ids,
            token_types=draw.integers(2, size=len(ids)).astype(np.int8),
            offsets=offsets.astype(np.int64),
            labels=draw.integers(3, size=n).astype(np.int32),
            truncated=0,
        )

    return make
