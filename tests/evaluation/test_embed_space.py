"""Spaces of sentence vectors: by hand, against the model itself, on the device and off it, told apart by a hash."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import change_tensors, refused
from safetensors.numpy import save_file

from jaxdistill.core.types import Batch
from jaxdistill.evaluation.embed_space import Embedder, EmbedSpace, check_same
from jaxdistill.evaluation.sentences import sentence_vectors
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.t5_folder import load_t5, save_t5
from jaxdistill.models.tiny import tiny_tokenizer

TINY = EmbedSpace(model="tiny", max_length=32)
TEXTS = ["a good film", "the story was not very good , but the music is great", "bad", " old food!\n"]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def tiny():
    return Embedder(TINY)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    """A random T5 with a decoder, BERT's way with texts, and a dense layer from 16 to 3 features."""
    folder = tmp_path_factory.mktemp("models") / "t5"
    tokenizer = tiny_tokenizer()
    sizes = {"width": 16, "heads": 2, "head_width": 6, "intermediate": 24, "buckets": 8}
    config = T5Config(vocabulary=tokenizer.get_vocab_size(), encoder_layers=1, decoder_layers=1, **sizes)
    save_t5(folder, config, init_t5(T5(config), jax.random.key(0)), tokenizer=tokenizer)
    dense = folder / "2_Dense"
    dense.mkdir()
    (dense / "config.json").write_text(json.dumps({"activation_function": "torch.nn.modules.linear.Identity"}))
    weight = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    save_file({"linear.weight": weight, "linear.bias": np.arange(3, dtype=np.float32)}, dense / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vectors.txt"
    path.write_text("good 3 4\nbad -1 0\nfilm 0 2\n")
    return EmbedSpace(model=f"words:{path}", max_length=4, normalised=False)


def expected(texts, *, model="tiny"):
    """What the learner makes of packed rows."""
    return sentence_vectors(model, [(text,) for text in texts], max_length=32)


@pytest.mark.parametrize("model", ["tiny", "tiny:roberta", "tiny:opt"])
def test_texts_are_read_as_the_model_reads_them(model):
    found = Embedder(EmbedSpace(model=model, max_length=32, normalised=False)).texts(TEXTS)
    assert found.dtype == np.float32 and found.shape == (4, 32)
    np.testing.assert_allclose(found, expected(TEXTS, model=model), atol=1e-5)


def test_vectors_have_length_one(tiny):
    found = tiny.texts(TEXTS)
    np.testing.assert_allclose(found, unit(expected(TEXTS)), atol=1e-5)
    assert found.shape == (4, tiny.width)
    np.testing.assert_array_equal(tiny.texts(TEXTS), found)
    assert tiny.texts([]).shape == (0, 32)


def test_long_texts_are_cut_before_the_last_special_token():
    space = dataclasses.replace(TINY, max_length=5)
    found = Embedder(space).texts(["a good film and a bad one"])
    np.testing.assert_allclose(found, Embedder(TINY).texts(["a good film"]), atol=1e-5)


def rows_of(embedder, texts, length, special):
    encoded = [embedder.tokenizer.encode(text.strip(), add_special_tokens=special).ids for text in texts]
    ids, mask = np.full((len(texts), length), 7, np.int32), np.zeros((len(texts), length), bool)
    for i, row in enumerate(encoded):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return ids, mask


def test_ids_on_the_device_are_texts(tiny):
    found = tiny.texts(TEXTS)
    for length in (20, 27):  # padding, of any token, changes nothing
        np.testing.assert_allclose(tiny.ids(*rows_of(tiny, TEXTS, length, True)), found, atol=1e-5)
    ids, mask = rows_of(tiny, TEXTS, 15, False)
    np.testing.assert_allclose(tiny.ids(ids, mask, add_special=True), found, atol=1e-5)
    pure = jax.jit(functools.partial(tiny.embed_ids, add_special=True))
    np.testing.assert_allclose(pure(tiny.params, ids, mask), found, atol=1e-5)
    assert (tiny.prefix, tiny.suffix) == ((2,), (3,))
    assert tiny.tokenizer.token_to_id("[CLS]") == 2 and tiny.tokenizer.token_to_id("[SEP]") == 3


def test_windows_by_hand():
    """Seven tokens in pieces of four, two apart: 0 to 3, 2 to 5, 4 to 6."""
    words = ["the", "music", "is", "very", "very", "good", "here"]
    pieces = [" ".join(words[start : start + 4]) for start in (0, 2, 4)]
    space = dataclasses.replace(TINY, window=6, stride=2)
    embedder = Embedder(space)
    one_by_one = Embedder(TINY).texts(pieces)
    found = embedder.texts([" ".join(words), "good", " ".join(words[:4])])
    np.testing.assert_allclose(found[0], unit(one_by_one.mean(axis=0)), atol=1e-5)
    np.testing.assert_allclose(found[2], one_by_one[0], atol=1e-5)
    np.testing.assert_allclose(found[1], Embedder(TINY).texts(["good"])[0], atol=1e-5)
    raw = Embedder(dataclasses.replace(space, normalised=False, max_length=6)).texts([" ".join(words)])
    np.testing.assert_allclose(raw[0], expected(pieces[:2]).mean(axis=0), atol=1e-5)
    with refused("rows of 9 tokens, special ones included; this space reads 6 at once"):
        embedder.ids(*rows_of(embedder, [" ".join(words)], 9, True))


def test_the_encoder_of_a_t5_and_its_dense_layer(t5_folder):
    space = EmbedSpace(model=str(t5_folder), max_length=40, normalised=False)
    config, params, _ = load_t5(t5_folder)
    ids = np.array(tiny_tokenizer().encode(TEXTS[0]).ids, np.int32)[None]
    read = jax.jit(functools.partial(T5(config).apply, method="encode"))
    mean = np.asarray(read({"params": params}, Batch(token_ids=ids)))[0].mean(axis=0, keepdims=True)
    plain = Embedder(space)
    assert plain.width == 16 and set(plain.params) == {"shared", "encoder"}
    np.testing.assert_allclose(plain.texts(TEXTS)[:1], mean, atol=1e-5)
    dense = Embedder(dataclasses.replace(space, dense=True))
    weight = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    np.testing.assert_allclose(dense.texts(TEXTS)[:1], mean @ weight.T + np.arange(3), atol=1e-4)
    normal = Embedder(dataclasses.replace(space, dense=True, normalised=True))
    np.testing.assert_allclose(normal.texts(TEXTS)[:1], unit(mean @ weight.T + np.arange(3)), atol=1e-5)
    assert len({plain.digest, dense.digest, normal.digest}) == 3


def test_word_vectors_by_hand(words):
    embedder = Embedder(words)
    found = embedder.texts(["Good film", "bad", "good good unheard bad film film"])
    np.testing.assert_allclose(found, [[1.5, 3.0], [-1.0, 0.0], [5 / 4, 2.0]])
    normal = Embedder(dataclasses.replace(words, normalised=True))
    np.testing.assert_allclose(normal.texts(["good film"]), [unit(np.array([1.5, 3.0]))], rtol=1e-6)
    with refused("the vector of text 1 is 0 and cannot be normalised"):
        normal.texts(["good", "unheard"])


def test_every_field_and_weight_and_token_changes_the_digest(tiny, t5_folder, tmp_path):
    changes = [
        {"model": "tiny:roberta"},
        {"normalised": False},
        {"max_length": 31},
        {"window": 16, "stride": 8},
        {"window": 16, "stride": 9},
        {"window": 17, "stride": 9},
    ]
    digests = [tiny.digest, *(dataclasses.replace(TINY, **change).digest for change in changes)]
    assert len(set(digests)) == len(digests) and all(len(digest) == 64 for digest in digests)
    assert TINY.digest == tiny.digest
    copies = [tmp_path / str(i) / "t5" for i in range(3)]
    for copy in copies:
        copy.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (copy / name).write_bytes((t5_folder / name).read_bytes())
    change_tensors(copies[1], lambda tensors: tensors | {"shared.weight": tensors["shared.weight"] * np.float32(1.001)})
    text = (copies[2] / "tokenizer.json").read_text()
    (copies[2] / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'))
    original, same, weights, tokenizer = (
        EmbedSpace(model=str(folder), max_length=32).digest for folder in (t5_folder, *copies)
    )
    assert original == same and len({original, weights, tokenizer}) == 3


def test_digests_are_compared():
    check_same("a" * 64, "a" * 64, "the inverter")
    with refused(f"the inverter belongs to the embedding space {'b' * 12}, not to {'a' * 12}: model, weights"):
        check_same("a" * 64, "b" * 64, "the inverter")


def test_vectors_are_kept(tmp_path, words, monkeypatch):
    embedder = Embedder(words)
    made = []
    inner = embedder._made
    monkeypatch.setattr(embedder, "_made", lambda texts, label: made.append(len(texts)) or inner(texts, label))
    first = embedder.texts(["good", "bad"], cache=tmp_path / "vectors")
    np.testing.assert_array_equal(embedder.texts(["good", "bad"], cache=tmp_path / "vectors"), first)
    assert made == [2]
    embedder.texts(["bad", "good"], cache=tmp_path / "vectors")
    other = Embedder(dataclasses.replace(words, normalised=True))
    np.testing.assert_allclose(other.texts(["good", "bad"], cache=tmp_path / "vectors"), unit(first), rtol=1e-6)
    files = sorted((tmp_path / "vectors").iterdir())
    assert made == [2, 2] and len(files) == 3
    for file in files:
        np.save(file, np.zeros((2, 5), np.float32))
    with refused("holds float32 (2, 5), expected float32 (2, 2): remove it to embed the texts again"):
        embedder.texts(["good", "bad"], cache=tmp_path / "vectors")
    for file in files:
        file.write_bytes(b"nothing")
    with refused("does not hold vectors"):
        embedder.texts(["good", "bad"], cache=tmp_path / "vectors")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "max"}, "pooling 'max' is unknown; accepted are mean"),
        ({"max_length": 0}, "max_length 0, window 0; expected at least 1 token"),
        ({"window": 64, "stride": 8}, "max_length 32, window 64; expected at least 1 token"),
        ({"stride": 8}, "stride 8 with a window of 0; expected 0 without windows"),
        ({"window": 8}, "stride 0 with a window of 8"),
        ({"window": 8, "stride": 7}, "stride 7 leaves tokens out; expected at most 6, a window of 8 less 2"),
        ({"max_length": 129}, "rows of 129 tokens; tiny reads at most 128"),
        ({"max_length": 2}, "rows of 2 tokens leave no room beside 2 special ones"),
        ({"dense": True}, "model 'tiny' has no dense layer behind its mean"),
        ({"model": "tiny:xlnet"}, "model 'tiny:xlnet' tells its special tokens from others by their type"),
        ({"model": "words:nowhere.txt"}, "word vectors 'words:nowhere.txt': no such file"),
    ],
)
def test_spaces_that_cannot_be(fields, message):
    with refused(message):
        Embedder(dataclasses.replace(TINY, **fields))


def test_cosines_of_texts_with_vectors(words):
    found = Embedder(words).cosines(["good", " ", "bad film"], np.array([[4.0, 3.0], [1.0, 0.0], [0.5, -1.0]]))
    np.testing.assert_allclose(found, [0.96, -1.0, -1.0], rtol=1e-6)


def test_texts_that_have_no_vector(tiny):
    with refused("text 1 has no token: '  '"):
        tiny.texts(["good", "  "])
    broken = Embedder(TINY)
    broken.params = jax.tree.map(lambda leaf: leaf * jnp.nan, broken.params)
    with refused("the vector of text 0 is not finite: the encoder's weights are broken"):
        broken.texts(["good"])


@pytest.fixture(scope="module")
def minilm():
    return Embedder(EmbedSpace())


SENTENCES = [
    f"{opening} {rest}"
    for opening in ("Stocks rose.", "I never liked", "What a film:", "Who is", "Isn't it")
    for rest in (
        "the unrelentingly long, 2-hour-long second half of this (otherwise good) picture!",
        "ok?",
        "Wall St. Bears Claw Back Into the Black - short-sellers are seeing green again.",
        "naïve café zürich 東京",
    )
]


@pytest.mark.needs_minilm
def test_minilm_reads_ids_as_texts(minilm):
    texts = SENTENCES[:3]
    found = minilm.texts(texts)
    assert found.shape == (3, 384)
    ids, mask = rows_of(minilm, texts, 32, True)
    np.testing.assert_allclose(minilm.ids(ids, mask), found, atol=1e-5)
    ids, mask = rows_of(minilm, texts, 30, False)
    np.testing.assert_allclose(minilm.ids(ids, mask, add_special=True), found, atol=1e-5)
    ids, mask = rows_of(minilm, texts, 64, True)
    np.testing.assert_allclose(minilm.ids(ids, mask), found, atol=1e-5)


@pytest.mark.needs_minilm
@pytest.mark.needs_torch
def test_minilm_is_that_of_torch(minilm):
    """Mean over tokens, then length 1: what sentence-transformers makes of this model."""
    import torch
    import transformers

    from jaxdistill.models.minilm import minilm_folder

    assert len(SENTENCES) == 20
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
    model = transformers.BertModel.from_pretrained(minilm_folder()).eval()
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    seen = inputs["attention_mask"][:, :, None].float()
    mean = (states * seen).sum(1) / seen.sum(1)
    theirs = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(minilm.texts(SENTENCES), theirs, atol=1e-5)
