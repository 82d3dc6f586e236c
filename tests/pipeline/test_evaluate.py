"""Learners of the evaluation: what they train, what they train on, where their randomness comes from."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxdistill.core import tree
from jaxdistill.core.errors import UserError
from jaxdistill.data.encoding import encode
from jaxdistill.evaluation.recipes import FineTuner, Recipe
from jaxdistill.io.distilled import load_distilled, save_distilled
from jaxdistill.methods.base import Run
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import method_named
from jaxdistill.models.huggingface import save_folder
from jaxdistill.models.learner import encoder_learner
from jaxdistill.models.pretrained import load_model
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig
from jaxdistill.pipeline.evaluate import Evaluator
from jaxdistill.pipeline.evaluate_folder import evaluate_folder
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import load_learner, prepare
from jaxdistill.pipeline.scores import values
from jaxdistill.pipeline.training import training_plan

TASK, TINY = TaskConfig(name="toy/reviews", max_length=32), LearnerConfig(name="tiny")


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def problem():
    """With a short test split, since what is scored does not matter here."""
    whole = prepare(TASK, TINY)
    few = whole.data.test.take(np.arange(40))
    return dataclasses.replace(whole, test=encode(few, whole.pretrained.tokenizer, 32))


@pytest.fixture
def evaluator(problem):
    return Evaluator(problem, named_key(0, "evaluate"))


@pytest.fixture
def trainings(monkeypatch):
    """(start, batch of step 0, result) of every fine-tuning, as host arrays."""
    seen = []
    train = FineTuner.__call__

    def record(self, start, batches, key, **keywords):
        before = jax.tree.map(np.array, start)
        trained = train(self, start, batches, key, **keywords)
        seen.append((before, batches(0), jax.tree.map(np.array, trained)))
        return trained

    monkeypatch.setattr(FineTuner, "__call__", record)
    return seen


def test_the_word_table_is_trained_where_it_is_asked():
    frozen = load_learner(TINY, 2, 64).learner
    free = load_learner(TINY, 2, 64, train_words=True).learner
    a, b = (learner.init(jax.random.key(0)) for learner in (frozen, free))
    assert set(a.frozen) == {"embeddings"} and b.frozen == {}
    jax.tree.map(np.testing.assert_array_equal, tree.merge(a.trainable, a.frozen), tree.merge(b.trainable, b.frozen))
    np.testing.assert_array_equal(frozen.word_table(a), free.word_table(b))
    assert free.group_names == frozen.group_names == ("embeddings", "layer_0", "layer_1", "pooler", "classifier")
    assert int(free.groups["embeddings"]["word"]["table"]) == 0
    head = load_learner(dataclasses.replace(TINY, trainable="head"), 2, 64, train_words=True).learner
    assert set(head.init(jax.random.key(0)).trainable) == {"pooler", "classifier"}


def test_fine_tuning_trains_every_parameter(evaluator, problem, trainings):
    texts = problem.data.train.take(np.arange(4))
    outcomes = list(evaluator.by_recipe("x", lambda i: texts, Recipe(steps=3, lr=1e-3, warmup=0.0), range(1)))
    ((start, _, trained),) = trainings
    assert len(outcomes) == 1 and trained.frozen == {}
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), start.trainable, trained.trainable)
    assert all(jax.tree.leaves(moved))


def test_order_and_head_come_from_the_learners_key(problem, trainings):
    """Learner i of another run is another learner; the same learner is the same whoever comes before it."""
    texts = problem.data.train.take(np.arange(8))
    recipe = Recipe(steps=1, batch_size=4)
    for seed, numbers in ((0, range(2)), (0, range(1, 2)), (1, range(1, 2))):
        list(Evaluator(problem, named_key(seed, "evaluate")).by_recipe("x", lambda i: texts, recipe, numbers))
    (_, first, _), (one, second, _), (again, third, _), (other, fourth, _) = trainings
    np.testing.assert_array_equal(second.token_ids, third.token_ids)
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(first.token_ids, second.token_ids)
    assert not np.array_equal(second.token_ids, fourth.token_ids)
    assert not np.array_equal(one.trainable["classifier"]["kernel"], other.trainable["classifier"]["kernel"])
    # One random body for everyone, as under the learned schedule: it stands for a pretrained one.
    body = problem.base().trainable["layers"]["0"]["key"]["kernel"]
    np.testing.assert_array_equal(one.trainable["layers"]["0"]["key"]["kernel"], body)
    np.testing.assert_array_equal(other.trainable["layers"]["0"]["key"]["kernel"], body)


def test_learners_that_diverge_count_as_zero(evaluator, problem):
    texts = problem.data.train.take(np.arange(4))
    outcomes = list(evaluator.by_recipe("x", lambda i: texts, Recipe(steps=2, lr=1e38, warmup=0.0), range(1)))
    assert outcomes[0].diverged and values(outcomes) == [0.0]


@pytest.fixture(scope="module")
def learned_texts(problem):
    """A set of real texts whose soft labels were learned on the tiny learner."""
    config = Coreset(learn_labels=True, pool=60, outer=Outer(updates=2, batch_size=8, selections=1, label_lr=50.0))
    return method_named("k_means").distill(config, problem, key=jax.random.key(0), run=Run(say=silent))


@pytest.fixture(scope="module")
def deeper(tmp_path_factory):
    """Folder of another random encoder, of three layers."""
    folder = tmp_path_factory.mktemp("models") / "deeper"
    tiny = load_model("tiny", num_classes=2)
    config = dataclasses.replace(tiny.config, layers=3)
    variables = encoder_learner(config, None, num_classes=2).init(jax.random.key(0))
    save_folder(folder, config, tree.merge(variables.trainable, variables.frozen))
    tiny.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_set_of_texts_moves_to_another_learner(learned_texts, deeper, trainings, tmp_path):
    save_distilled(tmp_path / "set", learned_texts)
    evaluation = EvaluationConfig(students=2, baselines=(), recipe=Recipe(steps=2))
    config = ExperimentConfig(task=TASK, learner=LearnerConfig(name=str(deeper)), evaluation=evaluation)
    lines = []
    result = evaluate_folder(tmp_path / "set", config, output=tmp_path / "scores.json", say=lines.append)
    assert result["n"] == 2 and result["diverged"] == 0
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(result))
    said = (
        f"the distilled set has 5 step-size groups, the learner {str(deeper)!r} 6: learners train by the recipe on "
        "its texts and soft labels, not by its step sizes",
        f"the set was made with the learner 'tiny' and is evaluated with {str(deeper)!r}",
    )
    assert all(note in result["notes"] and f"note: {note}" in lines for note in said)
    for _, batch, _ in trainings:
        assert np.asarray(batch.labels).dtype == np.float32
        order = np.argsort(np.asarray(batch.labels)[:, 0])
        np.testing.assert_allclose(
            np.asarray(batch.labels)[order], learned_texts.soft_labels[np.argsort(learned_texts.soft_labels[:, 0])]
        )


def test_the_learned_schedule_is_taken_where_it_fits(learned_texts, problem, deeper):
    assert training_plan(learned_texts, problem, "auto").spec is not None
    assert training_plan(learned_texts, problem, "schedule").notes == ()
    assert training_plan(learned_texts, problem, "recipe").spec is None
    other = dataclasses.replace(problem, pretrained=load_model(deeper, num_classes=2))
    with pytest.raises(UserError, match="5 step-size groups, the learner .* 6: evaluate it with the learner it was"):
        training_plan(learned_texts, other, "schedule")
    plain = dataclasses.replace(learned_texts, synthetic=None, soft_labels=None)
    assert training_plan(plain, problem, "auto").spec is None
    with pytest.raises(UserError, match="holds no learned step sizes: accepted are train_by=auto and recipe"):
        training_plan(plain, problem, "schedule")


def test_one_student_and_a_mesh(learned_texts, problem, tmp_path):
    """No interval to print; `devices` is honoured, and refused when there are not so many."""
    save_distilled(tmp_path / "set", learned_texts)
    evaluation = EvaluationConfig(students=1, baselines=(), recipe=Recipe(steps=1))
    config = ExperimentConfig(task=TASK, learner=TINY, evaluation=evaluation, devices=1)
    result = evaluate_folder(tmp_path / "set", config, say=silent)
    assert result["n"] == 1 and result["ci95"] is None and result["std"] is None
    with pytest.raises(UserError, match="99 mesh devices were asked for"):
        evaluate_folder(tmp_path / "set", dataclasses.replace(config, devices=99), say=silent)
    assert load_distilled(tmp_path / "set").manifest["learner"] == "tiny"
