"""Documents: end tokens, texts longer than a row, each token predicted once."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxdistill.data.documents import encode_documents

END, START = 0, 1


@pytest.fixture(scope="module")
def tokenizer():
    """Words a to z, numbered from 2; truncation and padding are saved with it."""
    words = {"<end>": END, "<start>": START} | {chr(97 + i): i + 2 for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<end>", "<start>"])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    return tokenizer


def rows(encoded):
    return [encoded.tokens(i).tolist() for i in range(len(encoded))]


def test_documents_end_and_long_ones_go_on_in_further_rows(tokenizer):
    encoded = encode_documents(["a b", "", "c d e f g h"], tokenizer, row_length=4, end=END)
    assert rows(encoded) == [[2, 3, 0], [4, 5, 6, 7], [7, 8, 9, 0]]
    assert encoded.truncated == 0 and encoded.labels.tolist() == [0, 0, 0]
    # What is predicted: every token but the first, once.
    targets = [token for row in rows(encoded)[1:] for token in row[1:]]
    assert targets == [5, 6, 7, 8, 9, 0]


def test_start_and_end_are_put_where_they_are_missing(tokenizer):
    options = {"row_length": 8, "end": END, "start": START}
    assert rows(encode_documents(["a", "<start> a <end>", ""], tokenizer, **options)) == [[1, 2, 0], [1, 2, 0], [1, 0]]
    # One token that serves as both, as GPT-2's.
    assert rows(encode_documents(["a", ""], tokenizer, row_length=8, end=END, start=END)) == [[0, 2, 0], [0, 0]]


def test_truncation_drops_the_rest_and_the_end(tokenizer):
    encoded = encode_documents(["a b c", "a b c d", "a"], tokenizer, row_length=4, end=END, truncate=True)
    assert rows(encoded) == [[2, 3, 4, 0], [2, 3, 4, 5], [2, 0]]
    assert encoded.truncated == 1


def test_a_row_that_is_exactly_full_is_one_row(tokenizer):
    assert rows(encode_documents(["a b c"], tokenizer, row_length=4, end=END)) == [[2, 3, 4, 0]]
    many = encode_documents(["a b c d e f g"] * 10_000, tokenizer, row_length=3, end=END)
    assert len(many) == 40_000 and int(many.lengths.sum()) == 10_000 * (3 + 3 + 3 + 2)
    np.testing.assert_array_equal(np.unique(many.ids[many.offsets[:-1]]), [2, 4, 6, 8])


def test_mistakes_end_in_one_line(tokenizer):
    with refused("row_length is 1: a row needs at least 2 tokens"):
        encode_documents(["a"], tokenizer, row_length=1, end=END)
    for texts in ([], [""]):
        with refused(f"{len(texts)} texts have no token to predict"):
            encode_documents(texts, tokenizer, row_length=4, end=END)
