from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.evaluation import cost, memory


def test_compiled_cost_of_a_matrix_product():
    compiled = jax.jit(lambda a, b: a @ b).lower(jnp.ones((8, 16)), jnp.ones((16, 4))).compile()
    figures = cost.compiled_cost(compiled)
    assert figures["flops"] == 2 * 8 * 16 * 4
    assert figures["argument_bytes"] == 4 * (8 * 16 + 16 * 4)
    assert figures["output_bytes"] == 4 * 8 * 4
    assert figures["bytes"] == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert figures["temp_bytes"] is not None


@pytest.mark.parametrize(
    ("analysis", "flops"), [(None, None), ([], None), ({}, None), ([{"flops": 7.0}], 7), ({"flops": -1.0}, None)]
)
def test_compiled_cost_reads_every_form_a_backend_answers_in(analysis, flops):
    compiled = mock.Mock(spec=jax.stages.Compiled)
    compiled.cost_analysis.return_value = analysis
    compiled.memory_analysis.return_value = None
    figures = cost.compiled_cost(compiled)
    assert figures["flops"] == flops
    assert figures["temp_bytes"] is None and figures["bytes"] is None


def _layers(weights, x):
    return jax.lax.scan(lambda carry, w: (jnp.tanh(carry @ w), None), x, weights)[0]


def test_matmul_flops_multiplies_scans_where_xla_does_not():
    weights, x = jax.ShapeDtypeStruct((10, 16, 16), jnp.float32), jax.ShapeDtypeStruct((4, 16), jnp.float32)
    product = 2 * 4 * 16 * 16
    assert cost.matmul_flops(_layers, weights, x) == 10 * product
    assert cost.matmul_flops(jax.jit(_layers), weights, x) == 10 * product
    compiled = jax.jit(_layers).lower(weights, x).compile()
    xla_flops = cost.compiled_cost(compiled)["flops"]
    assert xla_flops is not None and xla_flops < 2 * product, "XLA counts the loop's body once"


def test_matmul_flops_counts_what_a_gradient_recomputes():
    weights, x = jax.ShapeDtypeStruct((10, 16, 16), jnp.float32), jax.ShapeDtypeStruct((4, 16), jnp.float32)
    product = 2 * 4 * 16 * 16

    def loss(weights, x):
        return _layers(weights, x).sum()

    def loss_remat(weights, x):
        return jax.lax.scan(jax.checkpoint(lambda c, w: (jnp.tanh(c @ w), None)), x, weights)[0].sum()

    assert cost.matmul_flops(jax.grad(loss), weights, x) == 3 * 10 * product
    assert cost.matmul_flops(jax.grad(loss_remat), weights, x) == 4 * 10 * product


def test_matmul_flops_of_batched_products_and_branches():
    queries, keys = jnp.ones((3, 5, 8)), jnp.ones((3, 7, 8))
    assert cost.matmul_flops(lambda q, k: jnp.einsum("nqd,nkd->nqk", q, k), queries, keys) == 2 * 3 * 5 * 7 * 8

    def either(flag, a):
        return jax.lax.cond(flag, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert cost.matmul_flops(either, jnp.asarray(True), jnp.ones((8, 8))) == 2 * 2 * 8**3


def test_peak_memory_grows_with_a_large_array():
    before = memory.peak_resident_bytes()
    np.ones(2**25).sum()
    assert memory.peak_resident_bytes() >= max(before, 2**28)
    assert cost.peak_memory_bytes() > 0


def test_peak_memory_of_a_child_is_its_own():
    held = np.ones(2**26)
    code = "from jaxdistill.evaluation.memory import peak_resident_bytes as p; print(p())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert int(child.stdout) < held.nbytes


def test_record_has_the_fields_of_a_result_file():
    record = cost.CostRecord(distill_seconds=1.5, flops=10)
    assert json.loads(json.dumps(record.to_json())) == {
        "distill_seconds": 1.5,
        "seconds_per_outer_step": None,
        "evaluate_seconds": None,
        "flops": 10,
        "peak_bytes": None,
        "real_examples": None,
        "distilled_bytes": None,
    }
