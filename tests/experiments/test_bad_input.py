"""The table of bad inputs: each gives one clear line and exit status 2, and leaves nothing half-written."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from jaxdistill.methods.base import Stopped
from jaxdistill.pipeline.overrides import load_config, override
from jaxdistill.pipeline.run import run_experiment

SMOKE = str(ROOT / "experiments" / "configs" / "quickstart.py") + ":smoke"
ROWS = [
    (f"{text} number {i}", label)
    for i in range(30)
    for text, label in (("a good film", "good"), ("a bad film", "bad"))
]


def write_csv(folder: Path, **splits) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return folder


def own_data(folder: Path | str, **changes: str) -> list[str]:
    """Flags of a task of one's own."""
    fields = {"name": "mine", "data_dir": str(folder), "text_columns": "text", "label_column": "label"} | changes
    return [f"--config.task.{name}={value}" for name, value in fields.items()]


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run stopped after its first outer step, and the same stopped before its evaluation, with damaged copies."""
    root = tmp_path_factory.mktemp("runs")
    config = override(load_config(SMOKE), {"seed": "3"})
    folder = root / "first_step"
    for step in (1, 2):
        calls = iter(range(10))
        with pytest.raises(Stopped):
            run_experiment(config, folder, stop=lambda calls=calls, step=step: next(calls) >= step - 1, say=silent)
        if step == 1:
            shutil.copytree(folder, root / "other_config")
            shutil.copytree(folder, root / "damaged")
        break
    metadata = next((root / "other_config" / "checkpoints").glob("*/metadata.json"))
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"config_hash": "0" * 64}))
    metadata = next((root / "damaged" / "checkpoints").glob("*/metadata.json"))
    content = json.loads(metadata.read_text())
    next(iter(content["leaves"].values()))["sha256"] = "0" * 64
    metadata.write_text(json.dumps(content))
    return {path.name: path for path in root.iterdir()}
