"""The first-order argument of contrastive texts, and how far a training followed it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.evaluation.alignment import alignment, update_cosine
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config

ROWS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7]]


@pytest.fixture(scope="module")
def models():
    """A decoder in float64, its parameters, and a direction."""
    sizes = {"width": 8, "embedding_width": 8, "head_width": 4, "intermediate": 12, "layers": 1, "positions": 8}
    with jax.enable_x64(True):
        decoder = Decoder(dataclasses.replace(tiny_decoder_config(12), **sizes), jnp.dtype("float64"))
        shapes = jax.eval_shape(lambda: init_decoder(decoder, jax.random.key(0)))
        rng = np.random.default_rng(0)
        base, direction = (
            jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape)), shapes) for _ in range(2)
        )
    return decoder, base, direction


def test_the_contrast_of_a_near_expert_is_its_first_order_term(models):
    decoder, base, direction = models
    with jax.enable_x64(True):
        errors = []
        for step in (1e-3, 1e-4):
            expert = jax.tree.map(lambda p, d, step=step: p + step * d, base, direction)
            found = alignment(decoder, base, expert, ROWS, at_once=2)
            errors.append(np.abs(found.contrast - found.first_order).max())
            # Minus the derivative along the direction, by central differences of the contrast itself.
            other = jax.tree.map(lambda p, d, step=step: p - step * d, base, direction)
            back = alignment(decoder, base, other, ROWS, at_once=2)
            np.testing.assert_allclose(found.first_order, (found.contrast - back.contrast) / 2, rtol=1e-5, atol=1e-9)
        # What is left is of second order.
        assert errors[0] > 1e-8 and errors[1] < 0.02 * errors[0]
    assert found.summary()["correlation"] > 0.999 and found.summary()["texts"] == 3


def test_figures_do_not_depend_on_the_batch(models):
    decoder, base, direction = models
    with jax.enable_x64(True):
        whole, single = (alignment(decoder, base, direction, ROWS, at_once=n) for n in (3, 1))
    np.testing.assert_allclose(whole.contrast, single.contrast, rtol=1e-12)
    np.testing.assert_allclose(whole.first_order, single.first_order, rtol=1e-12)


def test_nothing_varies_without_a_difference(models):
    decoder, base, _ = models
    with jax.enable_x64(True):
        found = alignment(decoder, base, base, ROWS[:1])
    assert found.summary() == {"texts": 1, "contrast": 0.0, "first_order": 0.0, "correlation": None}


def test_update_cosine():
    before = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])}
    expert = {"a": jnp.array([0.0, 2.0]), "b": jnp.array([[3.0]])}
    along = {"a": jnp.array([1.5, 2.0]), "b": jnp.array([[3.0]])}
    askew = {"a": jnp.array([0.7, 2.4]), "b": jnp.array([[3.0]])}
    assert update_cosine(before, along, expert) == pytest.approx(1.0)
    assert update_cosine(before, askew, expert) == pytest.approx(-0.6)
    assert update_cosine(before, before, expert) == 0.0


def test_texts_without_a_token_to_predict_are_refused(models):
    decoder, base, _ = models
    with refused("alignment: 1 texts of at most 1 tokens: accepted are 2 to 8"):
        alignment(decoder, base, base, [[3]])
