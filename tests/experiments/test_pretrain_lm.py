"""`experiments.pretrain_lm` as a user types it: its smoke forms, stopping, killing, going on, mistakes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, python_environment

from jaxdistill.pipeline.language_config import LanguageModelConfig
from jaxdistill.pipeline.language_run import run_language_model
from jaxdistill.pipeline.overrides import load_config

CONFIGS = sorted((ROOT / "experiments/configs/language_models").glob("*.py"))
UPDATES = 16


def long_run(folder: Path) -> list[str]:
    """Many quick steps, a checkpoint after each."""
    changes = [f"--config.training.updates={UPDATES}", "--config.checkpoint_seconds=0", "--config.samples.count=1"]
    changes += ["--config.samples.prompts=", "--config.training.selections=3"]
    command = ["-m", "experiments.pretrain_lm", f"--config={CONFIGS[0]}:smoke", f"--workdir={folder}"]
    return [sys.executable, *command, *changes]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(
        arguments, cwd=ROOT, env=python_environment(), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    done = run(long_run(folder))
    assert done.returncode == 0, done.stderr
    assert re.search(rf"perplexity on dev \d+\.\d\d after step \d+ of {UPDATES}", done.stdout)
    assert f"model: {folder / 'model'}" in done.stdout
    assert re.search(rf"step {UPDATES}/{UPDATES}  loss \d", done.stderr)
    return folder


def test_killed_and_stopped_runs_go_on_to_the_same_bits(unbroken, tmp_path):
    folder, environment = tmp_path / "run", python_environment()
    for number, already in ((signal.SIGKILL, 4), (signal.SIGTERM, 9)):
        process = subprocess.Popen(
            long_run(folder), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline, metrics = time.monotonic() + 120, folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= already):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert not (folder / "result.json").exists()
        if number == signal.SIGTERM:
            assert process.returncode == 130 and "the same command goes on from there" in errors
    done = run(long_run(folder))
    assert re.search(rf"resuming at step \d+ of {UPDATES}", done.stdout)
    for name in ("model/model.safetensors", "model/tokenizer.json", "metrics.jsonl", "samples.txt", "tokenizer.json"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name


@pytest.mark.parametrize("path", CONFIGS[1:], ids=lambda path: path.stem)
def test_every_config_has_a_smoke_form_that_runs(path, tmp_path):
    """The first one runs above."""
    config = load_config(f"{path}:smoke", LanguageModelConfig)
    result = run_language_model(config, tmp_path / "run", say=lambda line: None)
    assert result["updates"] == 4 and 1 < result["dev_perplexity"] < 400
    assert (tmp_path / "run/model/model.safetensors").exists()
