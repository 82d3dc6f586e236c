"""Memory of the meta-gradient: XLA's temporaries on a 2-layer encoder of width 128, 16 samples of 64 positions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxdistill.core import adjoints
from jaxdistill.core.types import Batch, Synthetic
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.learner import encoder_learner
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model

SAMPLES, LENGTH, WIDTH = 16, 64, 128


@functools.cache
def temporaries(steps: int, adjoint: adjoints.Adjoint) -> int:
    """Bytes of temporaries of one meta-gradient, nothing run or allocated."""
    config = EncoderConfig(vocabulary=100, width=WIDTH, layers=2, heads=2, intermediate=4 * WIDTH, positions=LENGTH)
    # Scanned layers compile in a third of the time; the temporaries are those of the inner loop all the same.
    learner = encoder_learner(config, None, num_classes=2, scan_layers=True)
    spec = InnerSpec(2, per_class=SAMPLES // 2, batch_per_class=SAMPLES // 2, steps=steps)
    synthetic = Synthetic(
        inputs=jax.ShapeDtypeStruct((SAMPLES, LENGTH, WIDTH), jnp.float32),
        labels=jax.ShapeDtypeStruct((SAMPLES, 2), jnp.float32),
        raw_lr=jax.ShapeDtypeStruct((steps,), jnp.float32),
    )
    constants = MetaModelConstants(jax.eval_shape(learner.init, jax.random.key(0)), Batch())
    real = Batch(token_ids=jax.ShapeDtypeStruct((4, LENGTH), jnp.int32), labels=jax.ShapeDtypeStruct((4,), jnp.int32))
    objective = meta_model(learner, spec, adjoint)
    gradient = jax.jit(jax.grad(lambda s, c, b, k: objective(s, (), c, b, k)[0]))
    compiled = gradient.lower(synthetic, constants, real, jax.random.key(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_nested_hardly_grows_with_the_number_of_steps():
    # 36 steps are 6 segments of 6: without a remainder, which would be compiled beside them.
    assert temporaries(36, adjoints.nested()) <= 1.5 * temporaries(4, adjoints.nested())


def test_a_tenth_of_the_memory_of_plain_differentiation():
    plain = temporaries(16, adjoints.FULL)
    assert temporaries(16, adjoints.MIXED) <= plain / 10
    assert temporaries(36, adjoints.nested()) <= plain / 10
