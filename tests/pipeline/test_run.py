"""The whole pipeline on toy data with small learners: what a run folder holds, going on, refusing."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.recipes import FineTuner, Recipe
from jaxdistill.evaluation.statistics import crossed_difference
from jaxdistill.io.distilled import load_distilled
from jaxdistill.io.metrics import read_metrics
from jaxdistill.io.plain import plain
from jaxdistill.methods.attention_label import AttentionLabel
from jaxdistill.methods.base import Stopped
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline import result as pipeline_result
from jaxdistill.pipeline import run
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.dry_run import dry_run
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.evaluate_folder import evaluate_folder
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.run import run_experiment, summary
from jaxdistill.pipeline.training import learned_arrays, spec_of


def config(**changes) -> ExperimentConfig:
    defaults = {
        "task": TaskConfig(name="toy/reviews", max_length=32),
        "learner": LearnerConfig(name="tiny"),
        "settings": AttentionLabel(length=12, outer=Outer(updates=6, batch_size=8, selections=2)),
        "evaluation": EvaluationConfig(
            students=3, baselines=("random",), baseline_students=3, recipe=Recipe(steps=2), full_epochs=0.02
        ),
    }
    return ExperimentConfig(**(defaults | changes))


def quick(**changes) -> ExperimentConfig:
    """The same with a perceptron, for what does not depend on the learner."""
    outer = Outer(updates=6, batch_size=8, selections=2)
    settings = method_named("meta_model_matching").config(length=12, outer=outer)
    learner = LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    return config(learner=learner, method="meta_model_matching", settings=settings, **changes)


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run_experiment(config(), folder, say=silent)


@pytest.fixture(scope="module")
def quickly_finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quick"
    return folder, run_experiment(quick(), folder, say=silent)


def distilled_only(folder, to):
    """A copy of the finished run as it was before its evaluation began."""
    shutil.copytree(folder, to)
    for name in ("scores.json", "seconds.json", "report.html", "result.json"):
        (to / name).unlink()
    return to


def test_run_folder_is_complete(finished):
    folder, result = finished
    names = {"config.json", "metrics.jsonl", "tensorboard", "checkpoints", "distilled", "report.html", "result.json"}
    assert names <= {child.name for child in folder.iterdir()}
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert "attention_label" in (folder / "report.html").read_text()
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(6))
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert ["dev_accuracy" in line for line in lines] == [False, False, True, False, False, True]


def test_result_holds_what_the_design_promises(finished):
    _, result = finished
    for entry in (result["test"], *result["baselines"].values()):
        assert {"mean", "std", "ddof", "n", "values", "ci95"} <= set(entry)
        assert len(entry["values"]) == entry["n"]
        assert all(0 <= value <= 100 for value in entry["values"])
    assert set(result["baselines"]) == {"random", "nearest words", "full"}
    difference = np.subtract(result["test"]["values"], result["baselines"]["random"]["values"])
    np.testing.assert_allclose(result["paired"]["random"]["mean"], difference.mean(), atol=1e-9)
    cost = result["cost"]
    assert cost["real_examples"] == 48 and cost["distill_seconds"] > 0 and cost["peak_bytes"] > 1e6
    assert cost["flops"] > 1e6
    assert result["protocol"] == "clean" and result["test"]["ddof"] == 1
    assert result["diverged"] == {} and result["also"] == {}
    shortfalls = [
        "clean asks for 3 distillations, this run has 1: the interval says nothing of how much another distillation "
        "would differ",
        "clean asks for 100 learners of each distilled set, this run has 3",
    ]
    assert result["notes"][-2:] == shortfalls
    assert "paired" in summary(result) and all(f"note: {note}" in summary(result) for note in shortfalls)


def test_manifest_holds_the_whole_experiment(finished):
    folder, _ = finished
    assert load_distilled(folder / "distilled").manifest["experiment"] == json.loads(json.dumps(plain(config())))


def test_same_command_again_returns_the_result(finished):
    folder, result = finished
    lines = []
    again = run_experiment(config(), folder, say=lines.append)
    assert again["test"] == json.loads(json.dumps(result["test"]))
    assert any("finished result" in line for line in lines)


def test_stopped_run_goes_on_to_the_same_bits(quickly_finished, tmp_path):
    folder, result = quickly_finished
    calls = iter(range(100))
    with pytest.raises(Stopped, match="stopped after outer step 4 of 6"):
        run_experiment(quick(), tmp_path / "run", stop=lambda: next(calls) == 3, say=silent)
    assert not (tmp_path / "run" / "result.json").exists()
    other = run_experiment(quick(), tmp_path / "run", say=silent)
    for name in ("metrics.jsonl", "distilled/arrays.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes(), name
    assert other["test"] == result["test"] and other["baselines"] == result["baselines"]


def test_interrupted_evaluation_keeps_the_scores_it_has(quickly_finished, tmp_path, monkeypatch):
    """Killed while the second baseline learner trained: what was scored is not scored again, not even read."""
    folder, result = quickly_finished
    trained = FineTuner.__call__
    calls, again_in = [], distilled_only(folder, tmp_path / "run")

    def fail_at_second(*args, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(*args, **keywords)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FineTuner, "__call__", fail_at_second)
        run_experiment(quick(), again_in, say=silent)
    kept = json.loads((again_in / "scores.json").read_text())
    assert {name: len(entries) for name, entries in kept.items()} == {"meta_model_matching/0": 3, "random": 1}
    monkeypatch.setattr(Evaluator, "by_plan", lambda *arguments: pytest.fail("the set was scored again"))
    again = run_experiment(quick(), again_in, say=silent)
    assert again["test"] == result["test"] and again["baselines"] == result["baselines"]
    assert (again_in / "scores.json").read_bytes() == (folder / "scores.json").read_bytes()


def test_a_report_that_failed_leaves_the_run_unfinished(quickly_finished, tmp_path, monkeypatch):
    folder, result = quickly_finished
    again_in = distilled_only(folder, tmp_path / "run")

    def fail(*args, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline_result, "write_report", fail)
        run_experiment(quick(), again_in, say=silent)
    assert not (again_in / "result.json").exists()
    assert run_experiment(quick(), again_in, say=silent)["test"] == result["test"]
    assert (again_in / "report.html").exists()


def test_a_stop_in_the_evaluation_loses_one_learner_at_most(quickly_finished, tmp_path):
    """The signal comes at the last outer step, and again, after going on, in the middle of a fine-tuning."""
    folder, result = quickly_finished
    calls = []

    def stop_from(number):
        calls.clear()
        return lambda: calls.append(1) or len(calls) >= number

    with pytest.raises(Stopped, match="stopped while evaluating on test of toy/reviews"):
        run_experiment(quick(), tmp_path / "run", stop=stop_from(6), say=silent)
    assert (tmp_path / "run" / "distilled").exists() and not (tmp_path / "run" / "scores.json").exists()
    # Asked before the first learner, twice between three, before the first fine-tuning, after its first step.
    with pytest.raises(Stopped, match="stopped while evaluating"):
        run_experiment(quick(), tmp_path / "run", stop=stop_from(5), say=silent)
    assert len(json.loads((tmp_path / "run" / "scores.json").read_text())["meta_model_matching/0"]) == 3
    assert run_experiment(quick(), tmp_path / "run", say=silent)["baselines"] == result["baselines"]
    assert (tmp_path / "run" / "scores.json").read_bytes() == (folder / "scores.json").read_bytes()


def test_folder_of_another_run_is_refused(finished):
    folder, _ = finished
    with pytest.raises(UserError, match="holds another run: seed is 0 there and 1 here"):
        run_experiment(config(seed=1), folder, say=silent)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": TaskConfig(name="sst22")}, "sst22"),
        ({"learner": LearnerConfig(name="./no/such/folder")}, "no/such/folder"),
        ({"settings": AttentionLabel(length=4000)}, "length 4000 is more than the learner's 128 positions"),
        ({"devices": 3}, "3 mesh devices were asked for"),
        ({"task": TaskConfig(name="toy/reviews", max_length=2)}, "max_length 2 leaves no room for text"),
        (
            {"settings": AttentionLabel(length=12, per_class=5000, batch_per_class=5000)},
            "class 'negative' has [0-9]+ training examples, 5000 per class asked: accepted is at most",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        run_experiment(config(**changes), tmp_path / "run", say=silent)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_evaluate_folder_gives_the_scores_of_the_run(finished, tmp_path):
    folder, result = finished
    again = evaluate_folder(folder / "distilled", config(), output=tmp_path / "scores.json", say=silent)
    assert again["values"] == result["test"]["values"]
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(again))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 16}, "the distilled set has 32 width, the learner 'tiny' 16"),
        ({"heads": 4}, "the distilled set has 2 heads, the learner 'tiny' 4"),
        ({"layers": 3}, "the distilled set has 2 layers, the learner 'tiny' 3"),
    ],
)
def test_set_of_another_learner_is_refused(finished, changes, message):
    distilled = load_distilled(finished[0] / "distilled")
    problem = prepare(config().task, config().learner)
    learner = problem.pretrained.learner
    learner = learner._replace(shape=learner.shape | changes)
    problem = dataclasses.replace(problem, pretrained=problem.pretrained._replace(learner=learner))
    with pytest.raises(UserError, match=message):
        learned_arrays(distilled, spec_of(distilled), problem)


def test_several_distillation_seeds_are_clustered(tmp_path):
    evaluation = dataclasses.replace(quick().evaluation, full_epochs=0.0)
    result = run_experiment(quick(seeds=2, evaluation=evaluation), tmp_path / "run", say=silent)
    assert result["test"]["n"] == 6 and result["test"]["clustered"]
    own = np.reshape(result["test"]["values"], (2, 3)) / 100
    expected = crossed_difference(own, np.divide(result["baselines"]["random"]["values"], 100))
    np.testing.assert_allclose(result["paired"]["random"]["ci95"], np.multiply(expected.ci95, 100))
    assert "clean asks for 3 distillations, this run has 2" in result["notes"]
    one, two = (load_distilled(tmp_path / "run" / part / "distilled") for part in ("", "seed_1"))
    assert not np.array_equal(one.synthetic.inputs, two.synthetic.inputs)


def test_a_metric_that_is_a_mean_is_reported_with_its_parts(tmp_path, monkeypatch):
    def prepare_pairs(task, learner):
        problem = prepare(task, learner)
        task = dataclasses.replace(problem.data.task, metric="accuracy_f1_mean")
        return dataclasses.replace(problem, data=dataclasses.replace(problem.data, task=task))

    monkeypatch.setattr(run, "prepare", prepare_pairs)
    evaluation = dataclasses.replace(quick().evaluation, baselines=(), full_epochs=0.0)
    result = run_experiment(quick(evaluation=evaluation), tmp_path / "run", say=silent)
    means = [
        np.mean(pair) for pair in zip(*(result["also"][name]["values"] for name in ("accuracy", "f1")), strict=True)
    ]
    np.testing.assert_allclose(result["test"]["values"], means)
    assert "accuracy" in summary(result) and "f1" in summary(result)
    assert "meta_model_matching, test f1" in (tmp_path / "run" / "report.html").read_text()


def test_non_finite_loss_ends_the_run_with_a_checkpoint_kept(tmp_path):
    settings = AttentionLabel(length=12, initial_lr=1e30, outer=Outer(updates=50, batch_size=8, selections=1))
    with pytest.raises(UserError, match="not finite in 20 outer steps in a row"):
        run_experiment(config(settings=settings), tmp_path / "run", say=silent)
    last = max(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert int(last) == 20, "the steps were skipped, and the state is finite"


@pytest.mark.parametrize("method", ["gradient_matching", "trajectory_matching"])
def test_dry_run_of_other_objectives(method):
    learner = LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    settings = method_named(method).config(length=12, steps=2)
    assert "GFLOP" in dry_run(config(method=method, settings=settings, learner=learner))


def test_dry_run_says_what_a_step_takes():
    text = dry_run(config())
    for word in ("trainable", "frozen", "GFLOP", "MiB", "temporaries"):
        assert word in text
    assert "ignored" not in text
    learning = Coreset(learn_labels=True, pool=50, outer=Outer(updates=6, batch_size=8))
    text = dry_run(config(method="k_means", settings=learning, devices=7))
    assert "2 samples" in text and "devices 7 is ignored" in text
    with pytest.raises(UserError, match="'random' learns nothing without learn_labels: there is no outer step"):
        dry_run(config(method="random", settings=None))


def test_paper_protocol_selects_on_the_reported_split(tmp_path):
    evaluation = dataclasses.replace(quick().evaluation, protocol="paper", baselines=(), full_epochs=0.0)
    result = run_experiment(quick(evaluation=evaluation), tmp_path / "run", say=silent)
    assert result["protocol"] == "paper" and result["test"]["ddof"] == 0
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [line["test_loss"] for line in lines if "test_loss" in line]
    assert result["dev"] is None, "nothing was chosen on dev"
    # The least loss on the reported split wins, the set before the first step included.
    selection = load_distilled(tmp_path / "run" / "distilled").manifest["selection"]
    assert (selection["split"], selection["by"]) == ("test", "loss")
    steps, scores = zip(*selection["scores"], strict=True)
    assert steps == (0, 3, 6)
    np.testing.assert_allclose(np.negative(scores[1:]), losses, rtol=1e-6)
    assert selection["step"] == steps[int(np.argmax(scores))]
