"""Audits of distilled-set folders: texts, learned vectors, private sets; what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT, python_environment

from jaxdistill.core.errors import UserError
from jaxdistill.data.splits import Split
from jaxdistill.io.distilled import load_distilled, save_distilled
from jaxdistill.methods.base import WITHHELD, Run
from jaxdistill.methods.coreset import Coreset, set_of
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline import audit
from jaxdistill.pipeline.audit import AuditSettings, audit_folder
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.release_audit import audit_releases
from jaxdistill.privacy.accounting import Budget, Ledger, Release, calibrate

CONFIG = ExperimentConfig(
    task=TaskConfig(name="toy/reviews", max_length=24),
    learner=LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny")),
    method="random",
    settings=Coreset(per_class=2),
    evaluation=EvaluationConfig(),
)
CONFIG = dataclasses.replace(
    CONFIG,
    evaluation=dataclasses.replace(
        CONFIG.evaluation, recipe=dataclasses.replace(CONFIG.evaluation.recipe, steps=3, lr=1e-3)
    ),
)
SETTINGS = AuditSettings(records=30, students=2, references=3, draws=400, canaries=10)
SIGMA = calibrate(Budget(1.0, 1e-5))


def quiet(line):
    pass


@pytest.fixture(scope="module")
def problem():
    return prepare(CONFIG.task, CONFIG.learner)


@pytest.fixture(scope="module")
def chosen(problem):
    """Random training texts."""
    method = method_named("random")
    return method.distill(method.config(per_class=2), problem, key=jax.random.key(0), run=Run(say=quiet))


def saved(distilled, folder, **facts):
    save_distilled(folder, dataclasses.replace(distilled, manifest=distilled.manifest | facts))
    return folder


def privacy(**changes):
    ledger = Ledger(Budget(1.0, 1e-5))
    ledger.charge(Release("0", "sums", SIGMA))
    facts = {"mode": "gaussian", "guarantee": "some", "sigma": SIGMA, "numbers_a_class": 8, "ledger": ledger.to_json()}
    return {"privacy": facts | changes}


def test_an_audit_of_texts(chosen, tmp_path):
    folder, lines = saved(chosen, tmp_path / "set"), []
    result = audit_folder(folder, CONFIG, SETTINGS, output=tmp_path / "audit", say=lines.append)
    assert set(result["attacks"]) == {"loss", "likelihood ratio", "nearest text"} and result["mechanism"] is None
    for found in result["attacks"].values():
        assert found["members"] == 30 and 20 <= found["others"] <= 30  # by the classes of the members
        assert 0.0 <= found["auc_low"] <= found["auc"] <= found["auc_high"] <= 1.0
    assert sum("AUC" in line for line in lines) == 3
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["attacks"] == result["attacks"]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "likelihood ratio" in page and "no privacy" in page and "data:image/svg+xml" in page
    again = audit_folder(folder, CONFIG, SETTINGS, say=quiet)
    assert again["attacks"] == result["attacks"]


def test_texts_that_stand_in_the_set_are_found(chosen, problem, tmp_path):
    """The set's own training texts are the members that its manifest names."""
    rows = [problem.data.train.texts.index(text) for text in chosen.texts]
    settings = dataclasses.replace(SETTINGS, records=200)
    result = audit_folder(saved(chosen, tmp_path / "set", members=rows), CONFIG, settings, say=quiet)
    found = result["attacks"]["nearest text"]
    assert found["members"] == 4 and found["auc"] > 0.9


def test_others_have_the_classes_of_the_members(chosen, problem, tmp_path):
    """Otherwise what tells classes apart would look like membership."""
    labels = problem.data.train.labels
    rows = [*np.flatnonzero(labels == 0)[:20].tolist(), *np.flatnonzero(labels == 1)[:5].tolist()]
    distilled = load_distilled(saved(chosen, tmp_path / "set", members=rows))
    records = audit._records(distilled, problem, SETTINGS, np.random.default_rng(0))
    others = np.bincount(problem.data.dev.labels[records.others])
    assert others[0] == 4 * others[1] > 0
    assert not set(records.others) & set(records.pool)


def test_texts_are_the_same_but_for_case_and_punctuation():
    assert audit._plain(("A good film , ",)) == audit._plain(("a good film",)) != audit._plain(("a good films",))


def test_a_private_set_has_its_mechanism_audited(chosen, tmp_path):
    folder = saved(chosen, tmp_path / "set", source_hash=WITHHELD, **privacy())
    result = audit_folder(folder, CONFIG, SETTINGS, output=tmp_path, say=quiet)
    found = result["mechanism"]
    assert found["claimed"] == 1.0 and not found["flagged"] and found["draws"] == 400
    assert found["expected_auc"] == pytest.approx(0.5752, abs=1e-4) and found["one_run"]["canaries"] == 8
    assert "not refuted" in (tmp_path / "audit.html").read_text()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"source_hash": "0" * 64}, "was made from other data"),
        ({"members": [0, 10**9]}, "names members beyond"),
        ({"task": "sst2", "source_hash": WITHHELD}, "is of sst2, and the configuration of toy/reviews"),
        ({"experiment": {"task": {"balance": {"skew": 0.8}}}}, "was made with task.balance {'skew': 0.8}"),
        (privacy(ledger={"budget": {}}), "lacks ledger.releases"),
        ({"privacy": {"mode": "poisson"}}, "lacks sigma, numbers_a_class, ledger.budget, ledger.releases"),
    ],
)
def test_manifests_that_do_not_say_enough_are_refused(chosen, tmp_path, facts, message):
    with pytest.raises(UserError, match=message):
        audit_folder(saved(chosen, tmp_path / "set", **facts), CONFIG, SETTINGS, say=quiet)


def test_other_classes_are_refused(chosen, tmp_path):
    other = dataclasses.replace(chosen, label_names=("no", "yes"))
    with pytest.raises(UserError, match="has the classes no, yes"):
        audit_folder(saved(other, tmp_path / "set"), CONFIG, SETTINGS, say=quiet)


def test_a_set_made_of_no_members_at_all(problem, tmp_path):
    """Texts of nobody's: nothing to find beyond chance, by any attack."""
    made = set_of(Split([("zz yy",), ("xx ww",)], np.array([0, 1])), problem)
    made = dataclasses.replace(made, manifest={"task": "toy/reviews", "method": "gradmm", "learner": "mlp"} | facts())
    settings = dataclasses.replace(SETTINGS, records=100)
    result = audit_folder(saved(made, tmp_path / "set"), CONFIG, settings, say=quiet)
    for name, found in result["attacks"].items():
        assert found["auc_low"] - 0.05 < 0.5 < found["auc_high"] + 0.05, name


def facts():
    return {"config": {}, "seeds": [0], "source_hash": WITHHELD, "cost": {}, "notes": []}


@pytest.mark.parametrize("change", [{"records": 1}, {"students": 0}, {"references": 1}, {"false_positives": 1.0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UserError):
        dataclasses.replace(SETTINGS, **change)


def test_whole_runs_that_copy_their_data_give_a_canary_away():
    """Random texts, most of those that there are: the canary is often among them, or never."""
    config = dataclasses.replace(CONFIG, settings=method_named("random").config(per_class=6))
    lines = []
    found = audit_releases(config, runs=12, rows=19, say=lines.append)
    assert lines[0] == "12 runs on each side: an attack without a mistake would prove an epsilon of 0.16, none more"
    assert lines[1].startswith("canary, as class ") and len(lines) == 4
    assert found["nearest text"]["auc"] > 0.7 and found["loss"]["members"] == 12
    assert found["nearest text"]["highest"] == pytest.approx(0.1639, abs=1e-3)
    with pytest.raises(UserError, match="at least 12"):
        audit_releases(config, runs=11)
    with pytest.raises(UserError, match="makes no texts"):
        audit_releases(dataclasses.replace(config, method="soft_label", settings=None), runs=12)


def test_the_command_asks_for_what_it_needs_in_one_line():
    command = [sys.executable, "-m", "experiments.audit", "--config=experiments/configs/quickstart.py:smoke"]
    done = subprocess.run(
        command, cwd=ROOT, env=python_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.strip() == (
        "error: give --distilled, the folder of a distilled set, or --runs, how often to distil; one of them"
    )
