"""GRADMM's optimisation on a tiny language model."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import derivative_along

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.methods import gradmm_admm
from jaxdistill.methods.gradmm_admm import ADMM, Given, Solver
from jaxdistill.methods.gradmm_reading import Form, label_parts, word_table
from jaxdistill.methods.gradmm_sampling import sampled
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.objectives.head_distance import FactoredTarget

LENGTH, FORM = 3, Form((19,), (17, 18), (1, 2))
SETTINGS = ADMM(outer_steps=3, inner_steps=4, candidates=3, nearest=4, lr=0.05)


@pytest.fixture(scope="module")
def given():
    sizes = {"width": 8, "embedding_width": 8, "head_width": 4, "intermediate": 12, "layers": 1, "positions": 16}
    decoder = Decoder(dataclasses.replace(tiny_decoder_config(20), **sizes))
    params = jax.tree.map(
        lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), init(decoder)
    )
    ids = jax.random.randint(jax.random.key(1), (2 * 5, 6), 0, 16)
    classes = jnp.repeat(jnp.arange(2), 5)
    parts = label_parts(decoder, params, Batch(token_ids=ids), jnp.full(10, 5), classes, FORM)
    target = FactoredTarget(jax.tree.map(lambda x: x.reshape(2, 5, -1), parts), jnp.full((2, 5), 0.2))
    return decoder, Given(params, target, jnp.arange(16), jnp.asarray([19, 0]))


def init(decoder):
    return init_decoder(decoder, jax.random.key(0))


def solved(given, settings=SETTINGS, rounds=2, seed=0):
    decoder, known = given
    solver = Solver(settings, decoder, FORM)
    state = solver.start(known, rounds, 2, LENGTH, jax.random.key(seed))
    start = np.asarray(state.x)
    state, trace = solver.advance(known, state, settings.outer_steps)
    return solver, start, state, trace


def test_starts_are_of_one_length_and_better_than_most(given):
    decoder, known = given
    solver = Solver(SETTINGS, decoder, FORM)
    state = solver.start(known, 2, 2, LENGTH, jax.random.key(0))
    table = np.asarray(word_table(known.params))
    np.testing.assert_allclose(
        np.linalg.norm(state.x[..., :LENGTH, :], axis=-1), np.linalg.norm(table[:16], axis=1).mean(), rtol=1e-5
    )
    np.testing.assert_array_equal(state.x[..., LENGTH:, :], np.broadcast_to(table[[17, 18]], (2, 2, 2, 2, 8)))


def test_texts_are_allowed_tokens_and_the_prompt_stays(given):
    solver, _, state, trace = solved(given)
    ids, distance = solver.finish(given[1], state)
    assert ids.shape == (2, 2, 2, LENGTH) and int(jnp.max(ids)) < 16
    table = np.asarray(word_table(given[1].params))
    np.testing.assert_array_equal(state.x[..., LENGTH:, :], np.broadcast_to(table[[17, 18]], (2, 2, 2, 2, 8)))
    np.testing.assert_array_equal(state.dual[..., LENGTH:, :], 0.0)
    np.testing.assert_allclose(distance, solver.text_distances(given[1], ids), atol=1e-6)
    assert trace.residual.shape == (3,) and np.all(np.isfinite(jnp.stack(trace)))


def test_the_best_text_of_all_steps_is_kept(given):
    """Step by step as at once, and the lowest distance of what was seen."""
    decoder, known = given
    solver, _, whole, _ = solved(given)
    state, seen = solver.start(known, 2, 2, LENGTH, jax.random.key(0)), []
    for _ in range(SETTINGS.outer_steps):
        x = solver.with_prompt(known, state.x[..., :LENGTH, :])
        seen.append(solver.text_distances(known, solver.project(known, x + state.dual / SETTINGS.rho)))
        state, _ = solver.advance(known, state, 1)
    np.testing.assert_allclose(state.best_score, np.min(seen, axis=0), atol=1e-6)
    np.testing.assert_array_equal(state.best_ids, whole.best_ids)
    np.testing.assert_allclose(state.x, whole.x, atol=1e-5)


def test_rounds_do_not_depend_on_one_another(given):
    """Two rounds at once are the same as each by itself from the same start."""
    solver, start, state, _ = solved(given)
    decoder, known = given
    both = solver.start(known, 2, 2, LENGTH, jax.random.key(0))
    one = jax.tree.map(lambda x: x[:, 1:] if x.ndim > 1 and x.shape[1] == 2 else x, both)
    found, _ = solver.advance(known, one, SETTINGS.outer_steps)
    np.testing.assert_allclose(found.x[:, 0], state.x[:, 1], atol=1e-5)
    np.testing.assert_array_equal(found.best_ids[:, 0], state.best_ids[:, 1])


def test_a_larger_rho_stays_closer_to_the_text(given):
    """With enough steps to follow the penalty."""
    ends = [
        float(solved(given, dataclasses.replace(SETTINGS, rho=rho, inner_steps=40, clip=0.0))[3].residual[-1])
        for rho in (0.01, 5.0)
    ]
    assert ends[1] < 0.5 * ends[0]


def test_descent_lowers_the_distance_where_rho_is_small(given):
    settings = dataclasses.replace(SETTINGS, rho=1e-4, inner_steps=40, outer_steps=1)
    solver, start, state, trace = solved(given, settings)
    assert float(trace.distance[0]) < 0.5 * float(jnp.mean(solver.distances(given[1], jnp.asarray(start))))


@pytest.mark.parametrize(
    "extra", [{}, {"norm_weight": 0.3, "likelihood_weight": 0.2}, {"match": "each"}, {"distance": "l2"}]
)
def test_derivative_of_the_objective(given, extra):
    """By finite differences in float64."""
    decoder, known = given
    settings = dataclasses.replace(SETTINGS, **extra)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if x.dtype == jnp.float32 else x, known)
        solver = Solver(settings, dataclasses.replace(decoder, dtype=jnp.dtype("float64")), FORM)
        rng = np.random.default_rng(0)
        x, z, dual, along = (jnp.asarray(rng.normal(size=(2, 1, 2, LENGTH + 2, 8))) for _ in range(4))
        ids = jnp.asarray(rng.integers(0, 16, (2, 1, 2, LENGTH)))

        @jax.jit
        def loss(x):
            return gradmm_admm._objective(solver, double, x, z, dual, ids)[0]

        slope = jnp.sum(jax.grad(loss)(x) * along)
        assert float(slope) == pytest.approx(derivative_along(loss, x, along, 1e-5), rel=1e-4)


def test_texts_without_matching(given):
    """The control: drawn among the allowed tokens, each class behind its own prefix."""
    decoder, known = given
    solver, key = Solver(SETTINGS, decoder, FORM), jax.random.key(0)
    ids, distances = sampled(solver, known, [[19, 0], [19, 5, 7]], 3, LENGTH, key)
    assert ids.shape == (6, LENGTH) and ids.max() < 16 and len(np.unique(ids, axis=0)) > 3
    alone = [solver.each_text_distance(known, jnp.asarray([[[row]], [[row]]])) for row in ids]
    expected = [found[0 if i < 3 else 1, 0, 0] for i, found in enumerate(alone)]
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-6)
    other, _ = sampled(solver, known, [[19, 1], [19, 5, 7]], 3, LENGTH, key)
    np.testing.assert_array_equal(other[3:], ids[3:])
    assert (other[:3] != ids[:3]).any()


def test_terms_of_weight_zero_cost_nothing(given):
    decoder, known = given
    solver = Solver(SETTINGS, decoder, FORM)
    x, ids = jnp.zeros((2, 1, 2, LENGTH + 2, 8)), jnp.zeros((2, 1, 2, LENGTH), jnp.int32)

    def program(solver):
        return str(jax.make_jaxpr(lambda x: gradmm_admm._objective(solver, known, x, x, x, ids))(x))

    plain = program(solver)

    def bare(x):
        distance = solver.distances(known, x)
        away = x - x + x / SETTINGS.rho
        loss = distance + SETTINGS.rho / 2 * jnp.sum(away * away, axis=(2, 3, 4))
        return jnp.sum(loss), (loss, distance)

    assert plain == str(jax.make_jaxpr(bare)(x))  # a weight of 0 costs nothing
    for field in ("norm_weight", "likelihood_weight"):
        assert program(Solver(dataclasses.replace(SETTINGS, **{field: 0.1}), decoder, FORM)) != plain
    # The head is applied to the last position alone.
    assert plain.count("dot_general") < program(
        Solver(dataclasses.replace(SETTINGS, likelihood_weight=0.1), decoder, FORM)
    ).count("dot_general")


def test_the_vectors_of_the_lowest_loss_are_kept(given):
    """The published rule: of all outer steps the one whose last inner loss is lowest, projected at the end."""
    decoder, known = given
    solver = Solver(dataclasses.replace(SETTINGS, keep="loss"), decoder, FORM)
    state = solver.start(known, 2, 2, LENGTH, jax.random.key(0))
    best_x, best = np.zeros(state.x.shape), np.full((2, 2), np.inf)
    for _ in range(4):
        before = np.asarray(state.best_score)
        state, _ = solver.advance(known, state, 1)
        better = np.asarray(state.best_score) < before
        best_x[better] = np.asarray(state.x)[better]
        best = np.where(better, np.asarray(state.best_score), best)
    np.testing.assert_array_equal(state.best_x, best_x.astype(np.float32))
    ids, distances = solver.finish(known, state)
    np.testing.assert_array_equal(ids, solver.project(known, state.best_x))
    np.testing.assert_allclose(distances, solver.text_distances(known, ids), rtol=1e-6)


def test_prompts_may_drift_between_projections(given):
    """The published code's habit for most tasks: the dual keeps a trace of it."""
    _, _, state, _ = solved(given, dataclasses.replace(SETTINGS, freeze_prompt=False, keep="loss"))
    assert float(jnp.max(jnp.abs(state.dual[..., LENGTH:, :]))) > 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rho": 0.0}, "admm.rho is 0.0"),
        ({"nearest": 0}, "admm.nearest is 0"),
        ({"outer_steps": 0}, "admm.outer_steps is 0"),
        ({"clip": -1.0}, "admm.clip is -1.0"),
        ({"match": "each", "distance": "l2"}, "admm.match each is for the distance cos"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(UserError, match=message):
        ADMM(**fields)
