"""What several tests share: runs in a fresh interpreter, and the run-time type checker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beartype import BeartypeConf, beartype

ROOT = Path(__file__).resolve().parents[1]


# An int is a float, as for static checkers (PEP 484).
_with_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable) -> Callable:
    """The type checker of the jaxtyping import hook: functions are checked, constructors are not.

    A pytree of arrays also has to hold what JAX puts in its place (specs, shapes, batch axes, `None`), and
    configurations refuse wrong types themselves, with a `UserError`.
    """
    return function if function.__name__ == "__init__" else _with_beartype(function)


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
