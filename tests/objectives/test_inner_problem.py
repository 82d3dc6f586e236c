"""Initial values, label kinds, and the order in which samples are visited."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch, Synthetic
from jaxdistill.objectives.inner_problem import InnerSpec, make_schedule
from jaxdistill.objectives.labels import (
    drawn_labels,
    initial_labels,
    label_targets,
    linear_decay,
    raw_step_sizes,
    step_sizes,
)


@pytest.mark.parametrize("classes, probability", [(2, 0.731), (3, 0.576), (4, 0.475)])
def test_one_hot_scores_are_far_from_one_hot_targets(classes, probability):
    scores = jnp.asarray(initial_labels(np.arange(classes), classes, "soft", own_class_probability=None))
    np.testing.assert_allclose(jnp.diagonal(label_targets(scores, "soft")), probability, atol=5e-4)


@pytest.mark.parametrize("classes", [2, 3, 50])
def test_clean_soft_labels_start_at_the_probability_asked_for(classes):
    targets = label_targets(jnp.asarray(initial_labels(np.arange(classes), classes, "soft")), "soft")
    np.testing.assert_allclose(jnp.diagonal(targets), 0.9, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(targets, axis=-1), 1.0, rtol=1e-5)


def test_unrestricted_and_hard_labels_are_targets_as_they_are():
    scores = jnp.array([[2.0, -3.0]])
    for kind in ("unrestricted", "hard"):
        np.testing.assert_array_equal(label_targets(scores, kind), scores)
        np.testing.assert_array_equal(initial_labels(np.array([0, 1, 0, 1]), 2, kind), np.eye(2)[[0, 1, 0, 1]])


def test_binary_labels_are_the_loss_of_one_logit_with_a_target_of_any_value():
    z, y = jnp.array([0.7, -1.2, 0.3]), jnp.array([1.4, 0.2, -0.8])
    losses = example_cross_entropy(jnp.stack([jnp.zeros(3), z], axis=1), label_targets(y[:, None], "binary"))
    np.testing.assert_allclose(losses, jax.nn.softplus(z) - y * z, rtol=1e-6)
    np.testing.assert_array_equal(initial_labels(np.array([0, 1]), 2, "binary"), [[0], [1]])
    with pytest.raises(UserError, match="binary, but there are 3 classes"):
        InnerSpec(3, label_kind="binary")


def test_labels_that_do_not_start_one_hot():
    own = np.array([0, 1, 2, 0])

    def start(name, shape=(4, 3)):
        return drawn_labels(name, own if shape[1] > 1 else own % 2, shape, jax.random.key(0))

    np.testing.assert_array_equal(start("inverted"), 1 - np.eye(3)[own])
    np.testing.assert_array_equal(start("inverted", (4, 1)), [[1], [0], [1], [1]])
    np.testing.assert_allclose(start("smoothed")[0], [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3], rtol=1e-6)
    assert not start("zeros").any() and (start("ones") == 1).all()
    orthogonal = start("orthogonal")
    np.testing.assert_allclose(orthogonal.T @ orthogonal, np.eye(3), atol=1e-6)
    assert set(np.unique(start("bernoulli"))) <= {0, 1}
    assert 0 <= start("uniform").min() < start("uniform").max() <= 1 and start("normal").min() < 0


@pytest.mark.parametrize("lr", [1e-4, 0.01, 0.1, 0.5, 1.0, 1.5, 17.5, 30.0])
def test_step_sizes_start_at_lr0(lr):
    np.testing.assert_allclose(step_sizes(jnp.asarray(raw_step_sizes(lr, (3,)))), lr, rtol=1e-5)


def test_linear_decay():
    np.testing.assert_allclose(linear_decay(4), [1, 0.75, 0.5, 0.25])


def test_samples_are_interleaved_and_revisited_with_another_step_size():
    spec = InnerSpec(2, per_class=4, batch_per_class=2, steps=3)
    np.testing.assert_array_equal(spec.sample_classes, [0, 1] * 4)
    np.testing.assert_array_equal(spec.sample_order(), [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]])
    synthetic = Synthetic(labels=jnp.arange(16.0).reshape(8, 2), raw_lr=jnp.array([0.0, 1.0, 2.0]))
    schedule = make_schedule(spec, synthetic, Batch(), None)
    first, _ = schedule.minibatch(schedule.index[0])
    third, _ = schedule.minibatch(schedule.index[2])
    np.testing.assert_array_equal(first["labels"], third["labels"])
    np.testing.assert_array_equal(first["labels"], np.arange(8.0).reshape(4, 2))
    assert len(set(np.asarray(schedule.lr).tolist())) == 3


def test_samples_of_some_classes_only():
    spec = InnerSpec(4, per_class=2, batch_per_class=1, steps=2, made_for=(3, 1))
    np.testing.assert_array_equal(spec.sample_classes, [3, 1, 3, 1])
    assert spec.samples == 4
    np.testing.assert_array_equal(spec.sample_order(), [[0, 1], [2, 3]])
    np.testing.assert_array_equal(initial_labels(spec.sample_classes, 4, "hard"), np.eye(4)[[3, 1, 3, 1]])
    with pytest.raises(UserError, match="made_for holds 4: accepted are classes from 0 to 3"):
        InnerSpec(4, made_for=(0, 4))


def test_a_block_that_two_passes_share_collects_both_gradients():
    """E = 2 passes over a block have the gradient of S = 2 equal blocks, added up."""

    def loss(schedule):
        data = [schedule.minibatch(index)[0]["labels"] for index in schedule.index]
        return sum((k + 1.0) * jnp.sum(x**2) for k, x in enumerate(data))

    labels, lr = jnp.arange(4.0).reshape(2, 2), jnp.zeros(2)

    def shared(x):
        spec = InnerSpec(2, per_class=1, batch_per_class=1, steps=2)
        return loss(make_schedule(spec, Synthetic(labels=x, raw_lr=lr), Batch(), None))

    def copied(x):
        spec = InnerSpec(2, per_class=2, batch_per_class=1, steps=2)
        return loss(make_schedule(spec, Synthetic(labels=x, raw_lr=lr), Batch(), None))

    twice = jax.grad(copied)(jnp.concatenate([labels, labels]))
    np.testing.assert_allclose(jax.grad(shared)(labels), twice[:2] + twice[2:], rtol=1e-6)


@pytest.mark.parametrize("decay", [False, True])
def test_one_step_size_for_the_whole_set_serves_every_step(decay):
    spec = InnerSpec(2, steps=4, lr_decay=decay)
    synthetic = Synthetic(labels=jnp.eye(2), raw_lr=jnp.asarray(raw_step_sizes(0.5, (1,))))
    schedule = make_schedule(spec, synthetic, Batch(), None)
    assert schedule.steps == 4
    np.testing.assert_allclose(schedule.lr, 0.5 * (linear_decay(4) if decay else np.ones(4)), rtol=1e-5)


@pytest.mark.parametrize("order", ["shuffled", "fresh"])
def test_other_orders_visit_each_sample_once_an_epoch_and_keep_classes_balanced(order):
    spec = InnerSpec(3, per_class=4, batch_per_class=2, steps=6, order=order)
    one = np.asarray(spec.sample_order(jax.random.key(1)))
    two = np.asarray(spec.sample_order(jax.random.key(2)))
    assert one.shape == (6, 6)
    for epoch in one.reshape(3, 12):
        assert sorted(epoch) == list(range(12))
    assert (np.sort(one % 3, axis=1) == [0, 0, 1, 1, 2, 2]).all()
    assert (one == two).all() == (order == "shuffled")


def test_a_fresh_order_needs_a_key():
    with pytest.raises(ValueError, match="a key is needed"):
        InnerSpec(2, order="fresh").sample_order()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"per_class": 3, "batch_per_class": 2}, "per_class 3 is not a multiple of batch_per_class 2"),
        ({"label_kind": "fuzzy"}, "unknown label_kind 'fuzzy': give one of hard, soft, unrestricted"),
        ({"attention": "row"}, "unknown attention 'row': give one of none, cls, all"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ({"per_class": 4, "steps": 2}, "steps 2 of batch_per_class 1 reach only 2 of per_class 4 samples"),
        ({"attention_weight": float("nan")}, "attention_weight is nan"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(UserError, match=message):
        InnerSpec(2, **fields)
