"""Starting a run of several processes."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import jax

from jaxdistill.core.errors import UserError

COORDINATOR = "JAXDISTILL_COORDINATOR"
NUM_PROCESSES = "JAXDISTILL_NUM_PROCESSES"
PROCESS_ID = "JAXDISTILL_PROCESS_ID"
# Process 0 alone evaluates, for hours on a large task; the others wait for it when they end, and jax gives up after
# five minutes by default.
SHUTDOWN_SECONDS = 86_400


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: int = 120,
) -> bool:
    """Join the processes of a run; call it before anything of JAX touches a device.

    Where nothing is given and the environment says nothing, the run has this one process and nothing happens.
    Repeated calls do nothing.

    Args:
      coordinator: "host:port" of process 0, or "auto" where the cluster tells JAX all three (Slurm, TPU pods).
      num_processes: how many processes there are.
      process_id: which one this is, from 0.
      environment: where to look for what is `None`, under JAXDISTILL_COORDINATOR, JAXDISTILL_NUM_PROCESSES and
        JAXDISTILL_PROCESS_ID (`launch/local.sh` sets them); `os.environ` by default.
      timeout_seconds: how long to wait for the others.

    Returns:
      True when several processes are joined.

    Raises:
      UserError: one of the three is missing or out of range, or process 0 cannot be reached in time. (When process 0
        waits in vain for the others, JAX ends the process itself, with DEADLINE_EXCEEDED.)
    """
    if jax.distributed.is_initialized():
        return True
    environment = os.environ if environment is None else environment
    coordinator = coordinator or environment.get(COORDINATOR)
    if coordinator == "auto":
        jax.distributed.initialize(initialization_timeout=timeout_seconds, shutdown_timeout_seconds=SHUTDOWN_SECONDS)
        return True
    count = _number(num_processes, NUM_PROCESSES, environment)
    index = _number(process_id, PROCESS_ID, environment)
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return False
    if coordinator is None or count is None or index is None:
        raise UserError(
            "a run of several processes needs coordinator, num_processes and process_id; "
            f"missing: {', '.join(missing)} (flags, or {COORDINATOR}, {NUM_PROCESSES}, {PROCESS_ID} of the environment)"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f'coordinator {coordinator!r} is not an address; accepted: "host:port" or "auto"')
    if not 0 <= index < count:
        raise UserError(f"process_id {index} does not fit num_processes {count}; accepted: 0 to num_processes - 1")
    if count == 1:
        return False
    if index > 0:
        _await_listener(host, int(port), timeout_seconds, f"process {index} of {count}")
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        initialization_timeout=timeout_seconds,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
    )
    return True


def _await_listener(host: str, port: int, timeout_seconds: float, who: str) -> None:
    """Wait until process 0 listens. JAX, left to find nobody there, aborts the interpreter with a stack trace."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{who} found nobody at coordinator {host}:{port} within {timeout_seconds} s "
                    f"({error.strerror or error}); accepted: the address of a running process 0"
                ) from None
        time.sleep(0.1)


def _number(value: int | None, variable: str, environment: Mapping[str, str]) -> int | None:
    if value is not None or not environment.get(variable):
        return value
    try:
        return int(environment[variable])
    except ValueError:
        raise UserError(f"{variable}={environment[variable]!r} is not a number; accepted: an integer") from None


def is_main_process() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0
