"""A T5's encoder as a learner: what is read, packed, trained, refused, and found in a folder."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import derivative_along, refused

from jaxdistill.core import tree
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.types import Batch, Variables
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import pack, pad
from jaxdistill.models.pretrained import load_model
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.t5_folder import save_t5
from jaxdistill.models.t5_learner import t5_learner
from jaxdistill.models.tiny import tiny_tokenizer

SIZES = {"width": 16, "heads": 2, "head_width": 8, "intermediate": 24, "encoder_layers": 2, "buckets": 8}
CONFIG = T5Config(vocabulary=40, decoder_layers=1, farthest=16, **SIZES)
LENGTHS = np.array([5, 3, 7, 1])
TEXTS = Encoded(
    ids=np.random.default_rng(0).integers(0, 40, LENGTHS.sum()).astype(np.int32),
    token_types=np.zeros(LENGTHS.sum(), np.int8),
    offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
    labels=np.array([0, 1, 1, 0], np.int32),
    truncated=0,
)
PADDED = jax.tree.map(jnp.asarray, pad(TEXTS, np.arange(4), length=8, examples=4))


@pytest.fixture(scope="module")
def made():
    """(learner, variables, jitted apply)."""
    learner = t5_learner(CONFIG, None, num_classes=3)
    return learner, jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.apply)


def test_the_mean_state_is_classified(made):
    """As the encoder itself says, of each text alone."""
    learner, variables, apply = made
    outputs = apply(variables, PADDED)
    whole = tree.merge(variables.trainable, variables.frozen)
    encoder = {"positions": whole["embeddings"]["positions"], "norm": whole["norm"]} | whole["layers"]
    params = {"shared": whole["embeddings"]["word"], "encoder": encoder}
    model = T5(dataclasses.replace(CONFIG, decoder_layers=0))
    for i, (begin, count) in enumerate(zip(TEXTS.offsets[:-1], LENGTHS, strict=True)):
        batch = Batch(token_ids=jnp.asarray(TEXTS.ids[None, begin : begin + count]))
        mean = model.apply({"params": params}, batch, method="encode")[0].mean(axis=0)
        np.testing.assert_allclose(outputs.features[i], mean, atol=1e-5)
    head = whole["classifier"]
    np.testing.assert_allclose(outputs.logits, outputs.features @ head["kernel"] + head["bias"][None], atol=1e-5)
    np.testing.assert_allclose(jax.jit(learner.embed)(variables, PADDED), outputs.features, atol=1e-6)


def test_texts_of_one_row_do_not_see_one_another(made):
    _, variables, apply = made
    packed = jax.tree.map(jnp.asarray, pack(TEXTS, np.arange(4), row_length=9, examples=6))
    assert packed.token_ids.shape == (2, 9)
    np.testing.assert_allclose(apply(variables, packed).logits[:4], apply(variables, PADDED).logits, atol=1e-5)


def test_vectors_in_place_of_words(made):
    learner, variables, apply = made
    vectors = learner.word_table(variables)[PADDED.token_ids]
    other = dataclasses.replace(PADDED, token_ids=None, embeddings=vectors)
    np.testing.assert_allclose(apply(variables, other).logits, apply(variables, PADDED).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("embeddings", "layer_0", "layer_1", "norm", "classifier")),
        ({"trainable": "last_k:1"}, ("layer_1", "norm", "classifier")),
        ({"trainable": "head"}, ("classifier",)),
    ],
)
def test_what_is_trained(options, names):
    learner = t5_learner(CONFIG, None, num_classes=3, **options)
    variables = jax.eval_shape(learner.init, jax.random.key(0))
    assert learner.group_names == names
    tops = {path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(variables.trainable)[0]}
    assert tops == {name.partition("_")[0].replace("layer", "layers") for name in names}


def test_second_derivatives_in_vectors(x64):
    """What the outer gradient of an unrolled loop is made of: the derivative of a gradient's product with a direction,
    against differences."""
    config = dataclasses.replace(CONFIG, encoder_layers=1)
    learner = t5_learner(config, None, num_classes=3, dtype="float64")
    variables = jax.jit(learner.init)(jax.random.key(0))
    vectors = jax.random.normal(jax.random.key(1), (4, 8, 16))
    along = jax.random.normal(jax.random.key(2), vectors.shape)
    target = jax.tree.map(lambda x: jax.random.normal(jax.random.key(3), x.shape), variables.trainable)

    def slope(vectors):
        batch = dataclasses.replace(PADDED, token_ids=None, embeddings=vectors)

        def loss(params):
            return cross_entropy(learner.apply(Variables(params, variables.frozen), batch).logits, batch.labels)

        return jax.jvp(loss, (variables.trainable,), (target,))[1]

    slope = jax.jit(slope)
    found = float(jnp.vdot(jax.jit(jax.grad(slope))(vectors), along))
    np.testing.assert_allclose(found, derivative_along(slope, vectors, along, 1e-3), rtol=1e-6)


def test_dropout_needs_a_key_and_changes_the_outcome():
    learner = t5_learner(CONFIG, None, num_classes=3, dropout=None)
    variables = learner.init(jax.random.key(0))
    train = jax.jit(functools.partial(learner.apply, train=True))
    with pytest.raises(ValueError, match="key"):
        train(variables, PADDED)
    a, b = (train(variables, PADDED, key=jax.random.key(i)).logits for i in range(2))
    assert not np.allclose(a, b)


def test_a_folder_with_a_decoder(tmp_path):
    """The encoder is read, the decoder noted and left."""
    tokenizer = tiny_tokenizer("t5")
    config = dataclasses.replace(CONFIG, vocabulary=tokenizer.get_vocab_size())
    params = init_t5(T5(config), jax.random.key(0))
    save_t5(tmp_path / "t5", config, params, tokenizer=tokenizer)
    loaded = load_model(tmp_path / "t5", num_classes=2)
    assert "tensors ignored (decoder." in loaded.notes[0]
    assert (loaded.learner.max_length, loaded.learner.shape["layers"]) == (512, 2)
    ids = jnp.array([tokenizer.encode("a fine film").ids])
    found = loaded.learner.embed(loaded.learner.init(jax.random.key(1)), Batch(token_ids=ids))
    mean = T5(config).apply({"params": params}, Batch(token_ids=ids), method="encode").mean(axis=1)
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_what_a_t5_cannot_do(made):
    learner, variables, _ = made
    for option in ("scan_layers", "remat_layers"):
        with refused("scan_layers and remat_layers are not to be had of a t5"):
            t5_learner(CONFIG, None, num_classes=3, **{option: True})
    with refused("t5 has no attention rows to give labels to"):
        learner.apply(variables, PADDED, attention="cls")
