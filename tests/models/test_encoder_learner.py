"""The learner adaptor: what is trained, redrawn, grouped and shared."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Variables
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.learner import encoder_learner

CONFIG = EncoderConfig(vocabulary=30, width=8, layers=3, heads=2, intermediate=12, positions=10)
BATCH = Batch(token_ids=jnp.array([[3, 4, 5], [6, 7, 8]]))


@pytest.fixture(scope="module")
def params():
    return init_params(Encoder(CONFIG, 2), jax.random.key(7))


def paths(node: dict) -> set[str]:
    return {"/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(node)}


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def test_all_but_the_word_table_is_trained(params):
    learner = encoder_learner(CONFIG, params, num_classes=4)
    variables = learner.init(jax.random.key(0))
    assert paths(variables.frozen) == {"embeddings/word/table"}
    assert paths(tree.merge(variables.trainable, variables.frozen)) == paths(params)
    assert variables.trainable["classifier"]["kernel"].shape == (8, 4)
    np.testing.assert_array_equal(learner.word_table(variables), params["embeddings"]["word"]["table"])
    assert learner.shape == {"width": 8, "layers": 3, "heads": 2, "classes": 4, "logits": 4, "vocabulary": 30}
    assert learner.max_length == 10


@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        ("all", ("embeddings", "layer_0", "layer_1", "layer_2", "pooler", "classifier")),
        ("last_k:2", ("layer_1", "layer_2", "pooler", "classifier")),
        ("head", ("pooler", "classifier")),
    ],
)
def test_groups(params, trainable, names):
    learner = encoder_learner(CONFIG, params, num_classes=2, trainable=trainable)
    variables = learner.init(jax.random.key(0))
    assert learner.group_names == names
    assert jax.tree.structure(learner.groups) == jax.tree.structure(variables.trainable)
    for path, leaf in jax.tree_util.tree_leaves_with_path(learner.groups):
        top, second = path[0].key, path[1].key
        assert isinstance(leaf, np.ndarray) and leaf.shape == ()
        assert names[leaf] == (f"layer_{second}" if top == "layers" else top)


def test_groups_of_stacked_layers(params):
    learner = encoder_learner(CONFIG, params, num_classes=2, scan_layers=True)
    np.testing.assert_array_equal(learner.groups["layers"]["key"]["bias"], [1, 2, 3])
    assert int(learner.groups["classifier"]["bias"]) == 5
    head = encoder_learner(CONFIG, params, num_classes=2, scan_layers=True, trainable="head")
    assert head.group_names == ("pooler", "classifier")
    assert paths(head.init(jax.random.key(0)).trainable) == paths(
        {name: params[name] for name in ("pooler", "classifier")}
    )


@pytest.mark.parametrize("trainable", ["last_k:2", "head"])
def test_partitions_compute_the_same(params, trainable):
    a, b = (encoder_learner(CONFIG, params, num_classes=2, trainable=t) for t in ("all", trainable))
    outs = [jax.jit(learner.apply)(learner.init(jax.random.key(0)), BATCH).logits for learner in (a, b)]
    np.testing.assert_allclose(*outs, atol=1e-6)


@pytest.mark.parametrize(("family", "fresh"), [("bert", {"classifier"}), ("distilbert", {"pooler", "classifier"})])
def test_refresh_redraws_the_head_alone(family, fresh):
    config = EncoderConfig(family=family, width=64, heads=2, layers=1, vocabulary=10, intermediate=8, positions=8)
    config_params = init_params(Encoder(config, 3), jax.random.key(7))
    learner = encoder_learner(config, config_params, num_classes=3)
    variables = learner.init(jax.random.key(0))
    other = learner.refresh(variables, jax.random.key(1))
    for name, part in other.trainable.items():
        assert same(part, variables.trainable[name]) == (name not in fresh)
    assert same(learner.refresh(variables, jax.random.key(1)), other)
    kernel = other.trainable["classifier"]["kernel"]
    assert abs(float(jnp.std(kernel)) - 0.02) < 0.005
    assert not other.trainable["classifier"]["bias"].any()
    body = {name: part for name, part in config_params.items() if name not in ("pooler", "classifier")}
    assert same({k: v for k, v in tree.merge(other.trainable, other.frozen).items() if k in body}, body)


def test_vmapped_refresh_leaves_the_body_unbatched(params):
    learner = encoder_learner(CONFIG, params, num_classes=2)
    variables = learner.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3)

    def head_of(key):
        return learner.refresh(variables, key).trainable["classifier"]

    heads = jax.vmap(head_of)(keys)
    assert heads["kernel"].shape == (3, 8, 2)

    def score(head):
        return learner.apply(Variables(variables.trainable | {"classifier": head}, variables.frozen), BATCH).logits

    batched = jax.jit(jax.vmap(score))(heads)
    looped = jnp.stack([jax.jit(score)(jax.tree.map(lambda a, i=i: a[i], heads)) for i in range(3)])
    np.testing.assert_allclose(batched, looped, atol=1e-6)


def test_init_may_be_donated(params):
    learner = encoder_learner(CONFIG, params, num_classes=2)
    first = learner.init(jax.random.key(0))
    expected = jax.tree.map(np.array, first.trainable)
    jax.tree.map(lambda a: a.delete(), first.trainable)
    assert same(learner.init(jax.random.key(0)).trainable, expected)


def test_random_when_there_are_no_parameters():
    learner = encoder_learner(CONFIG, None, num_classes=2)
    a, b, c = (learner.init(jax.random.key(i)) for i in (0, 0, 1))
    assert same(a, b)
    assert not same(a.trainable["layers"]["0"]["key"], c.trainable["layers"]["0"]["key"])
    assert abs(float(jnp.std(learner.word_table(a))) - 0.02) < 0.005


def test_a_missing_pooler_is_drawn_and_redrawn(params):
    without = {name: part for name, part in params.items() if name != "pooler"}
    learner = encoder_learner(CONFIG, without, num_classes=2)
    variables = learner.init(jax.random.key(0))
    assert variables.trainable["pooler"]["kernel"].shape == (8, 8)
    other = learner.refresh(variables, jax.random.key(1))
    assert not same(other.trainable["pooler"], variables.trainable["pooler"])


def test_dropout(params):
    quiet = encoder_learner(CONFIG, params, num_classes=2)
    noisy = encoder_learner(CONFIG, params, num_classes=2, dropout=None)
    variables = quiet.init(jax.random.key(0))
    apply = jax.jit(lambda key, train: noisy.apply(variables, BATCH, key=key, train=train).logits, static_argnums=1)
    expected = jax.jit(lambda: quiet.apply(variables, BATCH, train=True).logits)()
    np.testing.assert_allclose(apply(jax.random.key(0), False), expected, atol=1e-6)
    drawn = [apply(jax.random.key(i), True) for i in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert float(jnp.max(jnp.abs(drawn[0] - drawn[2]))) > 1e-4
    with pytest.raises(ValueError, match="needs a key"):
        noisy.apply(variables, BATCH, train=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "last_k:4"}, "trainable 'last_k:4'; expected all, head, or last_k:K with K in 1..3"),
        ({"trainable": "last_k:0"}, "trainable 'last_k:0'; expected"),
        ({"trainable": "body"}, "trainable 'body'; expected"),
        ({"trainable": "last_k:1", "scan_layers": True}, "set scan_layers=False with it"),
        ({"num_classes": 1}, "num_classes is 1; it must be at least 2"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown; expected float32, bfloat16 or float64"),
        ({"dropout": 1.5}, "hidden_dropout is 1.5; it must lie in [0, 1)"),
    ],
)
def test_refuses(params, options, message):
    with pytest.raises(UserError) as caught:
        encoder_learner(CONFIG, params, **({"num_classes": 2} | options))
    assert message in str(caught.value)
