"""What several tests share: refusals, model folders, derivatives, runs in a fresh interpreter."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxdistill.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def derivative_along(function: Callable[[Any], float], value: Any, direction: Any, h: float) -> float:
    """Central difference of fourth order of a function of an array, along a direction of its shape."""

    def at(shift: float) -> float:
        return float(function(value + shift * direction))

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def python_environment(*, devices: int = 1, **extra: str) -> dict[str, str]:
    """Environment of a child interpreter with that many CPU devices and this checkout importable."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
    # Eight devices on two busy cores may wait long for each other; XLA ends the process after 40 seconds.
    flags += ["--xla_cpu_collective_call_terminate_timeout_seconds=600"] if devices > 1 else []
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"]),
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def run_python(code: str, *, devices: int = 1, timeout: float = 240, **extra: str) -> str:
    """Standard output of `code` in a fresh interpreter.

    Args:
      code: Python source; common indentation is removed.
      devices: number of CPU devices XLA shall pretend to have.
      timeout: seconds.
      **extra: further environment variables.

    Raises:
      AssertionError: the interpreter failed; its standard error is the message.
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = python_environment(devices=devices, **extra)
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask_silent_hub(code: str, cache: Path, **extra: str) -> tuple[int, str]:
    """(seconds, message) of the `UserError` that `code` ends in while the hub accepts connections and never answers.

    The client reads its settings when it is imported, so this takes a fresh interpreter, with an empty cache.
    """
    program = f"""
import time
from jaxdistill.core.errors import UserError
start = time.monotonic()
try:
    {code}
except UserError as error:
    print(round(time.monotonic() - start), error)
"""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        out = run_python(program, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", HF_HOME=str(cache), **extra)
    seconds, message = out.split(maxsplit=1)
    return int(seconds), message


@contextlib.contextmanager
def refused(message: str) -> Iterator[None]:
    """What runs in here raises a `UserError` of one line that holds `message`."""
    with pytest.raises(UserError) as caught:
        yield
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def same_arrays(a: Any, b: Any) -> None:
    """The same numbers in the same pytree."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Replace the tensors of a model folder by `change(tensors)`."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def shard_tensors(folder: Path, first: int) -> None:
    """Cut the weight file of a model folder in two, the first with that many tensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for i, part in enumerate((sorted(tensors)[:first], sorted(tensors)[first:])):
        name = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


class Log:
    """A metric writer that keeps the metrics it is given."""

    def __init__(self):
        self.rows = []

    def write(self, step, values):
        self.rows.append(values)

    def flush(self):
        pass

    def close(self):
        pass
