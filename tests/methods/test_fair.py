"""Fair distillation: settings, the gradient of its loss, what reaches it, and the controlled task."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Log, derivative_along

from jaxdistill.core import adjoints
from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Outputs, Synthetic
from jaxdistill.data.packing import pad
from jaxdistill.data.sources import TaskData
from jaxdistill.data.splits import Split
from jaxdistill.data.tasks import task_named
from jaxdistill.evaluation.fairness import dto, gap
from jaxdistill.evaluation.scoring import split_batches
from jaxdistill.evaluation.students import Examiner
from jaxdistill.methods.base import Run
from jaxdistill.methods.embedding_set import inner_spec
from jaxdistill.methods.experts import Experts
from jaxdistill.methods.fair import METHOD, Fair, clean, fair_loss, make_match, reference, released_vanilla
from jaxdistill.methods.matching import make_match as make_matching
from jaxdistill.methods.registry import method_named
from jaxdistill.models.classic_learner import ClassicOptions, classic_learner
from jaxdistill.objectives.fairness import adversary_init
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
from jaxdistill.pipeline.config import BalanceConfig, ExperimentConfig, LearnerConfig, TaskConfig
from jaxdistill.pipeline.prepare import balanced, check_split_groups, prepare
from jaxdistill.pipeline.training import learned_arrays

TERMS = {"adversary": 0.8, "contrastive": 0.1, "temperature": 1.0, "group_difference": 0.3}


@functools.cache
def problem(objective: str = "none", by: str = "resampling"):
    task = TaskConfig(name="toy/bias", balance=BalanceConfig(objective=objective, by=by))
    return prepare(task, LearnerConfig(name="mlp", network=ClassicOptions(hidden=100)))


def settings(**changes) -> Fair:
    outer = {"inits": 2, "selections": 1}
    quick = {"updates": 200, "decay_every": 50, "batch_size": 256, "lr": 0.03, "initial_lr": 0.1, "outer": outer}
    return clean(passes=5, **(quick | changes))


def trained_on(config, where, students=6):
    """(mean accuracy, mean GAP) on test of unseen learners, and the set's manifest."""
    distilled = METHOD.distill(config, where, key=jax.random.key(0), run=Run(say=lambda line: None))
    spec = inner_spec(config, where.classes)
    split = split_batches(where.test, where.pretrained.learner, row_length=1)
    arrays = jax.tree.map(jnp.asarray, learned_arrays(distilled, spec, where))
    keys = jax.random.split(jax.random.key(7), students)
    scores = list(Examiner(where.pretrained.learner, spec).scores(where.base(), arrays, keys, split, shared=False))
    hits = [score.confusion.trace() / score.confusion.sum() for score in scores]
    return np.mean(hits), np.mean([gap(score.by_group) for score in scores]), distilled


def test_balanced_training_removes_the_bias_that_plain_distillation_keeps():
    """Full data: accuracy .66 and GAP .42 as it is, .72 and .03 balanced; the best group-blind rule has .73."""
    hits, bias, _ = trained_on(settings(), problem())
    balanced_hits, balanced_bias, _ = trained_on(settings(), problem("stratified_y"))
    assert bias >= 0.7 * 0.42 and hits < 0.69
    assert balanced_bias <= 0.25 * bias and balanced_hits > hits + 0.02


def test_the_choice_on_dev_goes_by_dto():
    config = settings(updates=30, outer={"inits": 1, "selections": 3}, group_difference=0.3)
    _, _, distilled = trained_on(config, problem(), students=1)
    chosen = distilled.manifest["selection"]
    assert chosen["by"] == "dto" and chosen["score"] == pytest.approx(max(score for _, score in chosen["scores"]))
    assert chosen["score"] <= 1 - dto(0.73, 0.0) + 0.03


def tiny(classes, width=6):
    vectors = np.random.default_rng(0).normal(size=(9, width))
    return classic_learner(
        "mlp", vectors, num_classes=classes, length=1, options=ClassicOptions(hidden=5), dtype="float64"
    )


def tiny_batch(classes):
    rng = np.random.default_rng(1)
    labels, groups = np.arange(12) % classes, np.eye(2)[rng.permutation(np.arange(12) // 3 % 2)]
    weights = np.r_[np.ones(10), 0.5, 0.0]
    ids = rng.integers(0, 9, (12, 1))
    return jax.tree.map(jnp.asarray, Batch(token_ids=ids, labels=labels, groups=groups, weights=weights))


@pytest.mark.parametrize(("classes", "steps"), [(2, 1), (2, 3), (4, 3)])
def test_meta_gradients_agree_with_finite_differences(classes, steps, x64):
    learner, batch = tiny(classes), tiny_batch(classes)
    config = Fair(**TERMS)
    spec = InnerSpec(classes, steps=steps, label_kind="unrestricted")
    keys = jax.random.split(jax.random.key(2), 3)
    synthetic = Synthetic(
        inputs=jax.random.normal(keys[0], (classes, 1, 6)),
        labels=jax.random.normal(keys[1], (classes, classes)),
        raw_lr=jax.random.normal(keys[2], (steps,)),
    )
    constants = MetaModelConstants(learner.init(jax.random.key(0)), Batch())
    state = jax.tree.map(lambda x: x.astype(jnp.float64), adversary_init(jax.random.key(1), 5, 2, hidden=4))
    losses, gradients = [], []
    for adjoint in (adjoints.MIXED, adjoints.REMAT, adjoints.FULL):
        objective = meta_model(learner, spec, adjoint, fair_loss(config, classes))
        value = jax.jit(lambda s, o=objective: o(s, state, constants, batch, jax.random.key(3))[0])
        losses.append(value)
        gradients.append(jax.jit(jax.grad(value))(synthetic))
    for other in gradients[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), gradients[0], other)
    # The adversary's own step reads the features as constants, so its part is compared with the step left out.
    still = dataclasses.replace(config, adversary_lr=1e-300)
    objective = meta_model(learner, spec, adjoints.MIXED, fair_loss(still, classes))
    value = jax.jit(lambda s: objective(s, state, constants, batch, jax.random.key(3))[0])
    gradient = jax.jit(jax.grad(value))(synthetic)
    for part in ("inputs", "labels", "raw_lr"):
        x, g = getattr(synthetic, part), getattr(gradient, part)
        direction = jax.random.normal(jax.random.key(4), x.shape)
        moved = derivative_along(lambda y, p=part: value(dataclasses.replace(synthetic, **{p: y})), x, direction, 1e-3)
        assert float(jnp.vdot(g, direction)) == pytest.approx(moved, rel=1e-6)


def test_terms_of_weight_zero_leave_the_loss_alone():
    batch = tiny_batch(2)
    outputs = Outputs(jax.random.normal(jax.random.key(0), (12, 2)), jax.random.normal(jax.random.key(1), (12, 5)))
    plain, (state, metrics) = fair_loss(Fair(), 2)(outputs, batch, ())
    assert state == () and metrics == {}
    losses = -jax.nn.log_softmax(outputs.logits)[jnp.arange(12), batch.labels]
    np.testing.assert_allclose(plain, jnp.average(losses, weights=batch.weights), rtol=1e-6)
    alike, _ = fair_loss(Fair(), 2)(outputs, dataclasses.replace(batch, weights=jnp.ones(12)), ())
    assert abs(float(alike - plain)) > 1e-4  # weights reach the outer loss


def test_the_adversary_learns_on_one_side_of_a_constant():
    batch, config = tiny_batch(2), Fair(adversary=0.8, adversary_lr=0.1)
    state = adversary_init(jax.random.key(1), 5, 2, hidden=4)
    features = jax.random.normal(jax.random.key(1), (12, 5))
    outputs = Outputs(jnp.zeros((12, 2)), features)
    judged = []
    for _ in range(40):
        _, (state, metrics) = fair_loss(config, 2)(outputs, batch, state)
        judged.append(float(metrics["adversary_loss"]))
    assert judged[-1] < 0.7 * judged[0]
    gradient = jax.grad(lambda f: fair_loss(config, 2)(Outputs(outputs.logits, f), batch, state)[0])(features)
    assert np.abs(gradient).max() > 0


def test_presets():
    assert clean(updates=9, decay_every=3).label_kind == "soft" and clean(updates=9, decay_every=3).outer.inits == 8
    published = reference(updates=9, decay_every=3, epoch=2)
    assert (published.label_kind, published.label_start, published.outer.inits) == ("unrestricted", "zeros", 1)
    assert published.outer.select_at == (9,) and published.adversary == 0.0
    assert published.outer.decay_ahead == 2
    named = dataclasses.replace(published, adversary=0.8, preset="released_vanilla")
    assert released_vanilla(updates=9, decay_every=3, epoch=2) == named


def test_balance_touches_the_training_split_alone():
    plain, balanced, weighed = problem(), problem("stratified_y"), problem("stratified_y", "reweighting")
    assert (len(plain.train), len(balanced.train), len(weighed.train)) == (9998, 4 * 999, 9998)
    cells = balanced.train.groups.T @ np.eye(2)[balanced.train.labels]
    np.testing.assert_array_equal(cells, 999)
    for other in (balanced, weighed):
        for name in ("dev", "test"):
            np.testing.assert_array_equal(getattr(plain, name).ids, getattr(other, name).ids)
            assert getattr(other, name).weights is None
    np.testing.assert_allclose(weighed.train.weights.sum(), 9998, rtol=1e-6)
    rare = weighed.train.weights[weighed.train.labels != weighed.train.groups.argmax(axis=1)]
    np.testing.assert_allclose(rare, 4999 / (2 * 999), rtol=1e-3)
    batch = pad(weighed.train, np.arange(5), length=1, examples=6)
    np.testing.assert_array_equal(batch.weights, [*weighed.train.weights[:5], 0])
    np.testing.assert_array_equal(batch.groups, [*weighed.train.groups[:5], [0, 0]])


def test_data_without_groups():
    bare = prepare(TaskConfig(name="toy/reviews", max_length=16), LearnerConfig(name="tiny"))
    with pytest.raises(UserError, match="needs the group of each example, and toy/reviews has none"):
        make_match(Fair(), bare, InnerSpec(2))
    with pytest.raises(UserError, match="task.balance needs the group"):
        prepare(TaskConfig(name="toy/reviews", balance=BalanceConfig(objective="joint")), LearnerConfig(name="tiny"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fair(adversary=-0.1), "adversary is -0.1: accepted is a weight from 0"),
        (lambda: Fair(contrastive=float("nan")), "contrastive is nan"),
        (lambda: Fair(temperature=0.0), "temperature is 0.0"),
        (lambda: Fair(adversary_units=0), "adversary_units is 0"),
        (lambda: clean(blocks=0, updates=1, decay_every=1), "per_class is 0"),
        (lambda: clean(passes=0, updates=1, decay_every=1), "steps is 0"),
        (lambda: BalanceConfig(objective="fair"), "unknown task.balance.objective 'fair'"),
        (lambda: ExperimentConfig(method="fair", settings=Fair(label_kind="binary", length=0)), "length is 0"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("family", ["meta_model", "gradient", "distribution"])
def test_groupwise_matching_is_matching_of_even_groups(family):
    """Any family of the real batch: the same loss as with weights made even by hand."""
    where, method = problem(), method_named(f"{family}_matching")
    batch = pad(where.train, np.r_[:12, 8000:8004], length=1)
    cells = batch.labels * 2 + batch.groups.argmax(axis=1)
    counts, classes = np.bincount(cells, minlength=4), np.bincount(batch.labels)
    even = (classes[batch.labels] / 2 / counts[cells]).astype(np.float32)
    assert set(counts) != {4} and len(set(even)) > 1
    losses = []
    for groupwise, weights in ((True, batch.weights), (False, even)):
        config = method.config(length=1, steps=2, groupwise=groupwise, label_kind="soft")
        spec = inner_spec(config, 2)
        synthetic, support = method.initial(config, where, jax.random.key(0))
        match = make_matching(config, where, spec)
        constants = match.constants(MetaModelConstants(where.base(), support))
        weighed = match.batch(0, lambda w=weights: dataclasses.replace(batch, weights=w))
        losses.append(jax.jit(match.objective)(synthetic, match.state, constants, weighed, jax.random.key(1))[0])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_experts_of_groupwise_matching_see_even_groups():
    settings = {"length": 1, "steps": 2, "experts": Experts(count=1, epoch_steps=3, span=1, latest_start=0)}
    made = []
    for groupwise in (False, True):
        config = method_named("trajectory_matching").config(**settings, groupwise=groupwise)
        run = Run(say=lambda line: None)
        match = make_matching(config, problem(), inner_spec(config, 2), key=jax.random.key(0), run=run)
        made.append(match.batch(0, lambda: None)["trajectory"])
    jax.tree.map(np.testing.assert_array_equal, made[0].start, made[1].start)
    assert not np.array_equal(made[0].target["classifier"]["kernel"], made[1].target["classifier"]["kernel"])


def test_groupwise_matching_needs_groups():
    bare = prepare(TaskConfig(name="toy/reviews", max_length=16), LearnerConfig(name="tiny"))
    config = method_named("gradient_matching").config(groupwise=True)
    with pytest.raises(UserError, match="groupwise matching needs groups, and toy/reviews has none"):
        make_matching(config, bare, inner_spec(config, 2))


def test_an_approximate_adjoint_is_compared_with_the_exact_one_beside_a_state():
    """The adversary is given to the first step for good; the comparison has a copy."""
    log = Log()
    config = settings(updates=2, outer={"inits": 1, "selections": 2, "adjoint": "tesla"}, adversary=0.8)
    run = Run(make_writer=lambda step: log, say=lambda line: None)
    METHOD.distill(config, problem(), key=jax.random.key(0), run=run)
    assert len(log.rows) == 2 and all(0.0 < row["adjoint_cosine"] < 1.0 for row in log.rows)


def test_resampling_that_leaves_a_class_out_is_refused():
    labels, groups = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 0])
    split = Split([(f"text {i}",) for i in range(6)], labels.astype(np.int32), {"group": groups.astype(np.int32)})
    task = dataclasses.replace(task_named("toy/reviews:0.8"), label_names=("a", "b", "c"))
    data = TaskData(task, split, split, split, (), "", "")
    with pytest.raises(UserError, match="leaves no example of class 'c': give task.balance.by=reweighting"):
        balanced(data, BalanceConfig(objective="stratified_y"))


def test_groups_that_coincide_with_labels_cannot_be_compared():
    labels = np.array([0, 0, 1, 1], np.int32)
    split = Split([(f"text {i}",) for i in range(4)], labels, {"group": labels})
    data = TaskData(task_named("toy/reviews:0.8"), split, split, split, (), "", "")
    with pytest.raises(UserError, match="train: no class has examples of two groups"):
        check_split_groups(data)
