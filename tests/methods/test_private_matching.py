"""Matching by noisy sums alone: equal to matching real texts where there is no noise, blind to them where there is."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.types import Batch
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.methods.base import WITHHELD, Run, Stopped
from jaxdistill.methods.experts import Experts, PrivateSteps, train_experts
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import method_named
from jaxdistill.objectives.distribution import DistributionMatching, distribution_matching
from jaxdistill.objectives.gradient import GradientMatching, gradient_matching
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model, private_meta_model
from jaxdistill.objectives.private import counted_features, mean_features
from jaxdistill.privacy.mechanism import Mechanism, Sealed, clipped_sums
from jaxdistill.privacy.training import PrivateBatches, TrainingPrivacy

KEY = jax.random.key(5)
PRIVACY = TrainingPrivacy(mode="poisson", epsilon=2.0, rate=0.2, records=100, noise_seed=3, force=True)
SETTINGS = {"length": 8, "outer": Outer(updates=2, batch_size=8, selections=1), "privacy": PRIVACY}
SPEC = InnerSpec(2, per_class=1, steps=1, label_kind="unrestricted")


def config_of(name, **changes):
    return method_named(name).config(**(SETTINGS | changes))


def distill(problem, folder, name="distribution_matching", say=lambda line: None, stop=None, **changes):
    """By default of what compiles fastest."""
    folder.mkdir(exist_ok=True)
    config = config_of(name, **({"learn_step_sizes": False} | changes))
    run = Run(folder=folder, checkpoints=Checkpoints(folder / "checkpoints", config_hash="x"), say=say)
    if stop is not None:
        run = dataclasses.replace(run, stop=stop)
    return method_named(name).distill(config, problem, key=KEY, run=run)


def inputs(distilled):
    return np.asarray(distilled.synthetic.inputs)


def clean(bound=1e4):
    """Sums without noise, of a plain `Batch`."""

    def sums(contribution, batch, /, *, by_class):
        blocks = jnp.asarray(batch.labels) if by_class else jnp.zeros(len(batch.labels), jnp.int32)
        included = jnp.ones(len(batch.labels), bool)
        return clipped_sums(contribution, batch, blocks, included, 2 if by_class else 1, bound=bound, micro_batch=3)

    return sums


@pytest.fixture(scope="module")
def given(toy_problem):
    """(learner, distilled set, constants, real batch)."""
    learner = toy_problem.pretrained.learner
    synthetic, support = method_named("gradient_matching").initial(config_of("gradient_matching"), toy_problem, KEY)
    padded = pad(toy_problem.train, np.arange(7), length=toy_problem.row_length)
    batch = Batch(token_ids=padded.token_ids, mask=padded.mask, token_types=padded.token_types, labels=padded.labels)
    return learner, synthetic, MetaModelConstants(toy_problem.base(), support), jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("parameters", ["all", "head"])
@pytest.mark.parametrize("per_class", [True, False])
def test_without_noise_gradients_are_those_of_real_texts(given, parameters, per_class):
    learner, synthetic, constants, batch = given
    matching = GradientMatching(parameters=parameters, per_class=per_class, advance="none")
    if not per_class:  # classes weigh as they are in sums, alike otherwise: as many of each make them the same
        rows = np.concatenate([np.flatnonzero(batch.labels == label)[:2] for label in (0, 1)])
        batch = jax.tree.map(lambda x: x[rows], batch)

    def value(noisy):
        objective = gradient_matching(learner, SPEC, matching, noisy)
        return jax.value_and_grad(lambda s: objective(s, None, constants, batch, KEY)[0])(synthetic)

    (plain, plain_gradient), (summed, summed_gradient) = value(None), value(clean())
    np.testing.assert_allclose(summed, plain, rtol=1e-4)
    np.testing.assert_allclose(summed_gradient.inputs, plain_gradient.inputs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("per_class", [True, False])
def test_without_noise_features_are_those_of_real_texts(given, per_class):
    learner, synthetic, constants, batch = given
    matching = DistributionMatching(per_class=per_class)
    plain = distribution_matching(learner, SPEC, matching)(synthetic, (), constants, batch, KEY)[0]
    summed = distribution_matching(learner, SPEC, matching, clean(), 50.0)(synthetic, (), constants, batch, KEY)[0]
    np.testing.assert_allclose(summed, plain, rtol=1e-3)


def test_without_noise_the_meta_gradient_is_that_of_real_texts(given):
    learner, synthetic, constants, batch = given

    def gradient(objective):
        return jax.grad(lambda s: objective(s, (), constants, batch, KEY)[0])(synthetic)

    plain = gradient(meta_model(learner, SPEC))
    summed = gradient(private_meta_model(learner, SPEC, clean(), 7.0))
    for name in ("inputs", "labels", "raw_lr"):
        np.testing.assert_allclose(getattr(summed, name), getattr(plain, name), rtol=1e-3, atol=1e-7)


def test_what_a_text_adds_to_a_mean_has_norm_1_at_most():
    features = jnp.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [300.0, 400.0]])
    rows = counted_features(features, 5.0)
    assert np.all(np.linalg.norm(rows, axis=1) <= 1.0 + 1e-6)
    np.testing.assert_allclose(mean_features(jnp.sum(rows[:3], axis=0)[None], 5.0), [[1.1, 4.4 / 3]], rtol=1e-5)
    np.testing.assert_allclose(mean_features(rows[3:], 5.0), [[3.0, 4.0]], rtol=1e-5)


def test_samples_are_of_the_rate_and_a_function_of_the_step(toy_problem):
    batches = PrivateBatches(toy_problem.train, PRIVACY, KEY, toy_problem.row_length)
    total, texts, expected = 0, len(toy_problem.train), 0.2 * len(toy_problem.train)
    opened = [jax.tree.leaves(batches(step).included)[0] for step in range(100)]
    total = sum(int(included.sum()) for included in opened)
    assert abs(total - 100 * expected) < 4 * np.sqrt(100 * texts * 0.2 * 0.8)
    assert len({len(included) for included in opened}) == 1
    again = batches(7)
    for one, other in zip(jax.tree.leaves(batches(7).texts), jax.tree.leaves(again.texts), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(*(jax.random.key_data(batches(step).key) for step in (7, 8)))
    none = PrivateBatches(toy_problem.train, dataclasses.replace(PRIVACY, signal=False), KEY, toy_problem.row_length)
    assert not jax.tree.leaves(none(7).included)[0].any()


@pytest.mark.parametrize("name", ["meta_model_matching", "gradient_matching"])
def test_a_run_says_what_it_guarantees_and_what_it_withholds(toy_problem, tmp_path, name):
    lines = []
    secret = dataclasses.replace(PRIVACY, noise_seed=-1)
    found = distill(toy_problem, tmp_path / "run", name, lines.append, privacy=secret, learn_step_sizes=True)
    facts = found.manifest["privacy"]
    parts = 1 if name == "meta_model_matching" else 2  # and the step sizes
    assert facts["guarantee"].startswith("(2, 1e-05)-differential privacy of one labelled training text, add_remove")
    (release,) = facts["ledger"]["releases"]
    assert (release["count"], release["rate"]) == (2 * parts, 0.2)
    assert facts["ledger"]["epsilon"] <= 2.0 * (1 + 1e-6)
    assert found.manifest["source_hash"] == WITHHELD and "real_examples" not in found.manifest["cost"]
    assert not [note for note in found.manifest["notes"] if note.startswith(("train", "dev"))]
    assert sum("texts a class their signal together is at most" in line for line in lines) == parts
    assert np.all(np.isfinite(inputs(found)))
    metrics = json.dumps(found.manifest["selection"])
    assert "real_accuracy" not in metrics


def test_nothing_but_the_sums_reaches_the_result(toy_problem, tmp_path, monkeypatch):
    """Other texts, the same sums: the same set, bit for bit. Other noise: another set."""
    first = distill(toy_problem, tmp_path / "first")
    other = distill(toy_problem, tmp_path / "noise", privacy=dataclasses.replace(PRIVACY, noise_seed=4))
    assert not np.array_equal(inputs(first), inputs(other))

    def constant(self, contribution, records, blocks, included, count, *, key):
        assert all(isinstance(sealed, Sealed) for sealed in (records, blocks, included))
        size = jax.eval_shape(contribution, jax.tree.leaves(records, is_leaf=lambda x: isinstance(x, Batch))[0])
        return jnp.ones((count, size.shape[1]))

    monkeypatch.setattr(Mechanism, "noisy_sums", constant)
    before = distill(toy_problem, tmp_path / "before")
    train = toy_problem.data.train
    changed = dataclasses.replace(
        toy_problem,
        data=dataclasses.replace(toy_problem.data, train=Split(train.texts, 1 - train.labels)),
        train=dataclasses.replace(
            toy_problem.train, ids=toy_problem.train.ids[::-1].copy(), labels=1 - toy_problem.train.labels
        ),
    )
    np.testing.assert_array_equal(inputs(before), inputs(distill(changed, tmp_path / "changed")))


def test_an_interrupted_run_draws_the_same_noise(toy_problem, tmp_path):
    secret = dataclasses.replace(PRIVACY, noise_seed=-1)
    with pytest.raises(Stopped):
        distill(toy_problem, tmp_path / "run", privacy=secret, stop=lambda: True)
    assert (tmp_path / "run" / "noise.json").stat().st_mode & 0o077 == 0
    (tmp_path / "copy").mkdir()
    for name in ("noise.json", "privacy.json"):  # the secret without the checkpoint: from the beginning
        (tmp_path / "copy" / name).write_bytes((tmp_path / "run" / name).read_bytes())
    went_on = distill(toy_problem, tmp_path / "run", privacy=secret)
    np.testing.assert_array_equal(inputs(went_on), inputs(distill(toy_problem, tmp_path / "copy", privacy=secret)))
    (tmp_path / "run" / "noise.json").unlink()
    with refused("ledger: 'sums of distribution' with sigma"):
        distill(toy_problem, tmp_path / "run", privacy=secret)


def test_experts_follow_the_noisy_sums(toy_problem, tmp_path):
    config = Experts(count=2, epoch_steps=3, span=1, latest_start=0, optimizer="sgd", lr=0.5)
    size = sum(x.size for x in jax.tree.leaves(toy_problem.base().trainable))
    batches = PrivateBatches(toy_problem.train, PRIVACY, KEY, toy_problem.row_length)

    def sums(contribution, batch, /, *, by_class):
        assert not by_class
        # What tells the batches of all steps and experts apart.
        first = jax.random.key_data(batch.key).astype(jnp.float32)[0] / 2.0**32
        return jnp.full((1, size), first)

    private = PrivateSteps(sums, batches, 4.0, 3)
    library = train_experts(config, toy_problem, key=KEY, run=Run(folder=tmp_path), private=private)
    for expert in (0, 1):
        moved = jax.tree.map(lambda a, b: np.asarray(b) - a, library.params(expert, 0), library.params(expert, 1))
        drawn = [float(jax.random.key_data(batches(expert * 3 + step).key)[0]) / 2.0**32 for step in range(3)]
        for leaf in jax.tree.leaves(moved):
            np.testing.assert_allclose(leaf, -0.5 * sum(drawn) / 4.0, rtol=1e-2)


def test_experts_of_a_private_run_are_charged_for(toy_problem, tmp_path):
    experts = Experts(count=2, epoch_steps=0, span=1, latest_start=0)
    found = distill(toy_problem, tmp_path / "run", "trajectory_matching", experts=experts, steps=1)
    assert found.manifest["privacy"]["uses"]["experts"]["sums"] == 2 * 5  # an epoch is 1 / rate updates
    assert found.manifest["privacy"]["guarantee"] == "none: the seed of the noise is known"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"initial_inputs": "texts"}, "privacy: initial_inputs texts reads training texts as they are"),
        ({"groupwise": True}, "privacy: groupwise"),
        ({"outer": Outer(inits=2)}, "privacy: outer.inits 2"),
        ({"gradients": GradientMatching(advance="real")}, "privacy: gradients.advance real"),
        ({"distribution": 1.0, "distributions": DistributionMatching(kernel="energy")}, "distributions.kernel energy"),
    ],
)
def test_settings_that_read_texts_as_they_are(changes, expected):
    with refused(expected):
        config_of("gradient_matching", **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mode": "gaussian"}, "privacy.mode is 'gaussian': give off or poisson"),
        ({"records": 0}, "privacy.records is 0: give a public estimate"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"feature_bound": -1.0}, "privacy.feature_bound is -1.0"),
    ],
)
def test_bad_privacy(changes, expected):
    with refused(expected):
        dataclasses.replace(PRIVACY, **changes)


def test_a_run_without_enough_signal_does_not_start(toy_problem, tmp_path):
    with refused("below least_ratio 0.5: match fewer parameters"):
        distill(toy_problem, tmp_path / "run", privacy=dataclasses.replace(PRIVACY, force=False, records=1))
    assert not (tmp_path / "run" / "privacy.json").exists()
