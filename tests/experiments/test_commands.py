"""The command lines as a user types them: exit status and one line for each mistake, stopping, killing, going on."""

from __future__ import annotations

import dataclasses
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, python_environment

from jaxdistill.pipeline.overrides import load_config

QUICKSTART = "experiments/configs/quickstart.py:smoke"


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"experiments.{module}", *arguments]


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(module, *arguments),
        cwd=ROOT,
        env=python_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    done = run("distill", f"--config={QUICKSTART}", f"--workdir={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_distill_prints_the_result_and_where_the_report_is(finished):
    folder, done = finished
    assert "toy/reviews, accuracy on test, 1 a class" in done.stdout
    assert "minus random" in done.stdout
    assert f"report: {folder / 'report.html'}" in done.stdout
    assert re.search(r"outer step 2/2  loss \d", done.stderr)


def test_evaluate_scores_the_folder_again(finished):
    folder, done = finished
    again = run("evaluate", f"--config={QUICKSTART}", f"--distilled={folder / 'distilled'}")
    assert again.returncode == 0, again.stderr
    mean = re.search(r"attention_label\s+(\d+\.\d)", done.stdout).group(1)
    assert f"accuracy on test of toy/reviews: {mean}" in again.stdout


def test_dry_run_trains_nothing():
    done = run("distill", f"--config={QUICKSTART}", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "GFLOP" in done.stdout and "MiB" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [([], "--config is missing"), ([f"--config={QUICKSTART}"], "--workdir is missing")],
)
def test_mistakes_end_in_one_line_and_status_2(arguments, message):
    """As a process of its own; the table of mistakes is in `test_bad_input`."""
    done = run("distill", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr


UPDATES = 20


def long_run(folder: Path) -> list[str]:
    """Many quick steps of a perceptron, a checkpoint after each."""
    changes = [f"--config.settings.outer.updates={UPDATES}", "--config.settings.outer.selections=4"]
    changes += ["--config.checkpoint_seconds=0", "--config.evaluation.baselines=", "--config.evaluation.students=1"]
    return command("distill", "--config=experiments/configs/fair/toy_bias.py:smoke", f"--workdir={folder}", *changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    subprocess.run(long_run(folder), cwd=ROOT, env=python_environment(), check=True, capture_output=True, timeout=300)
    return folder


def wait_for_steps(process: subprocess.Popen, folder: Path, count: int) -> None:
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_stopped_runs_go_on_to_the_same_bits(unbroken, tmp_path):
    """Ends at random moments, among them the middle of saving a checkpoint; kill -9 leaves no time to say a word."""
    rng, folder, environment = random.Random(0), tmp_path / "run", python_environment()
    for number, already in ((signal.SIGKILL, 2), (signal.SIGTERM, 6), (signal.SIGKILL, 10), (signal.SIGINT, 14)):
        process = subprocess.Popen(
            long_run(folder), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for_steps(process, folder, already)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert not (folder / "result.json").exists()
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert "the same command goes on from there" in errors and "Traceback" not in errors
    done = subprocess.run(long_run(folder), cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert re.search(rf"resuming at outer step \d+ of {UPDATES}", done.stdout)
    for name in ("distilled/arrays.safetensors", "metrics.jsonl", "scores.json"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_another_run_in_the_folder_is_refused(unbroken):
    done = subprocess.run(
        [*long_run(unbroken), "--config.seed=5"], cwd=ROOT, env=python_environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "holds another run: seed is 0 there and 5 here" in done.stderr


def form_of(config) -> str:
    """What a run of a configuration compiles, in words; a first step size is but a number in an array."""
    settings = config.settings
    if hasattr(settings, "initial_lr"):
        settings = dataclasses.replace(settings, initial_lr=1.0)
    return repr(dataclasses.replace(config, settings=settings))


def test_every_config_has_a_smoke_form_that_runs(tmp_path):
    """One process runs them all: each resolves, takes two outer steps and reports. Equal smoke forms run once, and what
    stands beside a method in its evaluation only with the first form of each method and learner."""
    configs = sorted(p for p in (ROOT / "experiments/configs").rglob("*.py") if p.name != "__init__.py")
    # See `test_pretrain_lm`, `test_train_classifier`, `test_attribute_run`, `test_inverter_run`.
    elsewhere = ("language_models", "classifiers", "unidetox", "inverters")
    configs = [path for path in configs if path.parent.name not in elsewhere]
    forms = {form_of(load_config(f"{path}:smoke")): path for path in configs}
    assert len(forms) >= 3
    configs = list(forms.values())
    code = (
        "import sys\n"
        "from jaxdistill.pipeline.overrides import load_config\n"
        "from jaxdistill.pipeline.run import run_experiment\n"
        "from dataclasses import replace\n"
        "met = set()\n"
        "for i, path in enumerate(sys.argv[2:]):\n"
        "    config = load_config(path + ':smoke')\n"
        "    if (pair := (config.method, config.learner.name)) in met:\n"
        "        alone = replace(config.evaluation, baselines=(), full_epochs=0.0, targets=())\n"
        "        config = replace(config, evaluation=alone)\n"
        "    met.add(pair)\n"
        "    result = run_experiment(config, f'{sys.argv[1]}/{i}', say=lambda line: None)\n"
        "    print('OK', path, result['test']['n'])\n"
    )
    paths = [str(path) for path in configs]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *paths],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("OK")] == [[p, "2"] for p in paths]


def test_every_command_of_the_readme_names_things_that_exist():
    """Targets, modules, files and flags of the README's commands; what they do is tested elsewhere in this file."""
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    modules = re.findall(r"python -m (experiments\.\w+)", text)
    assert {"experiments.distill", "experiments.evaluate"} <= set(modules)
    for module in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    for path in re.findall(r"\]\((docs/[\w./]+)\)", text) + re.findall(r"--config=(\S+\.py)", text):
        assert (ROOT / path).exists(), path


def test_the_python_of_the_readme_runs(tmp_path):
    """As printed, but with the tiny learner and two steps."""
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert len(code.strip().splitlines()) <= 12
    code = code.replace('name="minilm"', 'name="tiny"').replace("updates=100", "updates=2")
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=python_environment(),
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert (tmp_path / "reviews_in_two_samples" / "manifest.json").exists()
