"""XLNet as a learner: what is read, trained and refused; its configs and folders."""

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
from jaxdistill.models.xlnet import XLNet, distance_vectors, init_xlnet
from jaxdistill.models.xlnet_config import XLNetConfig, huggingface_config, xlnet_config
from jaxdistill.models.xlnet_folder import load_xlnet, save_xlnet
from jaxdistill.models.xlnet_layer import keys_of_distances
from jaxdistill.models.xlnet_learner import xlnet_learner

CONFIG = XLNetConfig(
    vocabulary=40, width=16, layers=2, heads=2, intermediate=24, positions=12, initializer_range=0.2, dropout=0.3
)
LENGTHS = np.array([5, 3, 7, 1])
TEXTS = Encoded(
    ids=np.random.default_rng(0).integers(0, 40, LENGTHS.sum()).astype(np.int32),
    token_types=np.random.default_rng(1).integers(0, 3, LENGTHS.sum()).astype(np.int8),
    offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
    labels=np.array([0, 1, 1, 0], np.int32),
    truncated=0,
)
PADDED = jax.tree.map(jnp.asarray, pad(TEXTS, np.arange(4), length=8, examples=4))


@pytest.fixture(scope="module")
def made():
    """(learner, variables, jitted apply)."""
    learner = xlnet_learner(CONFIG, None, num_classes=3)
    return learner, jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.apply)


def test_keys_of_distances():
    """Entry (i, j) is the score of the distance i - j."""
    scores = np.arange(4, -4, -1) * np.ones((1, 1, 4, 1), np.float32)
    found = keys_of_distances(jnp.asarray(scores))[0, 0]
    np.testing.assert_array_equal(found, np.arange(4)[:, None] - np.arange(4))


def test_distance_vectors():
    vectors = distance_vectors(dataclasses.replace(CONFIG, width=4, farthest=2), 3)
    distances = np.array([2, 2, 1, 0, -1, -2])[:, None]
    angles = distances * np.array([1.0, 0.01])
    np.testing.assert_allclose(vectors, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-6)


def test_the_last_token_is_read(made):
    """Neither padding nor another text in the row changes anything; the order and the type of tokens do."""
    learner, variables, apply = made
    expected = apply(variables, PADDED)
    packed = jax.tree.map(jnp.asarray, pack(TEXTS, np.arange(4), row_length=9, examples=6))
    assert packed.token_ids.shape == (2, 9)
    np.testing.assert_allclose(apply(variables, packed).logits[:4], expected.logits, atol=1e-5)
    embed = jax.jit(learner.embed)
    np.testing.assert_allclose(embed(variables, packed)[:4], embed(variables, PADDED), atol=1e-5)
    alone = Batch(token_ids=PADDED.token_ids[2:3, :7], token_types=PADDED.token_types[2:3, :7])
    np.testing.assert_allclose(apply(variables, alone).logits[0], expected.logits[2], atol=1e-5)
    turned = dataclasses.replace(PADDED, token_ids=PADDED.token_ids.at[:, :2].set(PADDED.token_ids[:, 1::-1]))
    assert (abs(apply(variables, turned).logits - expected.logits).max(axis=1) > 1e-4)[:3].all()
    one_type = dataclasses.replace(PADDED, token_types=jnp.zeros_like(PADDED.token_types))
    other = apply(variables, one_type).logits
    assert abs(other - expected.logits).max() > 1e-4
    np.testing.assert_allclose(apply(variables, dataclasses.replace(PADDED, token_types=None)).logits, other, atol=1e-6)


def test_vectors_in_place_of_tokens(made):
    learner, variables, apply = made
    given = dataclasses.replace(PADDED, token_ids=None, embeddings=learner.word_table(variables)[PADDED.token_ids])
    np.testing.assert_allclose(apply(variables, given).logits, apply(variables, PADDED).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        ("all", ("embeddings", "layer_0", "layer_1", "pooler", "classifier")),
        ("last_k:1", ("layer_1", "pooler", "classifier")),
        ("head", ("pooler", "classifier")),
    ],
)
def test_partitions(trainable, names):
    learner = xlnet_learner(CONFIG, None, num_classes=3, trainable=trainable, train_words=True)
    assert learner.group_names == names
    assert set(learner.groups) == {name if "layer" not in name else "layers" for name in names}
    frozen = xlnet_learner(CONFIG, None, num_classes=3, trainable=trainable)
    assert "embeddings" not in frozen.group_names


def test_dropout_and_stacked_layers(made):
    """The same numbers with stacked layers, and with layers computed again; dropout is drawn from the key."""
    quiet, variables, apply = made
    whole = tree.merge(variables.trainable, variables.frozen)
    stacked = xlnet_learner(CONFIG, whole, num_classes=3, scan_layers=True, remat_layers=True, dropout=None)
    own = stacked.init(jax.random.key(0))
    own = Variables(own.trainable | {name: whole[name] for name in ("pooler", "classifier")}, own.frozen)
    np.testing.assert_allclose(apply(variables, PADDED).logits, jax.jit(stacked.apply)(own, PADDED).logits, atol=1e-5)
    train = jax.jit(lambda key: stacked.apply(own, PADDED, key=key, train=True).logits)
    a, b, c = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert abs(a - c).max() > 1e-4


def test_second_derivatives_in_vectors(x64):
    """The derivative of a Hessian-vector product, reverse over forward over reverse, against differences."""
    learner = xlnet_learner(dataclasses.replace(CONFIG, layers=1), None, num_classes=3, dtype="float64")
    variables = jax.jit(learner.init)(jax.random.key(0))
    vectors = jax.random.normal(jax.random.key(1), (4, 8, 16))
    direction = jax.random.normal(jax.random.key(2), vectors.shape)
    target = jax.tree.map(lambda x: jax.random.normal(jax.random.key(3), x.shape), variables.trainable)

    def moved(vectors):
        batch = dataclasses.replace(PADDED, token_ids=None, embeddings=vectors)

        def loss(params):
            return cross_entropy(learner.apply(Variables(params, variables.frozen), batch).logits, batch.labels)

        return tree.dot(jax.jvp(jax.grad(loss), (variables.trainable,), (target,))[1], target)

    moved = jax.jit(moved)
    found = float(jnp.vdot(jax.jit(jax.grad(moved))(vectors), direction))
    np.testing.assert_allclose(found, derivative_along(moved, vectors, direction, 1e-3), rtol=1e-6)


def test_folders(tmp_path):
    """A body saved bare, as pretraining leaves it, gets a fresh head."""
    params = init_xlnet(XLNet(CONFIG, 5), jax.random.key(0))
    save_xlnet(tmp_path / "whole", CONFIG, params)
    config, found, notes = load_xlnet(tmp_path / "whole")
    assert config == dataclasses.replace(CONFIG, positions=512) and len(notes) == 1
    same_arrays(found, params)
    save_xlnet(tmp_path / "bare", CONFIG, params)
    change_tensors(
        tmp_path / "bare",
        lambda found: {
            name.removeprefix("transformer."): x for name, x in found.items() if name.startswith("transformer")
        },
    )
    _, bare, notes = load_xlnet(tmp_path / "bare")
    assert notes[1] == "bare: no pooler in the checkpoint, it is drawn afresh"
    same_arrays(bare, {name: part for name, part in params.items() if name not in ("pooler", "classifier")})
    change_tensors(tmp_path / "bare", lambda found: found | {"layer.0.rel_attn.q": np.zeros((16, 4, 4), np.float32)})
    with refused("transformer.layer.0.rel_attn.q is (16, 4, 4), config.json implies (16, 2, 8)"):
        load_xlnet(tmp_path / "bare")


def test_refuses(made):
    learner, variables, _ = made
    for batch, message in (
        (dataclasses.replace(PADDED, token_ids=None), "needs token_ids or embeddings, and not both"),
        (Batch(token_ids=jnp.zeros((1, 13), jnp.int32)), "rows of 13 positions are longer than the model's 12"),
    ):
        with refused(message):
            learner.apply(variables, batch)
    with refused("xlnet has no attention rows to give labels to"):
        learner.apply(variables, PADDED, attention="cls")
    with refused("expected an even multiple of its 3 heads"):
        XLNetConfig(heads=3, width=16)
    for changes, message in (
        ({"layers": 0}, "layers is 0; expected a whole number of at least 1"),
        ({"activation": "tanh"}, "activation 'tanh' is unknown; supported are gelu, gelu_new, relu, silu"),
        ({"head_dropout": 1.0}, "head_dropout is 1.0; it must lie in [0, 1)"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0; it must be above 0"),
    ):
        with refused(message):
            dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "xlm"}, "c.json: model_type 'xlm' is not supported; supported is xlnet"),
        ({"attn_type": "uni"}, "attn_type 'uni' is not supported; supported is 'bi'"),
        ({"summary_type": "first"}, "summary_type 'first' is not supported; supported is 'last'"),
        ({"n_head": None}, "no entry n_head; an xlnet needs it"),
        ({"d_head": 3}, "d_head 3 is not d_model / n_head, 8"),
        ({"d_model": 15}, "c.json: xlnet config: width 15"),
    ],
)
def test_refuses_huggingface(changes, message):
    values = huggingface_config(CONFIG, 3)
    assert xlnet_config(values) == dataclasses.replace(CONFIG, positions=512)
    with refused(message):
        xlnet_config(values | changes, "c.json")
