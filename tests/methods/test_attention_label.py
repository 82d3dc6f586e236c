"""The method's own rules: initial values, presets, optimiser, refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import apply_optimizer
from jaxdistill.core.types import Synthetic
from jaxdistill.data.batching import TrainBatches
from jaxdistill.data.encoding import Encoded
from jaxdistill.methods.attention_label import AttentionLabel, clean, initial_set, reference
from jaxdistill.methods.meta_learning import Outer, clip_by_average_norm, usual_shapes
from jaxdistill.objectives.labels import step_sizes


def test_initial_set(toy_problem):
    config = clean(per_class=2, batch_per_class=1, steps=3, length=7, label_kind="soft", initial_lr=0.2)
    synthetic, support = initial_set(config, toy_problem, jax.random.key(0))
    groups = len(toy_problem.pretrained.learner.group_names)
    assert synthetic.inputs.shape == (4, 7, 32)
    assert synthetic.attention.shape == (4, 2, 2, 1, 7)
    assert synthetic.raw_lr.shape == (3, groups)
    np.testing.assert_allclose(step_sizes(synthetic.raw_lr), 0.2, rtol=1e-5)
    np.testing.assert_array_equal(synthetic.labels.argmax(-1), [0, 1, 0, 1])
    assert support.labels is None
    assert abs(float(synthetic.inputs.std()) / config.input_std - 1) < 0.2
    again, _ = initial_set(config, toy_problem, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, synthetic, again)


def test_hard_labels_are_constant(toy_problem):
    synthetic, support = initial_set(clean(label_kind="hard", length=5), toy_problem, jax.random.key(0))
    assert synthetic.labels is None
    np.testing.assert_array_equal(support.labels, np.eye(2))


def test_text_inputs_are_word_embeddings_of_the_class(toy_problem):
    config = clean(initial_inputs="texts", length=20)
    synthetic, _ = initial_set(config, toy_problem, jax.random.key(1))
    learner = toy_problem.pretrained.learner
    table = np.asarray(learner.word_table(toy_problem.base()))
    ids = [int(np.abs(table - row).sum(-1).argmin()) for row in np.asarray(synthetic.inputs[1])]
    np.testing.assert_allclose(table[ids], synthetic.inputs[1], rtol=1e-6)
    end = toy_problem.pretrained.tokenizer.token_to_id("[SEP]")
    first = ids[: ids.index(end) + 1] if end in ids else ids
    of_class = np.flatnonzero(toy_problem.train.labels == 1)
    assert any(toy_problem.train.tokens(i).tolist()[: len(first)] == first for i in of_class)


def test_reference_preset_is_the_published_code():
    config = reference()
    assert (config.label_kind, config.attention, config.length, config.lr_per) == ("hard", "none", 512, "step")
    assert config.initial_lr == 0.01 and config.attention_log_eps == 1e-12 and config.soft_probability == 0.0
    outer = config.outer
    assert outer.decay_labels == outer.decay_step_sizes == 0.01 and outer.first_update_is_zero and outer.inits == 1
    assert (outer.lr, outer.warmup, outer.clip, outer.batch_size) == (0.01, 0.1, 1.0, 32)


@pytest.mark.parametrize(
    "rows, updates",
    [(120_000, 112_500), (67_349, 63_120), (104_743, 98_190), (3_668, 3_420), (363_846, 341_100), (392_702, 368_130)],
)
def test_outer_updates_of_thirty_epochs(rows, updates):
    """The last partial batch of an epoch is dropped."""
    zeros = np.zeros(2 * rows, np.int32)
    encoded = Encoded(zeros, zeros.astype(np.int8), np.arange(0, 2 * rows + 1, 2), zeros[:rows], 0)
    assert 30 * TrainBatches(encoded, batch_size=32, seed=0, row_length=8).steps_per_epoch == updates


def zero_gradient_steps(outer: Outer, steps: int) -> Synthetic:
    optimizer = outer.optimizer()
    params = Synthetic(inputs=jnp.ones((1, 2, 3)), labels=jnp.ones((1, 2)), attention=None, raw_lr=jnp.ones(1))
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = apply_optimizer(optimizer, jax.tree.map(jnp.zeros_like, params), state, params)
    return params


def test_reference_decay_shrinks_labels_and_step_sizes_only():
    outer = reference(outer={"updates": 10, "lr": 0.5}).outer
    params = zero_gradient_steps(outer, 10)
    factors = [0.5 * (k if k < 1 else (10 - k) / 9) for k in range(10)]
    expected = np.prod([1 - 0.01 * f for f in factors])
    np.testing.assert_allclose(params.raw_lr, expected, rtol=1e-5)
    np.testing.assert_allclose(params.labels, expected, rtol=1e-5)
    np.testing.assert_array_equal(params.inputs, 1.0)


def test_clean_does_not_decay():
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 1.0), zero_gradient_steps(Outer(updates=10), 10))


def test_clipping_acts_on_the_joint_norm_and_factors_on_the_step():
    """Adam's first step is the sign of the gradient: the factors set its size."""
    optimizer = Outer(updates=100, warmup=0.0, lr=0.1, input_lr=2.0, label_lr=1.0, clip=1.0).optimizer()
    params = Synthetic(inputs=jnp.zeros((1, 1, 2)), labels=jnp.zeros((1, 2)), raw_lr=jnp.zeros(1))
    gradient = Synthetic(inputs=jnp.full((1, 1, 2), 30.0), labels=jnp.full((1, 2), 40.0), raw_lr=jnp.zeros(1))
    moved, state = apply_optimizer(optimizer, gradient, optimizer.init(params), params)
    np.testing.assert_allclose(moved.inputs, -0.2, rtol=1e-4)
    np.testing.assert_allclose(moved.labels, -0.1, rtol=1e-4)
    joint = np.sqrt(2 * 30.0**2 + 2 * 40.0**2)
    np.testing.assert_allclose(state[1].mu.inputs, 0.1 * 30 / joint, rtol=1e-5)
    np.testing.assert_allclose(state[1].mu.labels, 0.1 * 40 / joint, rtol=1e-5)


def test_the_bound_follows_the_average_of_the_norms_before():
    clip = clip_by_average_norm(2.0, 0.5)
    state, norms = clip.init(None), []
    for norm in (3.0, 100.0, 4.0, 0.0):
        clipped, state = clip.update(jnp.array([0.0, norm]), state)
        norms.append(float(clipped[1]))
    # Bounds: none, 2 * 3, 2 * (0.25 * 3 + 0.5 * 6) / 0.75, ...
    np.testing.assert_allclose(norms, [3.0, 6.0, 4.0, 0.0], rtol=1e-5)


def test_learning_rates_may_fall_in_steps_and_nothing_be_clipped():
    outer = Outer(updates=6, lr=0.1, schedule="steps", decay_every=2, decay_factor=0.5, clip=0.0, beta1=0.5)
    optimizer = outer.optimizer()
    params = Synthetic(labels=jnp.zeros((1, 2)), raw_lr=jnp.zeros(1))
    gradient = Synthetic(labels=jnp.full((1, 2), 1e3), raw_lr=jnp.ones(1))
    state, moved = optimizer.init(params), []
    for _ in range(6):
        new, state = apply_optimizer(optimizer, gradient, state, params)
        moved.append(float(params.raw_lr[0] - new.raw_lr[0]) / outer.step_size_lr)
        params = new
    np.testing.assert_allclose(moved, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025], rtol=1e-4)
    np.testing.assert_allclose(state[1].mu.labels, 1e3 * (1 - 0.5**6), rtol=1e-5)


def test_a_learning_rate_of_0_freezes_a_part():
    outer = Outer(updates=5, input_lr=0.0, label_lr=0.0)
    optimizer = outer.optimizer()
    params = Synthetic(inputs=jnp.ones((1, 1, 2)), labels=jnp.ones((1, 2)), raw_lr=jnp.ones(1))
    moved, _ = apply_optimizer(optimizer, params, optimizer.init(params), params)
    np.testing.assert_array_equal(moved.inputs, 1.0)
    np.testing.assert_array_equal(moved.labels, 1.0)
    assert moved.raw_lr[0] < 1.0


def test_selections_are_spread_evenly_and_end_with_the_last_update():
    assert Outer(updates=1000, selections=4).select_at == (250, 500, 750, 1000)
    assert Outer(updates=2, selections=5).select_at == (1, 2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"label_kind": "fuzzy"}, "unknown label_kind 'fuzzy'"),
        ({"attention": "row"}, "unknown attention 'row'"),
        ({"per_class": 3, "batch_per_class": 2}, "not a multiple of batch_per_class"),
        ({"initial_inputs": "zeros"}, "unknown initial_inputs 'zeros'"),
        ({"length": 0}, "length is 0"),
        ({"lr_per": "head"}, "unknown lr_per 'head': give one of set, step, layer"),
        ({"label_kind": "soft", "soft_probability": 1.0}, "soft_probability is 1.0"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(UserError, match=message):
        AttentionLabel(**fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"length": 600}, "length 600 is more than the learner's 128 positions"),
        ({"initial_lr": 0.0}, "initial_lr is 0.0: a step size must be above 0"),
        ({"initial_lr": -1.0}, "initial_lr is -1.0"),
        ({"attention": "all", "length": 128, "per_class": 2000, "batch_per_class": 2000}, "take .* GiB"),
    ],
)
def test_settings_that_do_not_fit_the_problem(toy_problem, fields, message):
    with pytest.raises(UserError, match=message) as error:
        initial_set(AttentionLabel(**fields), toy_problem, jax.random.key(0))
    assert "\n" not in str(error.value)


def test_a_learner_without_attention_is_refused(toy_problem):
    learner = toy_problem.pretrained.learner
    blind = learner._replace(shape=learner.shape | {"heads": 0})
    problem = dataclasses.replace(toy_problem, pretrained=toy_problem.pretrained._replace(learner=blind))
    with pytest.raises(UserError, match="need a learner with attention"):
        initial_set(AttentionLabel(length=8), problem, jax.random.key(0))


def test_shapes_of_real_batches_follow_the_length_of_the_run_and_of_the_inner_loop():
    assert [usual_shapes(updates, 1) for updates in (499, 500)] == [1, 2]
    assert [usual_shapes(1000, steps) for steps in (7, 8)] == [2, 0]
