"""Mesh, shardings and filling up; the comparison of 8 devices with 1 runs in an interpreter of its own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python
from jax.sharding import PartitionSpec as P

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.parallel import mesh as lib


@pytest.mark.parametrize(
    ("devices", "model", "words"),
    [
        (1000, 1, ["1000 mesh devices", "accepted: 1 to"]),
        (0, 1, ["0 mesh devices", "accepted: 1 to"]),
        (1, 2, ["model axis of 2", "1 mesh devices"]),
        (1, 0, ["model axis of 0"]),
    ],
)
def test_a_mesh_that_cannot_be_is_refused_in_one_line(devices, model, words):
    with pytest.raises(UserError) as caught:
        lib.make_mesh(devices, model)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_filling_an_unpacked_batch():
    batch = Batch(token_ids=np.ones((3, 4), np.int32), mask=np.ones((3, 4), bool), labels=np.array([0, 1, 1], np.int32))
    filled = lib.pad_leading(batch, 4)
    assert filled.token_ids.shape == (4, 4) and filled.mask.dtype == bool
    np.testing.assert_array_equal(filled.mask.any(axis=1), [True, True, True, False])
    np.testing.assert_array_equal(filled.weights, np.array([1, 1, 1, 0], np.float32))
    np.testing.assert_array_equal(filled.labels, [0, 1, 1, 0])


def test_filling_a_packed_batch_keeps_its_weights_and_fills_rows_and_examples_apart():
    batch = Batch(
        token_ids=np.ones((2, 8), np.int32),
        segments=np.ones((2, 8), np.int32),
        starts=np.array([0, 4, 8, 12, 14], np.int32),
        weights=np.array([1, 2, 1, 1, 0], np.float32),
    )
    filled = lib.pad_leading(batch, 4)
    assert filled.token_ids.shape == (4, 8)
    np.testing.assert_array_equal(filled.segments.sum(axis=1), [8, 8, 0, 0])
    np.testing.assert_array_equal(filled.starts, [0, 4, 8, 12, 14, 0, 0, 0])
    np.testing.assert_array_equal(filled.weights, [1, 2, 1, 1, 0, 0, 0, 0])


def test_a_batch_that_fits_is_left_alone():
    batch = Batch(token_ids=np.ones((4, 4), np.int32))
    assert lib.pad_leading(batch, 2) is batch


def test_rules_take_the_first_match_and_replicate_the_rest():
    mesh = lib.make_mesh(1)
    params = {"word": {"table": jnp.zeros((6, 4))}, "layers": {"0": {"kernel": jnp.zeros((4, 4))}}}
    shardings = lib.rule_shardings(mesh, params, [("table$", P("model")), ("word", P(None, "model"))])
    assert shardings["word"]["table"].spec == P("model")
    assert shardings["layers"]["0"]["kernel"].spec == P()


def test_a_rule_with_too_many_axes_is_refused():
    with pytest.raises(UserError, match="does not fit parameter bias of shape"):
        lib.rule_shardings(lib.make_mesh(1), {"bias": jnp.zeros(3)}, [("bias", P(None, "model"))])


def test_keys_keep_their_values():
    keys = jax.random.split(jax.random.key(3), 4)
    np.testing.assert_array_equal(
        jax.random.key_data(lib.shard_leading(lib.make_mesh(1), keys)), jax.random.key_data(keys)
    )


EIGHT = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import PartitionSpec as P
    from jaxdistill.core.errors import UserError
    from jaxdistill.core.types import Batch
    from jaxdistill.parallel import mesh as lib

    rng = np.random.default_rng(0)
    params = {
        "table": rng.normal(size=(16, 6)).astype(np.float32),
        "kernel": rng.normal(size=(6, 3)).astype(np.float32),
    }
    # Packed: 10 rows of 4 positions hold 21 examples; neither number is a multiple of 8 (or of 4).
    batch = Batch(
        token_ids=rng.integers(0, 16, (10, 4)).astype(np.int32),
        starts=rng.permutation(40)[:21].astype(np.int32),
        labels=rng.integers(0, 3, 21).astype(np.int32),
        weights=rng.uniform(0.5, 2, 21).astype(np.float32),
    )

    def loss(params, batch):
        hidden = jnp.tanh(params["table"][batch.token_ids]).reshape(-1, 6)[batch.starts]
        scores = jax.nn.log_softmax(hidden @ params["kernel"])
        picked = jnp.take_along_axis(scores, batch.labels[:, None], axis=1)[:, 0]
        return -jnp.sum(batch.weights * picked) / jnp.sum(batch.weights)

    step = jax.jit(jax.value_and_grad(loss))
    expected = jax.tree.map(np.asarray, step(params, jax.tree.map(jnp.asarray, batch)))
    rules = [("table", P("model")), ("kernel", P("model", None))]
    for model in (1, 2):
        mesh = lib.make_mesh(8, model)
        assert dict(mesh.shape) == {"data": 8 // model, "model": model}
        cut = lib.shard_batch(mesh, batch)
        assert cut.token_ids.shape[0] % (8 // model) == 0
        assert len({str(s.index) for s in cut.labels.addressable_shards}) == 8 // model
        born = lib.init_sharded(lambda key: jax.tree.map(jnp.asarray, params), jax.random.key(0), mesh, rules)
        assert born["table"].addressable_shards[0].data.shape == (16 // model, 6)
        for layout in (lib.put(params, lib.replicated(mesh)), born):
            got = step(layout, cut)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, expected)

    seeds = lib.shard_leading(mesh, jax.random.split(jax.random.key(1), 8))
    assert len({str(s.index) for s in seeds.addressable_shards}) == 4
    for wrong in (lambda: lib.make_mesh(9), lambda: lib.shard_leading(mesh, batch.weights),
                  lambda: lib.rule_shardings(mesh, {"odd": np.zeros(3)}, [("odd", P("model"))])):
        try:
            wrong()
            raise SystemExit("not refused")
        except UserError as error:
            print(error)
"""


def test_eight_devices_agree_with_one():
    lines = run_python(EIGHT, devices=8).splitlines()
    assert lines[0] == "9 mesh devices were asked for, but this run has 8 (cpu); accepted: 1 to 8"
    assert lines[1].startswith("array of shape (21,) cannot be cut over 4 data devices; accepted: a leading axis")
    assert "does not fit parameter odd of shape (3,)" in lines[2]
