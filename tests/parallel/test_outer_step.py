"""Eight devices and two processes give the results of one device, for the outer step and for evaluation."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from helpers import ROOT, python_environment, run_python

PROGRAM = """
    import sys
    import jax, numpy as np
    from jaxdistill.parallel.distributed import initialize
    initialize()
    from jaxdistill.methods.attention_label import AttentionLabel, METHOD
    from jaxdistill.methods.base import Run
    from jaxdistill.methods.meta_learning import Outer
    from jaxdistill.parallel.mesh import make_mesh
    from jaxdistill.pipeline.config import LearnerConfig, TaskConfig
    from jaxdistill.pipeline.prepare import prepare

    problem = prepare(TaskConfig(name="toy/reviews", max_length=32), LearnerConfig(name="tiny"))
    config = AttentionLabel(length=12, outer=Outer(updates=3, batch_size=16, selections=1))
    mesh = make_mesh() if len(jax.devices()) > 1 else None

    class Metrics(list):
        def write(self, step, values):
            self.extend((values["loss"], values["gradient_norm"]))

        def flush(self): pass
        def close(self): pass

    metrics = Metrics()
    run = Run(mesh=mesh, say=lambda line: None, make_writer=lambda start: metrics)
    made = METHOD.distill(config, problem, key=jax.random.key(0), run=run)
    score = made.manifest["selection"]["score"]
    if jax.process_count() == 1:
        from jaxdistill.pipeline.evaluate import Evaluator
        spec = METHOD.inner_spec(config, 2)
        evaluator = Evaluator(problem, jax.random.key(1), mesh=mesh)
        scores = evaluator.by_schedule("set", made, spec, range(5))
        print("SCORES", *(made.score for made in scores))
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(made.synthetic)])
    values = [float(x) for x in (*metrics, *flat[::7])]
    print("RESULT", len(jax.devices()), repr(score), *map(repr, values))
"""


def scores(output: str) -> list[float]:
    line = next(line for line in output.splitlines() if line.startswith("SCORES"))
    return [float(x) for x in line.split()[1:]]


def parse(output: str) -> tuple[int, float, list[float]]:
    line = next(line for line in output.splitlines() if "RESULT" in line)
    _, devices, score, *values = line[line.index("RESULT") :].split()
    return int(devices), float(score), [float(v) for v in values]


@pytest.fixture(scope="module")
def one_device():
    return run_python(PROGRAM, devices=1)


def check(found, expected, devices):
    assert found[0] == devices
    assert found[1] == pytest.approx(expected[1], abs=0.01)
    # Losses and gradient norms of the three steps: what Adam and the clipping leave of a gradient would not show that
    # it was summed over devices where it should be averaged.
    assert found[2][:6] == pytest.approx(expected[2][:6], rel=1e-3)
    # Adam turns rounding differences of tiny gradients into visible ones, at most a small share of its step of 0.01.
    assert found[2][6:] == pytest.approx(expected[2][6:], abs=1e-4)


def test_eight_devices_give_the_result_of_one(one_device):
    output = run_python(PROGRAM, devices=8)
    check(parse(output), parse(one_device), 8)
    assert len(scores(output)) == 5
    assert scores(output) == pytest.approx(scores(one_device), abs=0.01)


def test_two_processes_give_the_result_of_one(one_device, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    command = ["bash", str(ROOT / "launch" / "local.sh"), "2", "--", sys.executable, str(script)]
    done = subprocess.run(
        command, env=python_environment(), cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    check(parse(done.stdout), parse(one_device), 2)
