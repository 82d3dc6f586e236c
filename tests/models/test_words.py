"""Word vectors from files, and their tokenizer."""

from __future__ import annotations

import gzip

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.data.splits import Split
from jaxdistill.models.pretrained import load_classic
from jaxdistill.models.words import find_vectors, load_glove

TEXT = "the 1 2\ndo 3 4\nn't 5 6\nthe 9 9\nfilm 7 8\n, 0 1\n"


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(TEXT, "utf-8")
    return path


def test_table_and_words(glove):
    table, tokenizer, _ = load_glove(glove)
    np.testing.assert_array_equal(table, [[0, 0], [0, 0], [1, 2], [3, 4], [5, 6], [7, 8], [0, 1]])
    assert tokenizer.encode("The film, don't, zzz").ids == [2, 5, 6, 3, 4, 6, 1]


def test_white_space_alone(glove):
    _, tokenizer, _ = load_glove(glove, split="whitespace")
    assert tokenizer.encode("The film, don't the").ids == [2, 1, 1, 2]


def test_first_rows_only(glove):
    table, tokenizer, _ = load_glove(glove, rows=2)
    assert len(table) == 4
    assert tokenizer.encode("the film do").ids == [2, 1, 3]


def test_gzip_reads_the_same(glove, tmp_path):
    packed = tmp_path / "packed.txt.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    np.testing.assert_array_equal(load_glove(packed).table, load_glove(glove).table)


def test_an_empty_text_is_one_unknown_word(glove):
    _, tokenizer, _ = load_glove(glove)
    split = Split([("",), ("the film",)], np.zeros(2, np.int32))
    encoded = encode(split, tokenizer, 8)
    assert encoded.lengths.tolist() == [1, 2]
    assert encoded.ids.tolist() == [1, 2, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no word vectors"),
        ("the 1 2\nfilm 1\n", "line 2: 1 numbers, the lines before have 2"),
        ("the 1 x\n", "line 1: expected a word and numbers"),
        ("the 1 nan\n", "not finite"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(UserError, match=message):
        load_glove(path)


def test_not_text(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as word vectors"):
        load_glove(path)


def test_names_are_looked_up_among_the_weights(glove, monkeypatch):
    assert find_vectors("no/such/thing") is None
    monkeypatch.setenv("JAXDISTILL_WEIGHTS", str(glove.parent.parent))
    assert find_vectors(glove.parent.name) == glove
    assert find_vectors(str(glove)) == glove


def test_vectors_of_an_encoder():
    made = load_classic("mlp", "tiny", num_classes=2, length=16, vector_std=0.4)
    table = np.asarray(made.learner.word_table(made.learner.init(jax.random.key(0))))
    assert not table[0].any()
    assert np.sqrt(np.mean(table**2)) == pytest.approx(0.4, rel=1e-5)
    assert made.tokenizer.encode("film").ids[0] == made.tokenizer.token_to_id("[CLS]")


def test_vectors_that_are_nowhere():
    with pytest.raises(UserError, match="word vectors 'no/such/x/y': no such file, none under .* nor an encoder"):
        load_classic("mlp", "no/such/x/y", num_classes=2, length=16)


@pytest.mark.needs_weights("glove-100d-subset")
def test_real_vectors(weights_dir):
    table, tokenizer, _ = load_glove(find_vectors(str(weights_dir / "glove-100d-subset")))
    assert table.shape == (2604 + 2, 100)
    assert tokenizer.token_to_id("the") == 2
    np.testing.assert_allclose(table[2, :3], [-0.038194, -0.24487, 0.72812])
