"""The meta-model objective on a tiny transformer in float64: finite differences, adjoints, closed forms, labels."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import derivative_along

from jaxdistill.core import adjoints, tree
from jaxdistill.core.inner import Constants
from jaxdistill.core.losses import attention_cross_entropy, cross_entropy
from jaxdistill.core.types import Batch, Synthetic, Variables
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.learner import encoder_learner
from jaxdistill.objectives.inner_problem import InnerSpec, make_inner, make_schedule
from jaxdistill.objectives.labels import LABEL_KINDS
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model

CLASSES, LENGTH = 3, 6
CONFIG = EncoderConfig(
    family="bert", vocabulary=20, width=8, layers=2, heads=2, intermediate=12, positions=LENGTH, token_types=2
)


@functools.cache
def tiny_learner():
    return encoder_learner(CONFIG, None, num_classes=CLASSES, dtype="float64")


@functools.cache
def constants():
    """Random variables, larger than a fresh draw's so that no gradient is tiny; call it outside traces."""
    variables = tiny_learner().init(jax.random.key(0))
    return MetaModelConstants(jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, variables), Batch())


def real_batch():
    ids = np.random.default_rng(1).integers(1, 20, (4, LENGTH))
    mask = np.arange(LENGTH)[None] < np.array([6, 3, 4, 5])[:, None]
    return Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask), labels=jnp.array([0, 1, 2, 1]))


def make_synthetic(spec, per_group=False):
    keys = jax.random.split(jax.random.key(2), 4)
    groups = len(tiny_learner().group_names)
    rows = {"none": 0, "cls": 1, "all": LENGTH}[spec.attention]
    return Synthetic(
        inputs=jax.random.normal(keys[0], (spec.samples, LENGTH, 8)),
        labels=jax.random.normal(keys[1], (spec.samples, CLASSES)),
        attention=jax.random.normal(keys[2], (spec.samples, 2, 2, rows, LENGTH)) if rows else None,
        raw_lr=jax.random.normal(keys[3], (spec.steps, groups) if per_group else (spec.steps,)) - 1.0,
    )


def loss_function(spec, adjoint=adjoints.MIXED, support=Batch()):  # noqa: B008
    objective = meta_model(tiny_learner(), spec, adjoint)
    arguments = dataclasses.replace(constants(), support=support), real_batch(), jax.random.key(3)

    @jax.jit
    def loss(synthetic):
        return objective(synthetic, (), *arguments)[0]

    return loss


def entropy(scores):
    log_targets = jax.nn.log_softmax(scores)
    return jnp.mean(-jnp.sum(jnp.exp(log_targets) * log_targets, axis=-1))


def flat(x):
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(x)])


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


# Longer loops without attention labels are compared in test_conformance.py, for every kind of label and learner.
@pytest.mark.parametrize(
    ("steps", "label_kind", "attention"),
    [(1, kind, "cls") for kind in LABEL_KINDS if kind != "binary"]
    + [(1, "unrestricted", "none"), (1, "unrestricted", "all"), (3, "unrestricted", "cls"), (3, "soft", "all")],
)
def test_meta_gradients_agree_with_finite_differences(steps, label_kind, attention):
    spec = InnerSpec(CLASSES, steps=steps, label_kind=label_kind, attention=attention)
    synthetic = make_synthetic(spec, per_group=True)
    support = Batch()
    if label_kind == "hard":
        synthetic = dataclasses.replace(synthetic, labels=None)
        support = Batch(labels=jnp.eye(CLASSES))
    # One program for both: compiling it takes most of the time.
    loss_and_gradient = jax.jit(jax.value_and_grad(loss_function(spec, support=support)))
    _, gradient = loss_and_gradient(synthetic)
    for field in ("inputs", "labels", "attention", "raw_lr"):
        value = getattr(synthetic, field)
        if value is None:
            continue
        direction = jax.random.normal(jax.random.key(4), value.shape)

        def loss_at(moved, field=field):
            return loss_and_gradient(dataclasses.replace(synthetic, **{field: moved}))[0]

        expected = derivative_along(loss_at, value, direction, 1e-3)
        found = float(jnp.vdot(getattr(gradient, field), direction))
        assert abs(expected) > 1e-7
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=field)


def test_exact_adjoints_agree():
    """With attention labels; the others are compared without them in test_conformance.py."""
    spec = InnerSpec(CLASSES, per_class=2, steps=3, attention="cls")
    synthetic = make_synthetic(spec)
    plain, mixed = (
        flat(jax.jit(jax.grad(loss_function(spec, adjoint)))(synthetic)) for adjoint in (adjoints.FULL, adjoints.MIXED)
    )
    np.testing.assert_allclose(mixed, plain, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def one_step():
    """T = 1 by hand: gradients, the direction v, D_v of the outputs (Maekawa et al. 2023; one forward-mode pass)."""
    with jax.enable_x64(True):
        spec = InnerSpec(CLASSES, attention="cls")
        synthetic = make_synthetic(spec)
        learner, base, real = tiny_learner(), constants().base, real_batch()
        inner = make_inner(learner, spec)

        @jax.jit  # op by op this would compile a thousand programs
        def by_hand(base, synthetic):
            start = learner.refresh(base, jax.random.split(jax.random.key(3), 3)[0])
            schedule = make_schedule(spec, synthetic, Batch(), start.frozen)
            data, fixed = schedule.minibatch(schedule.index[0])
            lr = schedule.lr[0]
            gradients = jax.grad(inner.loss)(start.trainable, data, fixed)
            moved = jax.tree.map(lambda p, g: p - lr * g, start.trainable, gradients)

            def real_loss(p):
                return cross_entropy(learner.apply(Variables(p, start.frozen), real).logits, real.labels)

            v = jax.grad(real_loss)(moved)

            def outputs(p):
                batch = Batch(embeddings=synthetic.inputs)
                out = learner.apply(Variables(p, start.frozen), batch, attention="cls")
                return jax.nn.log_softmax(out.logits), out.attentions

            def directional(inputs):
                rest = {"labels": synthetic.labels, "attention": synthetic.attention, "inputs": inputs}

                def loss(p):
                    return inner.loss(p, rest, Constants(Batch(), start.frozen, None))

                return jax.jvp(loss, (start.trainable,), (v,))[1]

            _, (d_logits, d_attention) = jax.jvp(outputs, (start.trainable,), (v,))
            d_inputs = -lr * jax.grad(directional)(synthetic.inputs)
            return lr, tree.dot(gradients, v), d_logits, d_attention, d_inputs

        gradient = jax.jit(jax.grad(loss_function(spec)))(synthetic)
        return spec, synthetic, gradient, *by_hand(base, synthetic)


def test_closed_form_of_one_step_labels(one_step):
    spec, _, gradient, lr, _, d_logits, _, _ = one_step
    np.testing.assert_allclose(gradient.labels, lr / spec.samples * d_logits, rtol=0, atol=1e-12)


def test_closed_form_of_one_step_soft_labels(one_step):
    """q (dq - <q, dq>) with dq the unrestricted gradient, through the softmax."""
    spec, synthetic = one_step[:2]
    soft = dataclasses.replace(spec, label_kind="soft")
    found = jax.jit(jax.grad(loss_function(soft)))(synthetic).labels
    q = jax.nn.softmax(synthetic.labels)
    as_targets = dataclasses.replace(synthetic, labels=q)
    dq = jax.jit(jax.grad(loss_function(spec)))(as_targets).labels
    np.testing.assert_allclose(found, q * (dq - jnp.sum(q * dq, axis=-1, keepdims=True)), rtol=0, atol=1e-12)


def test_closed_form_of_one_step_inputs(one_step):
    """The mixed product, here as reverse over forward of the whole inner loss: -η ∇_X D_v L."""
    _, _, gradient, _, _, _, _, d_inputs = one_step
    np.testing.assert_allclose(gradient.inputs, d_inputs, rtol=0, atol=1e-12)


def test_closed_form_of_one_step_attention(one_step):
    _, synthetic, gradient, lr, _, _, d_attention, _ = one_step
    p = jax.nn.softmax(synthetic.attention)
    dp = lr / float(np.prod(p.shape[:-1])) * d_attention
    expected = p * (dp - jnp.sum(p * dp, axis=-1, keepdims=True))
    np.testing.assert_allclose(gradient.attention, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(gradient.attention, axis=-1), 0, atol=1e-14)


def test_closed_form_of_one_step_size(one_step):
    _, synthetic, gradient, _, g_dot_v, _, _, _ = one_step
    expected = -jax.nn.sigmoid(synthetic.raw_lr[0]) * g_dot_v
    np.testing.assert_allclose(gradient.raw_lr[0], expected, rtol=1e-10)


def test_kl_and_cross_entropy_give_the_same_meta_gradient():
    """The entropy of the attention labels shifts the inner loss and nothing else."""
    spec = InnerSpec(CLASSES, attention="cls")
    synthetic = make_synthetic(spec)
    inner = make_inner(tiny_learner(), spec)
    start = constants().base

    def gradients(data, with_entropy):
        def loss(p):
            value = inner.loss(p, data, Constants(Batch(), start.frozen, None))
            return value - entropy(data["attention"]) if with_entropy else value

        return tree.dot(*(jax.grad(loss)(start.trainable),) * 2)

    data = {"inputs": synthetic.inputs, "labels": synthetic.labels, "attention": synthetic.attention}
    plain, kl = (jax.jit(jax.grad(gradients), static_argnums=1)(data, flag) for flag in (False, True))
    np.testing.assert_allclose(flat(plain), flat(kl), rtol=1e-13, atol=1e-16)


def test_tiny_log_eps_changes_next_to_nothing():
    spec = InnerSpec(CLASSES, attention="cls")
    synthetic = make_synthetic(spec)
    exact = flat(jax.jit(jax.grad(loss_function(spec)))(synthetic))
    with_eps = dataclasses.replace(spec, attention_log_eps=1e-12)
    other = flat(jax.jit(jax.grad(loss_function(with_eps)))(synthetic))
    assert 0 < np.abs(exact - other).max() < 1e-8


def test_weight_zero_equals_no_attention_labels():
    spec = InnerSpec(CLASSES, attention="cls", attention_weight=0.0)
    synthetic = make_synthetic(spec)
    without = dataclasses.replace(synthetic, attention=None)
    gradient = jax.jit(jax.grad(loss_function(spec)))(synthetic)
    expected = jax.jit(jax.grad(loss_function(dataclasses.replace(spec, attention="none"))))(without)
    assert not np.any(gradient.attention)
    np.testing.assert_allclose(flat(dataclasses.replace(gradient, attention=None)), flat(expected), atol=1e-14)


def test_own_attention_as_target_has_no_first_order_effect():
    learner, base = tiny_learner(), constants().base
    batch = Batch(embeddings=make_synthetic(InnerSpec(CLASSES)).inputs)

    def loss(p):
        out = learner.apply(Variables(p, base.frozen), batch, attention="all")
        return attention_cross_entropy(out.attentions, jax.lax.stop_gradient(out.attentions))

    assert np.abs(flat(jax.jit(jax.grad(loss))(base.trainable))).max() < 1e-14


def test_word_table_gets_no_gradient_from_synthetic_embeddings():
    """Excluding it from what is trained changes nothing: not the loss on real texts after a step, not its gradient."""
    spec, real, key = InnerSpec(CLASSES, attention="cls"), real_batch(), jax.random.key(3)
    synthetic = make_synthetic(spec)
    everything = encoder_learner(CONFIG, None, num_classes=CLASSES, dtype="float64", train_words=True)
    base = constants().base
    whole = MetaModelConstants(Variables(tree.merge(base.trainable, base.frozen), {}), Batch())
    assert len(jax.tree.leaves(whole.base.trainable)) == len(jax.tree.leaves(base.trainable)) + 1
    objective = meta_model(everything, spec)
    found = jax.jit(jax.value_and_grad(lambda s: objective(s, (), whole, real, key)[0]))(synthetic)
    expected = jax.jit(jax.value_and_grad(loss_function(spec)))(synthetic)
    np.testing.assert_allclose(flat(found), flat(expected), rtol=0, atol=1e-13)


def test_no_recompilation_after_the_first_call():
    loss = loss_function(InnerSpec(CLASSES))
    for scale in (1.0, 2.0):
        loss(jax.tree.map(lambda x, s=scale: x * s, make_synthetic(InnerSpec(CLASSES))))
    assert loss._cache_size() == 1
