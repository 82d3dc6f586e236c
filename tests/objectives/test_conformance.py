"""Every objective, adjoint, label kind and learner kind on tiny shapes in float64."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import derivative_along

from jaxdistill.core import adjoints
from jaxdistill.core.types import Batch, Learner, Objective, PyTree, Synthetic
from jaxdistill.models.classic_learner import NETWORKS, ClassicOptions, classic_learner
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.decoder_learner import decoder_learner
from jaxdistill.models.learner import encoder_learner
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.models.xlnet_config import XLNetConfig
from jaxdistill.models.xlnet_learner import xlnet_learner
from jaxdistill.objectives.combine import restricted, weighted_sum
from jaxdistill.objectives.distances import KERNELS, TREE_DISTANCES
from jaxdistill.objectives.distribution import DistributionMatching, distribution_matching
from jaxdistill.objectives.gradient import GradientMatching, gradient_matching, initial_state
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LABEL_KINDS
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
from jaxdistill.objectives.trajectory import Segment, trajectory_matching

CLASSES, LENGTH, WIDTH, WORDS, STEPS = 2, 6, 4, 9, 2
LEARNERS = ("encoder", *NETWORKS)
EXACT = {
    "full": adjoints.FULL,
    "remat": adjoints.REMAT,
    "mixed": adjoints.MIXED,
    "nested": adjoints.nested(1),
    "truncated": adjoints.truncated(STEPS),  # a window as long as the loop cuts nothing off
}
# Binary labels are unrestricted ones in another form: one learner kind shows what there is to see.
# A bi_rnn is a bi_lstm with another cell: one kind of labels is enough for it.
ONLY = {"binary": ("mlp",), "soft": LEARNERS}
KINDS = [
    (label, kind)
    for label in LABEL_KINDS
    for kind in ONLY.get(label, tuple(name for name in LEARNERS if name != "bi_rnn"))
]
APPROXIMATE = {"first_order": adjoints.FIRST_ORDER, "tesla": adjoints.TESLA}


FRESH, MEANS = GradientMatching(advance="none"), DistributionMatching()


class Case(NamedTuple):
    """An objective with everything it reads but the distilled set."""

    objective: Objective
    state: PyTree
    constants: PyTree
    batch: PyTree

    def loss(self, synthetic):
        return self.objective(synthetic, self.state, self.constants, self.batch, jax.random.key(3))[0]


@functools.cache
def make_learner(kind: str) -> Learner:
    if kind == "encoder":
        config = EncoderConfig(
            family="bert",
            vocabulary=WORDS,
            width=WIDTH,
            layers=1,
            heads=2,
            intermediate=5,
            positions=LENGTH,
            token_types=2,
            initializer_range=0.3,
        )
        return encoder_learner(config, None, num_classes=CLASSES, dtype="float64")
    if kind == "decoder":
        sizes = {"width": WIDTH, "embedding_width": WIDTH, "head_width": WIDTH // 2, "intermediate": 5, "layers": 1}
        decoder = dataclasses.replace(tiny_decoder_config(WORDS), **sizes, positions=LENGTH)
        return decoder_learner(decoder, None, num_classes=CLASSES, dtype="float64")
    if kind == "xlnet":
        sizes = {"vocabulary": WORDS, "width": WIDTH, "layers": 1, "heads": 2, "intermediate": 5, "positions": LENGTH}
        return xlnet_learner(XLNetConfig(**sizes, initializer_range=0.3), None, num_classes=CLASSES, dtype="float64")
    vectors = np.random.default_rng(0).normal(size=(WORDS, 12 if kind == "conv_lstm" else WIDTH))
    options = ClassicOptions(hidden=3)
    return classic_learner(kind, vectors, num_classes=CLASSES, length=LENGTH, options=options, dtype="float64")


@functools.cache
def base(kind: str):
    return make_learner(kind).init(jax.random.key(0))


def real_batch() -> Batch:
    ids = np.random.default_rng(1).integers(1, WORDS, (5, LENGTH))
    mask = np.arange(LENGTH)[None] < np.array([6, 3, 4, 5, 1])[:, None]
    weights = jnp.array([1.0, 0.5, 1.0, 2.0, 0.0])
    return Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask), labels=jnp.array([0, 1, 0, 1, 1]), weights=weights)


def make_spec(label_kind: str) -> InnerSpec:
    return InnerSpec(CLASSES, per_class=2, steps=STEPS, label_kind=label_kind)


def make_set(kind: str, label_kind: str) -> tuple[Synthetic, Batch]:
    """(learned parts, support); drawn large enough that no gradient is tiny."""
    learner, keys = make_learner(kind), jax.random.split(jax.random.key(2), 3)
    spec = make_spec(label_kind)
    numbers = 1 if label_kind == "binary" else CLASSES
    synthetic = Synthetic(
        inputs=jax.random.normal(keys[0], (spec.samples, LENGTH, learner.shape["width"])),
        labels=None if label_kind == "hard" else jax.random.normal(keys[1], (spec.samples, numbers)),
        raw_lr=jax.random.normal(keys[2], (STEPS, len(learner.group_names))),
    )
    hard = jnp.tile(jnp.eye(CLASSES), (2, 1))
    return synthetic, Batch(labels=hard if label_kind == "hard" else None)


def make_case(
    family: str,
    kind: str,
    label_kind: str,
    *,
    adjoint: adjoints.Adjoint = adjoints.MIXED,
    gradients: GradientMatching = FRESH,
    distributions: DistributionMatching = MEANS,
) -> Case:
    learner, spec = make_learner(kind), make_spec(label_kind)
    constants = MetaModelConstants(base(kind), make_set(kind, label_kind)[1])
    if family == "meta_model":
        return Case(meta_model(learner, spec, adjoint), (), constants, real_batch())
    if family == "gradient":
        state = initial_state(gradients, constants.base)
        return Case(gradient_matching(learner, spec, gradients), state, constants, real_batch())
    if family == "trajectory":
        target = learner.randomize(constants.base, jax.random.key(5)).trainable
        segment = Segment(constants.base.trainable, target)
        return Case(trajectory_matching(learner, spec, adjoint), (), constants, segment)
    assert family == "distribution"
    return Case(distribution_matching(learner, spec, distributions), (), constants, real_batch())


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def check_against_finite_differences(case: Case, synthetic: Synthetic, fields: tuple[str, ...]) -> Synthetic:
    """The gradient, after comparing it along a random direction of each field."""
    both = jax.jit(jax.value_and_grad(case.loss))
    gradient = both(synthetic)[1]
    for field in fields:
        value = getattr(synthetic, field)
        if value is None:
            continue
        direction = jax.random.normal(jax.random.key(4), value.shape)

        def loss_at(moved, field=field):
            return both(dataclasses.replace(synthetic, **{field: moved}))[0]

        expected = derivative_along(loss_at, value, direction, 1e-4)
        found = float(jnp.vdot(getattr(gradient, field), direction))
        assert abs(expected) > 1e-7, field
        np.testing.assert_allclose(found, expected, rtol=2e-6, err_msg=field)
    return gradient


@pytest.fixture(autouse=True)
def _float64(x64):
    yield


@pytest.mark.parametrize(("label_kind", "kind"), KINDS)
@pytest.mark.parametrize("family", ["meta_model", "trajectory"])
def test_unrolled_families(family, label_kind, kind):
    """Finite differences; then the exact adjoints against that gradient, in one program.

    How the loop is differentiated knows nothing of labels, and of learners only that recurrent ones are loops
    themselves: adjoints x label kinds are all there for the perceptron, whose programs compile in no time; of the
    other learners one label kind of one family is differentiated in both ways.
    """
    synthetic, _ = make_set(kind, label_kind)
    gradient = check_against_finite_differences(
        make_case(family, kind, label_kind), synthetic, ("inputs", "labels", "raw_lr")
    )
    some = ("full",) if (family, label_kind) == ("trajectory", "unrestricted") else ()
    names = tuple(EXACT) if kind == "mlp" else some
    others = {name: make_case(family, kind, label_kind, adjoint=EXACT[name]) for name in names}
    found = jax.jit(lambda s: {name: jax.grad(case.loss)(s) for name, case in others.items()})(synthetic)
    for name, other in found.items():
        np.testing.assert_allclose(flat(other), flat(gradient), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", APPROXIMATE)
def test_approximate_adjoints_drop_the_hessian(name):
    synthetic, _ = make_set("mlp", "soft")
    exact = jax.jit(jax.grad(make_case("trajectory", "mlp", "soft").loss))(synthetic)
    found = jax.jit(jax.grad(make_case("trajectory", "mlp", "soft", adjoint=APPROXIMATE[name]).loss))(synthetic)
    assert np.abs(flat(found) - flat(exact)).max() > 1e-4
    other = jax.jit(jax.grad(make_case("trajectory", "mlp", "soft", adjoint=adjoints.FIRST_ORDER).loss))(synthetic)
    np.testing.assert_allclose(flat(found), flat(other), rtol=1e-10)


@pytest.mark.parametrize(("label_kind", "kind"), KINDS)
@pytest.mark.parametrize("family", ["gradient", "distribution"])
def test_families_without_a_loop(family, label_kind, kind):
    synthetic, _ = make_set(kind, label_kind)
    gradient = check_against_finite_differences(make_case(family, kind, label_kind), synthetic, ("inputs", "labels"))
    assert not np.any(gradient.raw_lr)


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("parameters", ["all", "head", "last_k:1"])
@pytest.mark.parametrize("distance", TREE_DISTANCES)
def test_gradient_distances(distance, parameters, per_class):
    settings = GradientMatching(distance, parameters, per_class=per_class, advance="none")
    case = make_case("gradient", "mlp", "unrestricted", gradients=settings)
    check_against_finite_differences(case, make_set("mlp", "unrestricted")[0], ("inputs", "labels"))


# The closed form sees of a learner its features alone: every label kind for the quickest, every learner with one.
@pytest.mark.parametrize(
    ("label_kind", "kind"),
    [c for c in KINDS if c[1] == "mlp" or c[0] == "unrestricted"] + [("soft", "decoder"), ("soft", "xlnet")],
)
def test_the_closed_form_of_a_linear_head_equals_differentiation(label_kind, kind):
    synthetic, _ = make_set(kind, label_kind)
    cases = [
        make_case(
            "gradient",
            kind,
            label_kind,
            gradients=GradientMatching("l2", "head", closed_form=closed_form, advance="none"),
        )
        for closed_form in (True, False)
    ]
    found = jax.jit(lambda s: [jax.value_and_grad(case.loss)(s) for case in cases])(synthetic)
    np.testing.assert_allclose(flat(found[0]), flat(found[1]), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("encoder", ["learner", "random"])
@pytest.mark.parametrize("features", ["head", "mean"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels(kernel, features, encoder):
    settings = DistributionMatching(kernel, encoder, features)
    case = make_case("distribution", "encoder", "soft", distributions=settings)
    check_against_finite_differences(case, make_set("encoder", "soft")[0], ("inputs", "labels"))


def test_a_weighted_sum_adds_losses_gradients_and_metrics():
    synthetic, _ = make_set("mlp", "soft")
    parts = {family: make_case(family, "mlp", "soft") for family in ("meta_model", "gradient", "distribution")}
    weights = {"meta_model": 0.5, "gradient": 2.0, "distribution": 1.0}
    total = weighted_sum({name: (weights[name], case.objective) for name, case in parts.items()})
    arguments = [{name: getattr(case, field) for name, case in parts.items()} for field in Case._fields[1:]]
    key = jax.random.key(3)

    def whole(s):
        loss, (_, metrics) = total(s, *arguments, key)
        return loss, metrics

    def by_hand(s):
        keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(parts)}
        losses = {name: case.objective(s, *case[1:], keys[name])[0] for name, case in parts.items()}
        return sum(weights[name] * loss for name, loss in losses.items()), losses

    (loss, metrics), gradient = jax.jit(jax.value_and_grad(whole, has_aux=True))(synthetic)
    (expected, losses), expected_gradient = jax.jit(jax.value_and_grad(by_hand, has_aux=True))(synthetic)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)
    np.testing.assert_allclose(flat(gradient), flat(expected_gradient), rtol=1e-9, atol=1e-13)
    assert {name: float(metrics[f"{name}_loss"]) for name in parts} == {k: float(v) for k, v in losses.items()}


def test_a_restricted_objective_teaches_nothing_else():
    synthetic, _ = make_set("mlp", "soft")
    case = make_case("meta_model", "mlp", "soft")
    found = jax.jit(jax.grad(case._replace(objective=restricted(case.objective, "raw_lr")).loss))(synthetic)
    expected = jax.jit(jax.grad(case.loss))(synthetic)
    assert not np.any(found.inputs) and not np.any(found.labels)
    np.testing.assert_allclose(found.raw_lr, expected.raw_lr, rtol=1e-12)


@pytest.mark.parametrize("advance", ["synthetic", "real"])
def test_the_learner_of_gradient_matching_trains_between_matches_and_is_drawn_anew(advance):
    settings = GradientMatching("l2", advance=advance, advance_lr=0.3, restart=3)
    case = make_case("gradient", "mlp", "soft", gradients=settings)
    synthetic, _ = make_set("mlp", "soft")
    learner = make_learner("mlp")
    step = jax.jit(lambda state, key: case.objective(synthetic, state, case.constants, case.batch, key)[1][0])
    state, ages = case.state, []
    for number in range(4):
        before = state.params
        key = jax.random.key(number)
        state = step(state, key)
        ages.append(int(state.age))
        if number in (0, 3):  # drawn at the first match and again after the third
            before = learner.refresh(case.constants.base, jax.random.split(key)[0]).trainable
        assert np.abs(flat(state.params) - flat(before)).max() > 1e-6
        if advance == "real":

            def loss(p):
                logits = learner.apply(dataclasses.replace(case.constants.base, trainable=p), case.batch).logits
                losses = -jax.nn.log_softmax(logits)[jnp.arange(5), case.batch.labels]
                return jnp.sum(losses * case.batch.weights) / jnp.sum(case.batch.weights)

            expected = jax.tree.map(lambda p, g: p - 0.3 * g, before, jax.jit(jax.grad(loss))(before))
            np.testing.assert_allclose(flat(state.params), flat(expected), rtol=1e-9, atol=1e-12)
    assert ages == [1, 2, 3, 1]
    assert step._cache_size() == 1


def test_a_diverged_learner_is_drawn_anew():
    settings = GradientMatching("l2", advance="synthetic", restart=100)
    case = make_case("gradient", "mlp", "unrestricted", gradients=settings)
    synthetic, _ = make_set("mlp", "unrestricted")
    broken = dataclasses.replace(synthetic, raw_lr=jnp.full_like(synthetic.raw_lr, jnp.inf))
    _, (state, _) = jax.jit(case.objective)(broken, case.state, case.constants, case.batch, jax.random.key(0))
    assert int(state.age) == 100
    assert np.isfinite(flat(state.params)).all()


@pytest.mark.parametrize("family", ["gradient", "distribution"])
def test_a_class_that_the_batch_lacks_is_left_out(family):
    case = make_case(family, "mlp", "soft")
    synthetic, _ = make_set("mlp", "soft")
    only_first = dataclasses.replace(case.batch, weights=jnp.where(case.batch.labels == 0, 1.0, 0.0))
    loss, (_, metrics) = jax.jit(case.objective)(synthetic, case.state, case.constants, only_first, jax.random.key(3))
    _, (_, both) = jax.jit(case.objective)(synthetic, case.state, case.constants, case.batch, jax.random.key(3))
    assert (int(metrics["matched_classes"]), int(both["matched_classes"])) == (1, 2)
    assert np.isfinite(loss)


def test_same_key_same_bits_and_one_program():
    for family in ("meta_model", "gradient", "trajectory", "distribution"):
        case = make_case(family, "mlp", "soft")
        synthetic, _ = make_set("mlp", "soft")
        step = jax.jit(case.objective)
        runs = [step(synthetic, case.state, case.constants, case.batch, jax.random.key(k)) for k in (3, 3, 4)]
        assert np.array_equal(flat(runs[0]), flat(runs[1]))
        if family != "trajectory":  # which starts where the expert did
            assert not np.array_equal(flat(runs[0]), flat(runs[2]))
        assert step._cache_size() == 1
