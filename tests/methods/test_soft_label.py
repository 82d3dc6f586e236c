"""Soft-label distillation: the paper's words as settings, its initial state, labels that are step sizes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Log

from experiments.soft_label import reference
from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.data.packing import pad
from jaxdistill.methods.base import Run
from jaxdistill.methods.embedding_set import initial_set, inner_spec
from jaxdistill.methods.soft_label import METHOD, clean
from jaxdistill.objectives.labels import label_targets, step_sizes
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.prepare import prepare


@pytest.fixture(scope="module")
def problem():
    learner = LearnerConfig(name="bi_lstm", words=WordsConfig(vectors="tiny"))
    return prepare(TaskConfig(name="toy/reviews", max_length=16), learner)


@pytest.fixture(scope="module")
def quick():
    """The same with a perceptron, which is compiled in seconds."""
    learner = LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    return prepare(TaskConfig(name="toy/reviews", max_length=16), learner)


def test_blocks_are_visited_in_turn_with_a_step_size_for_each_pass():
    config = clean(samples=2, blocks=3, passes=2, updates=10, decay_every=5)
    spec = inner_spec(config, 2)
    assert (spec.samples, spec.steps) == (12, 6)
    blocks = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(spec.sample_order(), blocks[[0, 1, 2, 0, 1, 2]])


def test_initial_state(problem):
    config = clean(blocks=2, passes=2, updates=10, decay_every=5, length=9, initial_lr=1.5)
    synthetic, _ = initial_set(config, problem, jax.random.key(0))
    assert synthetic.inputs.shape == (4, 9, 32) and synthetic.raw_lr.shape == (4,)
    np.testing.assert_array_equal(synthetic.labels, np.eye(2)[[0, 1, 0, 1]])
    np.testing.assert_allclose(step_sizes(synthetic.raw_lr), 1.5, rtol=1e-6)
    assert abs(float(synthetic.inputs.std()) - 1) < 0.1


def test_soft_labels_start_as_one_hot_logits(problem):
    config = clean(updates=10, decay_every=5, length=9, label_kind="soft")
    synthetic, _ = initial_set(config, problem, jax.random.key(0))
    targets = label_targets(synthetic.labels, "soft")
    np.testing.assert_allclose(targets, [[0.731, 0.269], [0.269, 0.731]], atol=5e-4)


def test_the_optimiser_is_the_published_one():
    outer = clean(updates=1200, decay_every=180, lr=0.1).outer
    assert (outer.lr, outer.beta1, outer.clip, outer.schedule) == (0.1, 0.5, 0.0, "steps")
    assert (outer.input_lr, outer.label_lr, outer.step_size_lr) == (1.0, 1.0, 1.0)
    assert (outer.decay_labels, outer.decay_step_sizes, outer.batch_size) == (0.0, 0.0, 1024)


def test_learning_rates_may_fall_an_epoch_early():
    lates, earlies = (
        clean(updates=40, decay_every=10, lr=0.4, outer={"decay_ahead": ahead}).outer.learning_rate()
        for ahead in (0, 3)
    )
    assert [float(lates(k)) for k in (6, 7, 9, 10)] == pytest.approx([0.4, 0.4, 0.4, 0.2])
    assert [float(earlies(k)) for k in (6, 7, 16, 17)] == pytest.approx([0.4, 0.2, 0.2, 0.1])


def test_what_is_frozen_never_moves(quick):
    """Labels that are not learned and inputs of learning rate 0: exactly zero updates."""
    config = clean(updates=3, decay_every=5, length=9, label_kind="hard", batch_size=8, outer={"input_lr": 0.0})
    start, _ = initial_set(config, quick, jax.random.split(jax.random.key(3))[0])
    run = Run(say=lambda line: None)
    result = METHOD.distill(config, quick, key=jax.random.key(3), run=run)
    np.testing.assert_array_equal(result.synthetic.inputs, start.inputs)
    assert result.synthetic.labels is None
    assert not np.array_equal(result.synthetic.raw_lr, start.raw_lr)


def test_a_block_seen_twice_gathers_the_gradients_of_two_copies(quick):
    """One block in two passes against two blocks of equal value: the same loss, summed gradients."""
    learner, base = quick.pretrained.learner, quick.base()
    batch = jax.tree.map(jnp.asarray, pad(quick.train, np.arange(6), length=16))
    gradients = {}
    for blocks, passes in ((1, 2), (2, 1)):
        config = clean(blocks=blocks, passes=passes, updates=1, decay_every=1, length=9)
        synthetic, support = initial_set(config, quick, jax.random.key(0))
        first = synthetic.inputs[:2]
        synthetic = dataclasses.replace(synthetic, inputs=jnp.concatenate([first] * blocks))
        objective = meta_model(learner, inner_spec(config, 2))
        constants = MetaModelConstants(base, support)
        loss = jax.jit(jax.grad(lambda s, c=constants, o=objective: o(s, (), c, batch, jax.random.key(1))[0]))
        gradients[blocks] = loss(synthetic)
    for part in ("inputs", "labels"):
        one, two = (getattr(gradients[blocks], part) for blocks in (1, 2))
        np.testing.assert_allclose(one, two[:2] + two[2:], atol=1e-6)
    np.testing.assert_allclose(gradients[1].raw_lr, gradients[2].raw_lr, atol=1e-6)


@pytest.mark.parametrize(("adjoint", "passes"), [("tesla", 1), ("tesla", 3), ("mixed", 3)])
def test_an_approximate_adjoint_is_logged_with_its_cosine_to_the_exact_gradient(quick, adjoint, passes):
    log = Log()
    settings = {"updates": 1, "decay_every": 1, "length": 9, "batch_size": 8, "initial_lr": 1.0}
    config = clean(passes=passes, **settings, outer={"adjoint": adjoint, "selections": 1})
    METHOD.distill(config, quick, key=jax.random.key(0), run=Run(make_writer=lambda step: log, say=lambda line: None))
    found = log.rows[-1].get("adjoint_cosine")
    if adjoint == "mixed":
        assert found is None
    elif passes == 1:
        assert found == pytest.approx(1.0, abs=1e-5)  # one step has no Hessian to leave out
    else:
        assert 0.0 < found < 1.0 - 1e-6


def test_the_published_code_as_a_preset():
    config = reference("imdb", "text_cnn", length=8, words=9, epoch=2, updates=4, decay_every=2, initial_lr=0.01)
    assert config.learner.dropout and config.learner.network.one_logit and config.learner.network.threshold == 0.5
    assert config.learner.network.double_bias and not config.learner.network.mask_padding
    assert (config.settings.label_kind, config.settings.label_start) == ("binary", "inverted")
    assert config.settings.outer.decay_ahead == 2 and config.settings.outer.select_at == (4,)


def test_the_mass_of_a_label_is_a_step_size_of_its_sample():
    logits = jnp.array([[0.3, -0.2], [0.1, 0.4]])
    labels = jnp.array([[1.0, -0.5], [0.2, 0.3]])
    one, scaled = (jax.grad(cross_entropy)(logits, labels * a) for a in (jnp.ones((2, 1)), jnp.array([[3.0], [1.0]])))
    np.testing.assert_allclose(scaled, one * np.array([[3.0], [1.0]]), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "per_class is 0"),
        ({"blocks": 0}, "per_class is 0"),
        ({"passes": 0}, "steps is 0"),
        ({"updates": 0}, "outer.updates is 0"),
        ({"decay_every": 0}, "outer.decay_every is 0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UserError, match=message):
        clean(**({"updates": 10, "decay_every": 5} | changes))


def test_samples_too_short_for_the_network():
    learner = LearnerConfig(name="text_cnn", words=WordsConfig(vectors="tiny"))
    problem = prepare(TaskConfig(name="toy/reviews", max_length=16), learner)
    config = clean(updates=10, decay_every=5, length=4)
    with pytest.raises(UserError, match="length 4 is less than the 5 positions the learner needs"):
        initial_set(config, problem, jax.random.key(0))
    with pytest.raises(UserError, match="a step size must be above 0"):
        initial_set(clean(updates=10, decay_every=5, length=8, initial_lr=0.0), problem, jax.random.key(0))
