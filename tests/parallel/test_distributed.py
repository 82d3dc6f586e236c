"""Several processes on one machine: starting them, what they compute together, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from helpers import ROOT, python_environment

from jaxdistill.core.errors import UserError
from jaxdistill.parallel import distributed

LAUNCHER = [sys.executable, str(ROOT / "launch" / "local.py")]


def launch(count: int, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAUNCHER, str(count), "--", *command],
        env=python_environment(devices=2, **environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_one_process_needs_nothing():
    assert distributed.initialize(environment={}) is False
    assert distributed.initialize("here:1", 1, 0, environment={}) is False
    assert distributed.is_main_process()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("a:1", None, None), {}, "missing: num_processes, process_id"),
        ((None, 2, 1), {}, "missing: coordinator"),
        (("a:1", None, 0), {"JAXDISTILL_NUM_PROCESSES": "two"}, "JAXDISTILL_NUM_PROCESSES='two' is not a number"),
        (("nowhere", 2, 1), {}, "coordinator 'nowhere' is not an address"),
        (("a:1", 2, 2), {}, "process_id 2 does not fit num_processes 2"),
    ],
)
def test_half_a_description_is_refused(arguments, environment, words):
    with pytest.raises(UserError, match=words):
        distributed.initialize(*arguments, environment=environment)


def test_a_coordinator_that_is_not_there_is_named_in_time():
    start = time.monotonic()
    with pytest.raises(UserError, match="process 1 of 2 found nobody at coordinator 127.0.0.1:1 within 1 s"):
        distributed.initialize("127.0.0.1:1", 2, 1, environment={}, timeout_seconds=1)
    assert time.monotonic() - start < 10


TWO = """
    from jaxdistill.parallel import distributed, mesh as lib
    assert distributed.initialize() and distributed.initialize()
    import jax, jax.numpy as jnp, numpy as np
    from jaxdistill.core.errors import UserError
    from jaxdistill.core.types import Batch

    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 4, 2)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 2, 3)).astype(np.float32)
    batch = Batch(embeddings=inputs, labels=rng.normal(size=(6, 1)).astype(np.float32))
    kernel = rng.normal(size=(3, 1)).astype(np.float32)

    def loss(kernel, batch):
        error = jnp.square(batch.embeddings[:, 0] @ kernel - batch.labels)[:, 0]
        return jnp.sum(batch.weights * error) / jnp.sum(batch.weights)

    mesh = lib.make_mesh()
    cut = lib.shard_batch(mesh, batch)
    assert cut.embeddings.shape == (8, 2, 3) and len(cut.embeddings.addressable_shards) == 2
    step = jax.jit(jax.grad(loss), out_shardings=lib.replicated(mesh))
    gradient = step(lib.put(kernel, lib.replicated(mesh)), cut)
    expected = 2 * inputs[:, 0].T @ (inputs[:, 0] @ kernel - np.asarray(batch.labels)) / 6
    np.testing.assert_allclose(np.asarray(gradient), expected, rtol=1e-5)
    try:
        lib.make_mesh(2)
    except UserError as error:
        print(distributed.is_main_process(), error)
"""


def test_two_processes_agree_with_the_closed_form():
    done = launch(2, sys.executable, "-c", textwrap.dedent(TWO))
    assert done.returncode == 0, done.stdout + done.stderr
    refusal = "2 mesh devices were asked for in a run of 2 processes; accepted: all 4 devices"
    assert f"[0] True {refusal}" in done.stdout and f"[1] False {refusal}" in done.stdout


def test_two_processes_run_an_experiment(tmp_path):
    """All devices are used without being asked for; one process evaluates and speaks, the other waits for it."""
    config = ROOT / "experiments" / "configs" / "soft_label" / "trec_bi_lstm.py"
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.distill", f"--config={config}:smoke", f"--workdir={folder}"]
    command += ["--config.learner.name=mlp", "--config.evaluation.baselines="]  # compiled in seconds
    done = launch(2, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert result["test"]["n"] == 2 and (folder / "report.html").exists()
    assert f"[0] report: {folder / 'report.html'}" in done.stdout.splitlines()
    assert not [line for line in done.stdout.splitlines() if line.startswith("[1] ") and "distilled set" in line]
    again = launch(2, *command)
    assert again.returncode == 0 and "holds the finished result" in again.stdout


def test_the_launcher_numbers_processes_and_their_output():
    done = launch(2, "sh", "-c", "echo $JAXDISTILL_PROCESS_ID of $JAXDISTILL_NUM_PROCESSES")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["[0] 0 of 2", "[1] 1 of 2"]


def test_a_process_that_fails_ends_the_others():
    start = time.monotonic()
    script = "trap : TERM; if [ $JAXDISTILL_PROCESS_ID = 1 ]; then exit 3; fi; sleep 60; sleep 60"
    done = launch(2, "sh", "-c", script, JAXDISTILL_GRACE="1")
    assert done.returncode == 3
    assert "a process failed with status 3" in done.stderr
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on(number):
    script = "trap 'echo stopped; exit 0' TERM INT; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*LAUNCHER, "2", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline().endswith("ready\n")
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert {"[0] stopped", "[1] stopped"} <= set(output.splitlines())
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [[], ["0", "--", "true"], ["two", "--", "true"], ["2", "true", "x"]])
def test_the_launcher_refuses_what_it_does_not_understand(arguments):
    done = subprocess.run([*LAUNCHER, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: launch/local.sh N -- command")


def test_the_shell_script_calls_the_launcher():
    command = [str(ROOT / "launch" / "local.sh"), "1", "--", "echo", "hello"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[0] hello\n")


def test_a_program_that_is_not_there_is_named():
    done = launch(2, "no-such-program")
    assert done.returncode == 2 and "cannot start 'no-such-program'" in done.stderr
