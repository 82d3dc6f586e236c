"""The table of bad inputs: each gives one clear line and exit status 2, and leaves nothing half-written."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT, python_environment
from safetensors.numpy import load_file, save_file

from jaxdistill.core.errors import UserError
from jaxdistill.io.distilled import load_distilled
from jaxdistill.io.workdir import open_workdir
from jaxdistill.methods.base import Stopped
from jaxdistill.pipeline.overrides import load_config, override
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.run import identity, run_experiment

SMOKE = str(ROOT / "experiments" / "configs" / "quickstart.py") + ":smoke"
ROWS = [
    (f"{text} number {i}", label) for i in range(30) for text, label in (("a good film", "good"), ("a bad film", "bad"))
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


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Run folders `step_1` (stopped after the first of two outer steps), copies of it whose checkpoint is of another
    configuration or damaged, and `set` with copies of a distilled set, each bad in its own way."""
    root = tmp_path_factory.mktemp("runs")
    config = load_config(SMOKE)
    for name in ("step_1", "step_2"):
        with pytest.raises(Stopped):
            run_experiment(config, root / "run", stop=lambda: True, say=silent)
        shutil.copytree(root / "run", root / name)
    for name, change in {
        "other_config": lambda metadata: metadata.update(config_hash="0" * 64),
        "damaged": lambda metadata: next(iter(metadata["leaves"].values())).update(sha256="0" * 64),
    }.items():
        shutil.copytree(root / "step_1", root / name)
        change_json(next((root / name / "checkpoints").glob("*/metadata.json")), change)

    arrays = "arrays.safetensors"
    for name, change in {
        "schema": lambda manifest: manifest.update(schema=99),
        "shape": lambda manifest: manifest["arrays"]["synthetic.labels"].update(shape=[2, 3]),
        "hash": lambda manifest: manifest["files"][arrays].update(sha256="0" * 64),
        "settings": lambda manifest: manifest["config"].update(per_class="two"),
        "infinite": lambda manifest: None,
    }.items():
        shutil.copytree(root / "step_2" / "distilled", root / "set" / name)
        change_json(root / "set" / name / "manifest.json", change)
    folder = root / "set" / "infinite"
    tensors = load_file(folder / arrays)
    tensors["synthetic.inputs"][0, 0, 0] = np.inf
    save_file(tensors, folder / arrays)
    data = (folder / arrays).read_bytes()
    recorded = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change_json(folder / "manifest.json", lambda manifest: manifest["files"].update({arrays: recorded}))
    (root / "set" / "empty").mkdir()
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Folders of csv files, one good and the others bad in one way each."""
    root = tmp_path_factory.mktemp("data")
    write_csv(root / "good", train=ROWS, test=ROWS[:10])
    write_csv(root / "no_split", other=ROWS)
    write_csv(root / "empty_split", train=ROWS, test=[])
    write_csv(root / "outside", train=ROWS, test=[("a text", "ugly")])
    write_csv(root / "three", train=[*ROWS, ("so so", "fair"), ("medium", "fair")], test=ROWS[:10])
    write_csv(root / "latin", train=ROWS)
    (root / "latin" / "test.csv").write_bytes("text,label\nun café,good\n".encode("latin-1"))
    (root / "nothing").mkdir()
    return root


# What is wrong: (command, further arguments, words of the error line). {data}, {runs} and {w}, a workdir that is not
# there, are filled in; a command without --workdir or --distilled gets {w}.
TABLE = {
    "task": ("distill", ["--config.task.name=ag_new"], "unknown task 'ag_new': did you mean ag_news"),
    "method": ("distill", ["--config.method=k_mean"], "unknown method 'k_mean' (did you mean 'k_means'?)"),
    "adjoint": ("distill", ["--config.settings.outer.adjoint=mix"], "unknown adjoint 'mix'"),
    "field": ("distill", ["--config.settings.per_clas=2"], "unknown field config.settings.per_clas (did you mean"),
    "type": ("distill", ["--config.settings.per_class=two"], "per_class is 'two': accepted is a whole number"),
    "value": ("distill", ["--config.seed=-1"], "seed is -1"),
    "keep": (
        "distill",
        ["--config.method=el2n", "--config.settings.scoring.keep=hardest"],
        "scoring.keep is 'hardest': accepted are easy, middle, hard",
    ),
    "visits": (
        "distill",
        ["--config.method=forgetting", "--config.settings.scoring.epochs=1"],
        "scoring.epochs is 1.0: a text can be forgotten at its second visit",
    ),
    "temperature": (
        "distill",
        ["--config.method=teacher_labels", "--config.settings.temperatures=1,0"],
        "temperatures is (1.0, 0.0): accepted is one number above 0, or several",
    ),
    "groups": (
        "distill",
        ["--config.method=fair", "--config.settings.length=8"],
        "fair distillation needs the group of each example, and toy/reviews has none",
    ),
    "term": (
        "distill",
        ["--config.method=fair", "--config.settings.adversary=-1"],
        "adversary is -1.0: accepted is a weight from 0",
    ),
    "term in words": ("distill", ["--config.method=fair", "--config.settings.adversary=False"], "adversary is 'False'"),
    "balance": (
        "distill",
        ["--config.task.balance.objective=fair"],
        "unknown task.balance.objective 'fair': accepted are none, stratified_y",
    ),
    "balance without groups": (
        "distill",
        ["--config.task.balance.objective=joint"],
        "task.balance needs the group of each example, and toy/reviews has none",
    ),
    "groupwise": (
        "distill",
        ["--config.method=gradient_matching", "--config.settings.length=8", "--config.settings.groupwise=true"],
        "groupwise matching needs groups, and toy/reviews has none",
    ),
    "share": ("distill", ["--config.task.name=toy/reviews:2"], "task 'toy/reviews:2': behind toy/reviews: stands"),
    "vectors": (
        "distill",
        ["--config.task.name=toy/bias"],
        "task 'toy/bias' is of vectors: learner.name is 'tiny', accepted is mlp",
    ),
    "label start": (
        "distill",
        ["--config.method=soft_label", "--config.settings.label_start=half"],
        "label_start is 'half': accepted are one_hot, inverted",
    ),
    "threshold": (
        "distill",
        ["--config.learner.name=mlp", "--config.learner.words.vectors=tiny", "--config.learner.network.threshold=nan"],
        "threshold is nan: accepted is a finite number",
    ),
    "baseline": ("distill", ["--config.evaluation.baselines=el2m"], "unknown baseline 'el2m': accepted are random"),
    "config": ("distill", ["--config=nowhere.py"], "config file 'nowhere.py' does not exist"),
    "change": ("distill", ["--config.seed"], "--config.seed has no value"),
    "flag": ("distill", ["--colour=red"], "Unknown command line flag 'colour'"),
    "argument": ("distill", ["stray"], "unexpected argument 'stray'"),
    "folder": ("distill", own_data("{data}/nowhere"), "nowhere' does not exist"),
    "file": ("distill", own_data("{data}/nothing"), "nothing: no "),
    "column": ("distill", own_data("{data}/good", label_column="stars"), "good/test.csv: no column 'stars'"),
    "split": ("distill", own_data("{data}/no_split"), "no split 'test' or 'validation'"),
    "empty split": ("distill", own_data("{data}/empty_split"), "test.csv: the split is empty"),
    "label": ("distill", own_data("{data}/outside"), "row 1: label 'ugly' is outside the classes"),
    "class": (
        "distill",
        [*own_data("{data}/three"), "--config.method=random", "--config.settings.per_class=2"],
        "class 'fair' has 1 training examples, 2 per class asked",
    ),
    "encoding": ("distill", own_data("{data}/latin"), "latin/test.csv"),
    "learner": ("distill", ["--config.learner.name=nobody/nothing"], "nobody/nothing"),
    "hub": ("distill", ["--config.task.name=sst2"], "task 'sst2' is nowhere to be found"),
    "devices": ("distill", ["--config.devices=99"], "99 mesh devices were asked for"),
    "recipe": ("distill", ["--config.evaluation.train_by=recipe"], "'attention_label' makes vectors, not texts"),
    "schedule": (
        "distill",
        ["--config.method=random", "--config.evaluation.train_by=schedule"],
        "'random' learns no step sizes here",
    ),
    "checkpoint of another run": ("distill", ["--workdir={runs}/other_config"], "belongs to another configuration"),
    "damaged checkpoint": ("distill", ["--workdir={runs}/damaged"], "is damaged"),
    "workdir": ("distill", ["--workdir={runs}/step_1", "--config.seed=7"], "holds another run: seed is 0 there and 7"),
    "workdir of something else": ("distill", ["--workdir={data}/good"], "so it is not a run folder"),
    "no set": ("evaluate", ["--distilled={runs}/set/nowhere"], "is not a folder"),
    "not a set": ("evaluate", ["--distilled={runs}/set/empty"], "has no manifest.json"),
    "schema": ("evaluate", ["--distilled={runs}/set/schema"], "has schema 99"),
    "shape": ("evaluate", ["--distilled={runs}/set/shape"], "array 'synthetic.labels' is"),
    "hash": ("evaluate", ["--distilled={runs}/set/hash"], "arrays.safetensors has hash"),
    "settings": ("evaluate", ["--distilled={runs}/set/settings"], "per_class is 'two': accepted is a whole number"),
    "not finite": ("evaluate", ["--distilled={runs}/set/infinite"], "synthetic.inputs holds 1 non-finite numbers"),
    "classes": ("evaluate", ["--distilled={runs}/step_2/distilled", *own_data("{data}/good")], "they must be the same"),
    "disk full at the start": ("distill", ["full_disk=config.json"], "disk full while writing"),
    "disk full later": ("distill", ["--workdir={runs}/step_1", "full_disk=distilled"], "disk full while writing"),
}


@pytest.fixture(scope="module")
def answers(runs, data, tmp_path_factory) -> dict[str, dict]:
    """What each command of the table said, all run in one process."""
    root = tmp_path_factory.mktemp("table")
    rows = []
    for number, (module, arguments, _) in enumerate(TABLE.values()):
        given = [text.format(data=data, runs=runs) for text in arguments]
        row = {"module": module, "watch": "", "arguments": [a for a in given if not a.startswith("full_disk=")]}
        row |= dict(a.split("=") for a in given if a.startswith("full_disk="))
        if module == "distill" and not any(a.startswith("--workdir") for a in given):
            row["arguments"].append(f"--workdir={root / str(number)}")
        if not any(a.startswith("--config=") for a in given):
            row["arguments"].insert(0, f"--config={SMOKE}")
        folders = ("--workdir=", "--distilled=")
        row["watch"] = next(a.partition("=")[2] for a in row["arguments"] if a.startswith(folders))
        rows.append(row)
    (root / "rows.json").write_text(json.dumps(rows))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("many_commands.py")), str(root / "rows.json")],
        cwd=ROOT,
        env={k: v for k, v in python_environment().items() if k != "JAXDISTILL_DATA"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.rpartition("ROWS ")[2])
    return dict(zip(TABLE, results, strict=True))


def test_other_texts_make_another_run(tmp_path):
    """The same command on data that were edited meanwhile must not go on with what the old data gave."""
    folder = write_csv(tmp_path / "data", train=ROWS, test=ROWS[:10])
    changes = dict(flag.removeprefix("--config.").split("=") for flag in own_data(folder))
    config = override(load_config(SMOKE), changes)
    open_workdir(tmp_path / "run", identity(config, prepare(config.task, config.learner)))
    write_csv(folder, train=[*ROWS[:-1], ("a poor film", "bad")], test=ROWS[:10])
    with pytest.raises(UserError, match="holds another run: source_hash is"):
        run_experiment(config, tmp_path / "run", say=silent)


@pytest.mark.parametrize("name", TABLE)
def test_one_line_and_status_2(answers, name):
    answer = answers[name]
    lines = answer["err"].splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert answer["status"] == 2, answer["err"]
    assert len(errors) == 1 and lines[-1] == errors[0] and TABLE[name][2] in errors[0], answer["err"]
    assert "Traceback" not in answer["err"]
    # A run that went on before the disk was full keeps what it had, whole.
    assert answer["unchanged"] or name == "disk full later"


def test_what_a_full_disk_interrupted_goes_on(answers, runs):
    assert "disk full" in answers["disk full later"]["err"]
    assert not (runs / "step_1" / "distilled").exists()
    with pytest.raises(Stopped, match="while evaluating"):
        run_experiment(load_config(SMOKE), runs / "step_1", stop=lambda: True, say=silent)
    folders = [runs / name / "distilled" / "arrays.safetensors" for name in ("step_1", "step_2")]
    assert folders[0].read_bytes() == folders[1].read_bytes()


def test_own_data_is_distilled_and_what_is_odd_is_said(tmp_path):
    """Empty texts are kept and long ones truncated; both are counted, on the screen and in the result."""
    odd = [("", "good"), ("   ", "bad"), ("word " * 100, "good")]
    folder = write_csv(tmp_path / "data", train=ROWS, test=[*ROWS[:10], *odd])
    arguments = [f"--config={SMOKE}", f"--workdir={tmp_path / 'run'}", *own_data(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.distill", *arguments, "--config.task.max_length=500"],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for note in (
        "empty texts are kept: 2 in test",
        "test: 1 of 13 texts were truncated to 128 tokens",
        "max_length 500 is lowered to the learner's 128 positions",
    ):
        assert note in result["notes"] and f"note: {note}" in done.stdout.splitlines()
    assert result["task"] == "mine" and load_distilled(tmp_path / "run" / "distilled").label_names == ("bad", "good")
