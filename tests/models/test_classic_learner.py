"""Small networks over word vectors: sizes, initial weights, padding, parity with torch, learners."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Outputs, Variables
from jaxdistill.evaluation.scoring import score_batch
from jaxdistill.models.classic import Recurrent, TextCNN
from jaxdistill.models.classic_learner import NETWORKS, ClassicOptions, classic_learner

WORDS = 30


def make(network, *, classes=2, length=12, width=8, **options):
    vectors = np.random.default_rng(0).normal(size=(WORDS, width)).astype(np.float32)
    vectors[0] = 0
    options = ClassicOptions(**({"hidden": 5} | options))
    return classic_learner(network, vectors, num_classes=classes, length=length, options=options)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def texts(lengths, total):
    ids = np.random.default_rng(1).integers(1, WORDS, (len(lengths), total))
    mask = np.arange(total)[None] < np.asarray(lengths)[:, None]
    return Batch(token_ids=jnp.asarray(np.where(mask, ids, 0)), mask=jnp.asarray(mask))


@pytest.mark.parametrize(
    ("network", "classes", "length", "expected"),
    [
        ("text_cnn", 2, 400, 120_902),
        ("bi_rnn", 5, 56, 101_805),
        ("bi_lstm", 6, 30, 404_406),
        ("conv_lstm", 6, 50, 5_522),
    ],
)
def test_parameter_counts_of_the_published_networks(network, classes, length, expected):
    learner = make(network, classes=classes, length=length, width=100, hidden=0, double_bias=True)
    assert count(learner.init(jax.random.key(0)).trainable) == expected


def test_the_perceptron_of_published_sizes():
    trainable = make("mlp", classes=28, width=768, hidden=0).init(jax.random.key(0)).trainable
    assert count(trainable) == 329_428
    trainable = make("mlp", width=2304, hidden=0, one_logit=True).init(jax.random.key(0)).trainable
    assert count(trainable) == 782_101


def test_two_classes_by_one_logit():
    learner = make("text_cnn", length=400, width=100, hidden=0, one_logit=True, threshold=0.5)
    variables = learner.init(jax.random.key(0))
    assert count(variables.trainable) == 120_601
    batch = dataclasses.replace(texts([9, 4, 7], 12), labels=jnp.array([1, 1, 0]), weights=jnp.ones(3))
    logits = learner.apply(variables, batch).logits
    assert logits.shape == (3, 2) and not logits[:, 0].any() and logits[:, 1].all()


def test_a_threshold_moves_what_is_called():
    labels, weights = jnp.array([1, 1, 1]), jnp.ones(3)
    batch = Batch(token_ids=jnp.zeros((3, 1), jnp.int32), labels=labels, weights=weights)

    def called(threshold):
        learner = make("mlp", threshold=threshold)._replace(
            apply=lambda variables, batch: Outputs(jnp.array([[0.0, 0.3], [0.0, 0.6], [0.0, -0.1]]), jnp.zeros((3, 1)))
        )
        return score_batch(learner, Variables({}, {}), batch).confusion[1]

    np.testing.assert_array_equal(called(0.0), [1, 2])  # clean: a logit of .3 is class 1
    np.testing.assert_array_equal(called(0.5), [2, 1])


def test_dropping_features_needs_a_key_and_is_off_without_training():
    vectors = np.random.default_rng(0).normal(size=(WORDS, 8)).astype(np.float32)
    learner = classic_learner("text_cnn", vectors, num_classes=2, length=12, dropout=None)
    variables, batch = learner.init(jax.random.key(0)), texts([7, 9], 12)
    a, b = (learner.apply(variables, batch, key=jax.random.key(k), train=True).logits for k in (1, 2))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_array_equal(learner.apply(variables, batch).logits, learner.apply(variables, batch).logits)
    with pytest.raises(ValueError, match="needs a key"):
        learner.apply(variables, batch, train=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_initial_weights_are_xavier_normal_and_biases_zero(network):
    width, classes = 100, 6
    learner = make(network, classes=classes, length=50, width=width, hidden=0, gain=2.0)
    body = learner.init(jax.random.key(1)).trainable["body"]
    fans = {}
    if network == "text_cnn":
        fans = {f"kernel_{k}": (k * width, 100 * k * width) for k in (3, 4, 5)}
    elif network in ("bi_rnn", "bi_lstm"):
        size = 400 if network == "bi_lstm" else 100
        for direction in ("", "_back"):
            fans |= {f"layer_{i}{direction}_input": (fan_in, size) for i, fan_in in ((0, width), (1, 200))}
            fans |= {f"layer_{i}{direction}_state": (100, size) for i in (0, 1)}
    elif network == "conv_lstm":
        fans = {"kernel": (50 * 5, 16 * 5)}
    weights = {name: leaf for name, leaf in body.items() if not isinstance(leaf, dict)}
    biases = {name: leaf for name, leaf in weights.items() if "bias" in name}
    assert set(weights) - set(biases) == set(fans)
    for name, (fan_in, fan_out) in fans.items():
        assert np.std(weights[name]) == pytest.approx(2 * np.sqrt(2 / (fan_in + fan_out)), rel=0.05), name
    assert not any(np.any(bias) for bias in biases.values())


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "conv_lstm"])
def test_padding_is_not_seen(network):
    learner = make(network)
    variables = learner.init(jax.random.key(0))
    apply = jax.jit(learner.apply)
    short, long = texts([7, 2, 5], 8), texts([7, 2, 5], 8)
    pad = ((0, 0), (0, 4))
    long = Batch(token_ids=jnp.pad(long.token_ids, pad, constant_values=3), mask=jnp.pad(long.mask, pad))
    np.testing.assert_allclose(apply(variables, short).logits, apply(variables, long).logits, atol=1e-6)


@pytest.mark.parametrize("network", ["text_cnn", "bi_lstm"])
def test_networks_may_run_over_padding(network):
    seen, hidden = (make(network, mask_padding=flag) for flag in (False, True))
    batch = texts([7, 2, 5], 12)
    # After ReLU and zero biases padding changes no maximum: a bias makes the difference visible.
    variables = jax.tree.map(lambda x: x + 0.3, hidden.init(jax.random.key(0)))
    logits = [learner.apply(variables, batch).logits for learner in (seen, hidden)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_all_padding_is_finite():
    for network in ("text_cnn", "bi_rnn", "bi_lstm", "mlp"):
        learner = make(network)
        batch = Batch(token_ids=jnp.zeros((2, 12), jnp.int32), mask=jnp.zeros((2, 12), bool))
        assert np.isfinite(learner.apply(learner.init(jax.random.key(0)), batch).logits).all()


@pytest.mark.needs_torch
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_recurrent_layers_equal_torch(cell):
    import torch

    width, hidden, lengths = 7, 5, [9, 4, 1]
    module = Recurrent(cell, hidden, double_bias=True)
    x = np.random.default_rng(2).normal(size=(3, 9, width)).astype(np.float32)
    mask = np.arange(9)[None] < np.asarray(lengths)[:, None]
    params = module.init(jax.random.key(0), jnp.asarray(x), jnp.asarray(mask))["params"]
    params = {k: np.random.default_rng(3).normal(size=v.shape).astype(np.float32) for k, v in params.items()}
    twin = (torch.nn.LSTM if cell == "lstm" else torch.nn.RNN)(
        width, hidden, num_layers=2, bidirectional=True, batch_first=True
    )
    names = {"weight_ih": "input", "weight_hh": "state", "bias_ih": "bias", "bias_hh": "second_bias"}
    with torch.no_grad():
        for layer in (0, 1):
            for theirs, ours in (("", ""), ("_reverse", "_back")):
                for name, own in names.items():
                    value = params[f"layer_{layer}{ours}_{own}"]
                    getattr(twin, f"{name}_l{layer}{theirs}").copy_(torch.tensor(value.T.copy()))
        packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), lengths, batch_first=True)
        _, state = twin(packed)
        state = state[0] if cell == "lstm" else state
        expected = torch.cat([state[-2], state[-1]], dim=-1).numpy()
    found = module.apply({"params": params}, jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_second_bias_doubles_the_step_of_their_sum():
    x, mask = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 3)), jnp.float32), jnp.ones((2, 4), bool)
    sums = []
    for double in (False, True):
        module = Recurrent("rnn", 2, 1, double_bias=double)
        params = module.init(jax.random.key(0), x, mask)["params"]
        gradients = jax.grad(lambda p, module=module: jnp.sum(module.apply({"params": p}, x, mask)))(params)
        sums.append(gradients["layer_0_bias"] + (gradients["layer_0_second_bias"] if double else 0.0))
    np.testing.assert_allclose(sums[1], 2 * sums[0], rtol=1e-6)


def test_convolution_by_hand():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6, 3)), jnp.float32)
    module = TextCNN((2,), 4)
    mask = jnp.asarray([[True] * 6, [True] * 3 + [False] * 3])
    params = module.init(jax.random.key(0), x, mask)["params"]
    params["bias_2"] = jnp.arange(4.0)
    windows = np.stack([np.concatenate([x[:, i], x[:, i + 1]], axis=-1) for i in range(5)], axis=1)
    values = np.maximum(windows @ np.asarray(params["kernel_2"]).reshape(6, 4) + np.arange(4.0), 0)
    expected = [values[0].max(axis=0), values[1, :2].max(axis=0)]
    np.testing.assert_allclose(module.apply({"params": params}, x, mask), expected, atol=1e-6)


def test_fresh_learners_differ_and_fixed_ones_do_not():
    for fixed in (False, True):
        learner = make("mlp", fixed_init=fixed)
        start = learner.init(jax.random.key(0))
        a, b = (learner.refresh(start, jax.random.key(k)).trainable for k in (1, 2))
        same = jax.tree.map(np.array_equal, a, b)
        assert all(jax.tree.leaves(same)) == fixed
        drawn = learner.randomize(start, jax.random.key(1))
        assert not np.array_equal(drawn.trainable["classifier"]["kernel"], start.trainable["classifier"]["kernel"])
        assert drawn.frozen is start.frozen


def test_a_trained_head_leaves_the_body_alone():
    vectors = np.ones((WORDS, 4), np.float32)
    learner = classic_learner("mlp", vectors, num_classes=2, length=6, trainable="head")
    start = learner.init(jax.random.key(0))
    assert set(start.trainable) == {"classifier"} and learner.group_names == ("classifier",)
    assert learner.refresh(start, jax.random.key(1)).frozen is start.frozen


def test_embeddings_stand_for_words():
    learner = make("bi_rnn")
    variables = learner.init(jax.random.key(0))
    batch = texts([12, 12], 12)
    vectors = jnp.take(learner.word_table(variables), batch.token_ids, axis=0)
    by_words, by_vectors = (learner.apply(variables, b) for b in (batch, Batch(embeddings=vectors)))
    np.testing.assert_allclose(by_words.logits, by_vectors.logits, atol=1e-6)
    np.testing.assert_allclose(learner.embed(variables, batch), vectors.mean(axis=1), atol=1e-6)


def test_logits_are_linear_in_features():
    """The closed form of gradient matching rests on it."""
    for network in NETWORKS:
        learner = make(network)
        variables = learner.init(jax.random.key(0))
        out = learner.apply(variables, Batch(embeddings=jnp.ones((3, 12, 8))))
        head = variables.trainable["classifier"]
        np.testing.assert_allclose(out.logits, out.features @ head["kernel"] + head["bias"][None], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        ("cnn", {}, "unknown network 'cnn'"),
        ("mlp", {"num_classes": 1}, "num_classes is 1"),
        ("mlp", {"num_classes": 3, "options": ClassicOptions(one_logit=True)}, "are for two classes, not for 3"),
        ("mlp", {"trainable": "last_k:2"}, "expected all or head"),
        ("mlp", {"dtype": "bfloat16"}, "expected float32"),
        ("text_cnn", {"length": 4}, "less than the widest filter, 5 words"),
    ],
)
def test_bad_settings(network, changes, message):
    arguments = {"num_classes": 2, "length": 12} | changes
    with pytest.raises(UserError, match=message):
        classic_learner(network, np.ones((WORDS, 8), np.float32), **arguments)


def test_bad_options():
    for changes, message in (({"gain": 0.0}, "gain is 0.0"), ({"hidden": -1}, "hidden is -1")):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(ClassicOptions(), **changes)


def test_attention_labels_and_packed_rows_are_refused():
    learner = make("mlp")
    variables = learner.init(jax.random.key(0))
    with pytest.raises(UserError, match="mlp has no attention"):
        learner.apply(variables, texts([3], 4), attention="cls")
    packed = Batch(token_ids=jnp.zeros((1, 4), jnp.int32), segments=jnp.ones((1, 4), jnp.int32))
    with pytest.raises(ValueError, match="one text a row"):
        learner.apply(variables, packed)
