from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import python_environment

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Synthetic
from jaxdistill.io.checkpoints import Checkpoints


def _state(scale: float = 1.0):
    synthetic = Synthetic(inputs=jax.random.normal(jax.random.key(1), (2, 3, 4)) * jnp.float32(scale))
    return {
        "synthetic": synthetic,
        "optimiser": optax.adam(0.1).init(synthetic),
        "key": jax.random.key(7),
        "raw_key": jax.random.PRNGKey(3),
        "odd": np.asarray([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "half": jnp.arange(4, dtype=jnp.bfloat16),
        "step": jnp.int32(5),
    }


def _bits(tree):
    data = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    return [(np.asarray(x).dtype, np.shape(x), np.asarray(x).tobytes()) for x in jax.tree.leaves(data)]


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2, config_hash="a" * 64)


def test_restored_bit_for_bit_from_shapes_alone(checkpoints):
    state = _state()
    checkpoints.save(5, state)
    restored = checkpoints.restore(jax.eval_shape(lambda: state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert _bits(restored) == _bits(state)
    assert jax.random.key_impl(restored["key"]) == jax.random.key_impl(state["key"])


def test_the_newest_are_kept(checkpoints, tmp_path):
    assert checkpoints.latest() is None
    for step in (1, 2, 30):
        checkpoints.save(step, _state(step))
    assert checkpoints.steps() == [2, 30] and checkpoints.latest() == 30
    assert _bits(checkpoints.restore(_state(), step=2)) == _bits(_state(2))
    checkpoints.save(30, _state(4.0))
    assert _bits(checkpoints.restore(_state())) == _bits(_state(4.0))
    assert sorted(child.name for child in (tmp_path / "checkpoints").iterdir()) == ["00000002", "00000030"]


def test_a_half_written_checkpoint_is_never_seen_and_swept(tmp_path, checkpoints):
    checkpoints.save(1, _state())
    half = tmp_path / "checkpoints" / ".jaxdistill-00000002.tmp"
    half.mkdir()
    (half / "metadata.json").write_text("{")
    again = Checkpoints(tmp_path / "checkpoints", config_hash="a" * 64)
    assert again.steps() == [1]
    assert not half.exists()


def _edit(path, change):
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


DAMAGE = {
    "truncated metadata": (lambda f: (f / "metadata.json").write_text('{"schema'), "is damaged: metadata.json"),
    "no metadata": (lambda f: (f / "metadata.json").unlink(), "is damaged: metadata.json cannot be read"),
    "metadata is a list": (lambda f: (f / "metadata.json").write_text("[]"), "is damaged: metadata.json"),
    "wrong hash": (
        lambda f: _edit(f / "metadata.json", lambda m: m["leaves"]["['step']"].update(sha256="0" * 64)),
        r"is damaged: \['step'\] does not have the hash recorded",
    ),
    "other schema": (
        lambda f: _edit(f / "metadata.json", lambda m: m.update(schema=9)),
        "has schema 9; this version of jaxdistill reads schema 1",
    ),
    "other configuration": (
        lambda f: _edit(f / "metadata.json", lambda m: m.update(config_hash="b" * 64)),
        "belongs to another configuration: its fingerprint is bbbbbbbbbbbb, this run's is aaaaaaaaaaaa",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_that_names_the_checkpoint(checkpoints, tmp_path, damage):
    spoil, message = DAMAGE[damage]
    checkpoints.save(1, _state())
    checkpoints.save(2, _state(2.0))
    folder = tmp_path / "checkpoints" / "00000002"
    spoil(folder)
    with pytest.raises(UserError, match=message) as raised:
        checkpoints.restore(_state())
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert _bits(checkpoints.restore(_state(), step=1)) == _bits(_state())


def _truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def _flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("spoil", [_truncate, _flip, os.unlink])
def test_no_damaged_file_changes_what_is_restored(tmp_path, spoil):
    state = {"x": jnp.arange(6000, dtype=jnp.float32), "key": jax.random.key(1)}
    checkpoints, refused = Checkpoints(tmp_path / "checkpoints", config_hash="a"), set()
    whole = tmp_path / "checkpoints" / "00000001"
    checkpoints.save(1, state)
    shutil.copytree(whole, tmp_path / "copy")
    for file in [file.relative_to(whole) for file in whole.rglob("*") if file.is_file()]:
        spoil(whole / file)
        try:
            # orbax also leaves files behind that it does not read.
            assert _bits(checkpoints.restore(state)) == _bits(state)
        except UserError as error:
            assert str(error).startswith(f"checkpoint {whole} is damaged: ") and "\n" not in str(error)
            refused.add(file)
        shutil.rmtree(whole)
        shutil.copytree(tmp_path / "copy", whole)
    largest = max((file for file in whole.rglob("*") if file.is_file()), key=os.path.getsize)
    assert largest.relative_to(whole) in refused and len(refused) >= 3


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": jnp.zeros(3)}, r"another shape: \['x'\] is float32\[2\] there, this run needs float32\[3\]"),
        ({"x": jnp.zeros(2, jnp.int32)}, r"is float32\[2\] there, this run needs int32\[2\]"),
        ({"x": jax.random.key(0)}, r"is float32\[2\] there, this run needs key<fry>\[\]"),
        ({"y": jnp.zeros(2)}, r"another structure: it has besides the leaf \"\['x'\]\""),
        ({"x": jnp.zeros(2), "y": jnp.zeros(2)}, r"another structure: it lacks the leaf \"\['y'\]\""),
    ],
)
def test_another_structure_or_shape_is_one_line(checkpoints, like, message):
    checkpoints.save(1, {"x": jnp.zeros(2)})
    with pytest.raises(UserError, match=message):
        checkpoints.restore(like)


def test_an_absent_checkpoint_is_one_line(checkpoints):
    with pytest.raises(UserError, match="holds no checkpoint; it has steps \\[\\]"):
        checkpoints.restore(_state())
    checkpoints.save(1, {"x": jnp.zeros(2)})
    with pytest.raises(UserError, match="holds no checkpoint of step 4; it has steps \\[1\\]"):
        checkpoints.restore(_state(), step=4)


def test_leaves_must_be_arrays(checkpoints, tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint leaf \['x'\] is a float; expected an array"):
        checkpoints.save(1, {"x": 0.5})
    assert checkpoints.latest() is None


def test_a_full_disk_leaves_the_older_checkpoint(checkpoints, monkeypatch):
    checkpoints.save(1, _state())

    def full(*_args, **_kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: [OS error 28: ENOSPC No space left on device]")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    with pytest.raises(UserError, match="^disk full while writing .*/00000002: "):
        checkpoints.save(2, _state())
    assert checkpoints.steps() == [1]


_ENDLESS = """
import sys
import jax.numpy as jnp
from jaxdistill.io.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], config_hash="a" * 64)
step = checkpoints.latest() or 0
while True:
    step += 1
    checkpoints.save(step, {"x": jnp.full(50_000, step, jnp.float32)})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_newest_checkpoint_is_whole(tmp_path):
    folder, seen = tmp_path / "checkpoints", 0
    for pause in (0.0, 0.013, 0.041):
        child = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(folder)], stdout=subprocess.PIPE, text=True, env=python_environment()
        )
        assert child.stdout is not None
        said = int(child.stdout.readline())
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        checkpoints = Checkpoints(folder, config_hash="a" * 64)
        latest = checkpoints.latest()
        assert latest is not None and latest >= said > seen
        restored = checkpoints.restore({"x": jax.ShapeDtypeStruct((50_000,), jnp.float32)})
        np.testing.assert_array_equal(restored["x"], np.full(50_000, latest, np.float32))
        seen = said
