"""`experiments.pretrain_lm` as a user types it: its smoke forms, stopping, killing, going on."""

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
from jaxdistill.pipeline.overrides import load_config, override

CONFIGS = sorted((ROOT / "experiments/configs/language_models").glob("*.py"))
SHAKESPEARE = ROOT / "experiments/configs/language_models/shakespeare.py"
UPDATES = 10
REVIEWS = [f"the {noun} was {word} ." for noun in ("film", "book", "food", "plot") for word in ("good", "bad", "so so")]


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """Many quick steps on a few texts, a checkpoint after each."""
    texts = tmp_path_factory.mktemp("texts") / "reviews.txt"
    texts.write_text("\n\n".join(REVIEWS * 4))
    changes = {"training.updates": str(UPDATES), "training.rows": "2", "checkpoint_seconds": "0", "samples.count": "1"}
    return changes | {"samples.prompts": "", "training.selections": "3", "corpus.sources": str(texts)}


def config_of(changes: dict[str, str]) -> LanguageModelConfig:
    return override(load_config(f"{SHAKESPEARE}:smoke", LanguageModelConfig), changes)


@pytest.fixture(scope="module")
def unbroken(changes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    run_language_model(config_of(changes), folder, say=lambda line: None)
    return folder


def start(folder: Path, changes: dict[str, str]) -> subprocess.Popen:
    """The command as a process of its own."""
    flags = [f"--config={SHAKESPEARE}:smoke", f"--workdir={folder}"]
    flags += [f"--config.{name}={value}" for name, value in changes.items()]
    command, pipe = [sys.executable, "-m", "experiments.pretrain_lm", *flags], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=python_environment(), stdout=pipe, stderr=pipe, text=True)


def test_killed_and_stopped_runs_go_on_to_the_same_bits(unbroken, changes, tmp_path):
    folder = tmp_path / "run"
    metrics = folder / "metrics.jsonl"
    for number, already in ((signal.SIGKILL, 3), (signal.SIGTERM, 6)):
        process, deadline = start(folder, changes), time.monotonic() + 120
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= already):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert not (folder / "result.json").exists()
        if number == signal.SIGTERM:
            assert process.returncode == 130 and "the same command goes on from there" in errors
            assert re.search(rf"step \d+/{UPDATES}  loss \d", errors)
    lines = []  # the same call as the command's, without starting JAX once more
    run_language_model(config_of(changes), folder, say=lines.append)
    output = "\n".join(lines)
    assert re.search(rf"resuming at step \d+ of {UPDATES}", output)
    assert re.search(rf"perplexity on dev \d+\.\d\d after step \d+ of {UPDATES}", output)
    assert f"model: {folder / 'model'}" in output
    for name in ("model/model.safetensors", "model/tokenizer.json", "metrics.jsonl", "samples.txt", "tokenizer.json"):
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes(), name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_a_smoke_form_that_runs(path, tmp_path):
    config = load_config(f"{path}:smoke", LanguageModelConfig)
    result = run_language_model(config, tmp_path / "run", say=lambda line: None)
    assert result["updates"] == 4 and 1 < result["dev_perplexity"] < 400
    assert (tmp_path / "run/model/model.safetensors").exists()
