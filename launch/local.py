"""Start N processes of one program on this machine, as `jax.distributed` sees them on N hosts.

    launch/local.sh N -- command [argument...]

Each process gets JAXDISTILL_COORDINATOR, JAXDISTILL_NUM_PROCESSES and JAXDISTILL_PROCESS_ID, which
`jaxdistill.parallel.distributed.initialize` reads. What it prints (errors included) goes to standard output with
"[id] " before each line. SIGINT and SIGTERM go on to all of them. When one fails, the others are asked to stop, are
killed JAXDISTILL_GRACE seconds (30) later if they hang in a collective, and its exit status becomes ours.

Only the standard library is used, so that any Python 3 may run it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

USAGE = "usage: launch/local.sh N -- command [argument...]   (N: number of processes, 1 or more)"
POLL_SECONDS = 0.05


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], process_id: int, count: int, port: int) -> subprocess.Popen[str]:
    """Start one process in a session of its own, so that a Ctrl-C of the terminal reaches it once, through us."""
    environment = {
        **os.environ,
        "JAXDISTILL_COORDINATOR": f"127.0.0.1:{port}",
        "JAXDISTILL_NUM_PROCESSES": str(count),
        "JAXDISTILL_PROCESS_ID": str(process_id),
    }
    return subprocess.Popen(
        command,
        env=environment,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def show(process: subprocess.Popen[str], process_id: int) -> None:
    """Copy the output of a process to ours, line by line."""
    assert process.stdout is not None
    for line in process.stdout:
        print(f"[{process_id}] {line}", end="" if line.endswith("\n") else "\n", flush=True)


def to_all(processes: list[subprocess.Popen[str]], number: int) -> None:
    """Send a signal to every process that still runs, and to what it started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, number)


def wait(processes: list[subprocess.Popen[str]], grace: float) -> int:
    """Wait for all; status of the first that failed, else 0. A failure ends the others."""
    status = 0
    kill_at = float("inf")
    while any([process.poll() is None for process in processes]):  # a list: poll every one of them
        failed = [process.returncode for process in processes if process.returncode]
        if failed and not status:
            status = failed[0]
            print(f"local: a process failed with status {status}; stopping the others", file=sys.stderr, flush=True)
            to_all(processes, signal.SIGTERM)
            kill_at = time.monotonic() + grace
        if time.monotonic() > kill_at:
            to_all(processes, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    status = status or next((process.returncode for process in processes if process.returncode), 0)
    return status if status >= 0 else 128 - status


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or not arguments[0].isdigit() or int(arguments[0]) < 1 or arguments[1] != "--":
        print(USAGE, file=sys.stderr)
        return 2
    count, command = int(arguments[0]), arguments[2:]
    processes: list[subprocess.Popen[str]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: to_all(processes, received))
    port = free_port()
    try:
        for process_id in range(count):
            processes.append(start(command, process_id, count, port))
    except OSError as error:
        to_all(processes, signal.SIGKILL)
        print(f"local: cannot start {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 2
    readers = [threading.Thread(target=show, args=(p, i), daemon=True) for i, p in enumerate(processes)]
    for reader in readers:
        reader.start()
    status = wait(processes, float(os.environ.get("JAXDISTILL_GRACE", "30")))
    for reader in readers:
        reader.join(timeout=5)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
