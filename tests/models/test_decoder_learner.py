"""Decoders as learners: what is read, trained, redrawn and refused; their folders."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import change_tensors, derivative_along, refused, same_arrays

from jaxdistill.core import tree
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.types import Batch, Variables
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import pack, pad
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_classifier import from_decoder, load_decoder_classifier, save_decoder_classifier
from jaxdistill.models.decoder_folder import save_decoder
from jaxdistill.models.decoder_learner import decoder_learner
from jaxdistill.models.tiny import tiny_decoder_config

CONFIG = dataclasses.replace(tiny_decoder_config(40), width=16, embedding_width=16, head_width=8, intermediate=24)
LLAMA = dataclasses.replace(
    CONFIG,
    family="llama",
    positions_by="rotation",
    rotary_width=8,
    norm="rms",
    gated=True,
    activation="silu",
    attention_bias=False,
    feed_forward_bias=False,
    tied_head=False,
)
LENGTHS = np.array([5, 3, 7, 1])
TEXTS = Encoded(
    ids=np.random.default_rng(0).integers(0, 40, LENGTHS.sum()).astype(np.int32),
    token_types=np.zeros(LENGTHS.sum(), np.int8),
    offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
    labels=np.array([0, 1, 1, 0], np.int32),
    truncated=0,
)
PADDED = jax.tree.map(jnp.asarray, pad(TEXTS, np.arange(4), length=8, examples=4))


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def made(request):
    """(config, learner, variables, jitted apply)."""
    config = CONFIG if request.param == "gpt2" else LLAMA
    learner = decoder_learner(config, None, num_classes=3)
    return config, learner, jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.apply)


def test_the_last_token_is_read(made):
    """What follows it, padding or another text, changes nothing; what precedes it does."""
    _, learner, variables, apply = made
    expected = apply(variables, PADDED)
    for row, length in enumerate(LENGTHS):
        alone = Batch(token_ids=PADDED.token_ids[row : row + 1, :length])
        np.testing.assert_allclose(apply(variables, alone).features[0], expected.features[row], atol=1e-5)
    packed = jax.tree.map(jnp.asarray, pack(TEXTS, np.arange(4), row_length=9, examples=6))
    assert packed.token_ids.shape == (2, 9)
    np.testing.assert_allclose(apply(variables, packed).logits[:4], expected.logits, atol=1e-5)
    embed = jax.jit(learner.embed)
    np.testing.assert_allclose(embed(variables, packed)[:4], embed(variables, PADDED), atol=1e-5)
    other = dataclasses.replace(PADDED, token_ids=PADDED.token_ids.at[:, 0].set(39))
    assert (abs(apply(variables, other).features - expected.features).max(axis=1) > 1e-3).all()


def test_vectors_in_place_of_tokens(made):
    _, learner, variables, apply = made
    vectors = learner.word_table(variables)[PADDED.token_ids]
    given = dataclasses.replace(PADDED, token_ids=None, embeddings=vectors)
    np.testing.assert_allclose(apply(variables, given).logits, apply(variables, PADDED).logits, atol=1e-5)
    assert set(variables.frozen) == {"embeddings"} and set(variables.frozen["embeddings"]) == {"word"}


@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        ("all", ("embeddings", "layer_0", "layer_1", "final", "classifier")),
        ("last_k:1", ("layer_1", "final", "classifier")),
        ("head", ("classifier",)),
    ],
)
def test_partitions(trainable, names):
    learner = decoder_learner(CONFIG, None, num_classes=3, trainable=trainable)
    variables = jax.eval_shape(learner.init, jax.random.key(0))
    assert learner.group_names == names
    assert jax.tree.structure(learner.groups) == jax.tree.structure(variables.trainable)
    for path, number in jax.tree_util.tree_leaves_with_path(learner.groups):
        top, second = path[0].key, path[1].key
        assert names[number] == (f"layer_{second}" if top == "layers" else top)
    words = decoder_learner(CONFIG, None, num_classes=3, trainable=trainable, train_words=True)
    assert ("word" in jax.eval_shape(words.init, jax.random.key(0)).trainable.get("embeddings", {})) == (
        trainable == "all"
    )


def test_refresh_redraws_the_classifier_alone(made):
    _, learner, variables, _ = made
    other = jax.jit(learner.refresh)(variables, jax.random.key(1))
    for name, part in other.trainable.items():
        if name != "classifier":
            same_arrays(part, variables.trainable[name])
    kernel = other.trainable["classifier"]["kernel"]
    assert set(other.trainable["classifier"]) == {"kernel"} and kernel.shape == (16, 3)
    assert 0.1 < float(jnp.std(kernel)) < 0.3 and (kernel != variables.trainable["classifier"]["kernel"]).all()
    drawn = jax.jit(learner.randomize)(variables, jax.random.key(1))
    assert jax.tree.structure(drawn.trainable) == jax.tree.structure(variables.trainable)


def test_dropout_needs_a_key(made):
    config, quiet, variables, apply = made
    learner = decoder_learner(dataclasses.replace(config, residual_dropout=0.5), None, num_classes=3, dropout=None)
    train = jax.jit(lambda key: learner.apply(variables, PADDED, key=key, train=True).logits)
    a, b, c = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert abs(a - c).max() > 1e-4
    with pytest.raises(ValueError, match="needs a key"):
        learner.apply(variables, PADDED, train=True)


def test_second_derivatives_in_vectors(x64):
    """The derivative of a step's gradient along a direction, as the adjoints take it, against differences."""
    learner = decoder_learner(CONFIG, None, num_classes=3, dtype="float64")
    variables = jax.jit(learner.init)(jax.random.key(0))
    vectors = jax.random.normal(jax.random.key(1), (4, 8, 16))
    direction = jax.random.normal(jax.random.key(2), vectors.shape)
    target = jax.tree.map(lambda x: jax.random.normal(jax.random.key(3), x.shape), variables.trainable)

    def moved(vectors):
        batch = dataclasses.replace(PADDED, token_ids=None, embeddings=vectors)

        def loss(params):
            return cross_entropy(learner.apply(Variables(params, variables.frozen), batch).logits, batch.labels)

        return tree.dot(jax.grad(loss)(variables.trainable), target)

    moved = jax.jit(moved)
    found = float(jnp.vdot(jax.jit(jax.grad(moved))(vectors), direction))
    np.testing.assert_allclose(found, derivative_along(moved, vectors, direction, 1e-3), rtol=1e-6)


def test_folders_of_all_kinds(tmp_path):
    """A language model, a bare decoder, a classifier of other classes: the body is the same."""
    whole = init_decoder(Decoder(LLAMA), jax.random.key(0))
    save_decoder(tmp_path / "language", LLAMA, whole)
    params = from_decoder(whole)
    save_decoder_classifier(
        tmp_path / "classifier", LLAMA, params | {"classifier": {"kernel": np.ones((16, 5), np.float32)}}
    )
    save_decoder(tmp_path / "bare", LLAMA, whole)
    change_tensors(
        tmp_path / "bare",
        lambda found: {name.removeprefix("model."): x for name, x in found.items() if name != "lm_head.weight"},
    )
    for name in ("language", "bare", "classifier"):
        config, found, _ = load_decoder_classifier(tmp_path / name)
        assert (config.family, config.kv_heads, config.tied_head) == ("llama", 2, False)
        if name == "classifier":
            np.testing.assert_array_equal(found.pop("classifier")["kernel"], 1.0)
        same_arrays(found, params)
    change_tensors(tmp_path / "classifier", lambda found: found | {"score.bias": np.zeros(5, np.float32)})
    with refused("1 tensors that a llama classifier has no use for: score.bias"):
        load_decoder_classifier(tmp_path / "classifier")


def test_refuses(made):
    config, learner, variables, _ = made
    with refused(f"{config.family} has no attention rows to give labels to"):
        learner.apply(variables, PADDED, attention="cls")
    for options, message in (
        ({"trainable": "last_k:3"}, "expected all, head, or last_k:K with K in 1..2"),
        ({"trainable": "last_k:1", "scan_layers": True}, "set scan_layers=False with it"),
        ({"num_classes": 1}, "num_classes is 1; it must be at least 2"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown"),
        ({"dropout": 1.0}, "embedding_dropout is 1.0"),
    ):
        with refused(message):
            decoder_learner(config, None, **({"num_classes": 2} | options))
