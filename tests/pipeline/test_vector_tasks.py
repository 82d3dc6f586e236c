"""Tasks of vectors from the data to a trained network: rows, learners, sentence vectors, a whole run."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.batching import TrainBatches, eval_batches
from jaxdistill.data.encoding import encode
from jaxdistill.data.sources import load_task
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.evaluation.sentences import sentence_vectors, with_sentence_vectors
from jaxdistill.methods.base import Run
from jaxdistill.methods.coreset import Coreset
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import method_named
from jaxdistill.methods.soft_label import SoftLabel
from jaxdistill.pipeline import prepare as module
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.nearest import snapped
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.result import summary
from jaxdistill.pipeline.run import run_experiment
from jaxdistill.pipeline.scores import OF_GROUPS
from jaxdistill.pipeline.training import text_split

BIAS, MLP = TaskConfig(name="toy/bias"), LearnerConfig(name="mlp")
SENTENCES = LearnerConfig(name="mlp", words=WordsConfig(vectors="sentences:tiny"))


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def problem():
    return prepare(BIAS, MLP)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_ids_are_rows_and_rows_are_vectors(problem):
    data, table = load_task("toy/bias"), np.asarray(problem.words.table)
    np.testing.assert_array_equal(table, data.vectors)
    assert problem.train.ids.tolist() == list(range(9998))
    assert problem.dev.ids.tolist() == list(range(9998, 13998))
    assert problem.row_length == 1 and set(problem.train.lengths.tolist()) == {1}


def test_batches_hold_the_vectors_of_their_examples(problem):
    learner = problem.pretrained.learner
    batches = TrainBatches(problem.train, batch_size=32, seed=0, row_length=1, packed=learner.packs)
    assert batches.shapes == ((32, 1),)
    batch, indices = batches(3), batches.indices(3)
    embed = jax.jit(learner.embed)
    np.testing.assert_array_equal(embed(problem.base(), batch), problem.data.vectors[:9998][indices])
    np.testing.assert_array_equal(batch.labels, problem.data.train.labels[indices])
    evaluated = eval_batches(problem.test, row_length=1, rows=1500, packed=False)
    assert [part.token_ids.shape for part in evaluated.batches] == [(1334, 1)] * 3
    for part, members in zip(evaluated.batches, evaluated.indices, strict=True):
        np.testing.assert_array_equal(part.token_ids[: len(members), 0], 13998 + members)


def test_unknown_texts_are_refused(problem):
    for text in ("train/9998", "", " ", "reviews"):
        with pytest.raises(
            UserError, match=f"^text '{text.strip()}' has no vector: accepted are the texts of the task"
        ):
            encode(Split([("train/0",), (text,)], np.zeros(2, np.int32)), problem.pretrained.tokenizer, 1)


@pytest.mark.parametrize(("width", "classes", "expected"), [(2304, 2, 782_402), (768, 28, 329_428)])
def test_parameter_counts_of_the_published_networks(width, classes, expected):
    """With one logit for two classes the first would be 782,101."""
    words = module.row_vectors(["a", "b"], np.zeros((2, width), np.float32))
    learner = module.load_learner(MLP, classes, 1, words=words).learner
    shapes = jax.eval_shape(learner.init, jax.random.key(0))
    assert count(shapes.trainable) == expected
    assert learner.shape["width"] == width and learner.max_length == learner.min_length == 1


def test_scaled_vectors_have_the_asked_size():
    made = prepare(BIAS, dataclasses.replace(MLP, words=WordsConfig(std=0.5)))
    train = np.asarray(made.words.table)[:9998]
    assert np.sqrt(np.mean(train.astype(np.float64) ** 2)) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(train, prepare_ratio(made) * load_task("toy/bias").vectors[:9998], rtol=1e-5)


def prepare_ratio(made):
    return np.asarray(made.words.table)[0, 0] / load_task("toy/bias").vectors[0, 0]


@pytest.mark.parametrize(
    ("task", "learner", "message"),
    [
        (BIAS, LearnerConfig(name="tiny"), "task 'toy/bias' is of vectors: learner.name is 'tiny', accepted is mlp"),
        (
            TaskConfig(name="toy/bias", max_length=32),
            MLP,
            "task 'toy/bias' is of vectors: max_length and row_length must stay 0, a text is one vector",
        ),
        (BIAS, SENTENCES, "task 'toy/bias' is of vectors already: it takes no sentence vectors"),
    ],
)
def test_what_does_not_fit_gives_one_line(task, learner, message):
    with pytest.raises(UserError) as caught:
        prepare(task, learner)
    assert str(caught.value) == message


def test_sentence_vectors_are_for_the_perceptron():
    with pytest.raises(UserError, match="is 'sentences:minilm', which is for mlp, not for text_cnn$"):
        LearnerConfig(name="text_cnn", words=WordsConfig(vectors="sentences:minilm"))
    with pytest.raises(UserError, match="behind it stands an encoder"):
        WordsConfig(vectors="sentences:")


def test_sentence_vectors_of_a_task_of_texts(monkeypatch):
    whole = load_task("toy/reviews")
    few = dataclasses.replace(
        whole,
        train=whole.train.take(np.arange(40)),
        dev=whole.dev.take(np.arange(8)),
        test=whole.test.take(np.array([3, 1, 3])),
    )
    monkeypatch.setattr(module, "load_data", lambda task: few)
    made = prepare(TaskConfig(), SENTENCES)
    texts = few.train.texts + few.dev.texts + few.test.texts
    expected = sentence_vectors("tiny", texts, max_length=64)
    assert expected.shape == (51, made.pretrained.learner.shape["width"])
    # How texts are packed moves the last bits.
    np.testing.assert_allclose(expected[[5, 50]], sentence_vectors("tiny", [texts[5], texts[50]]), atol=1e-5)
    np.testing.assert_array_equal(made.words.table, expected)
    assert made.data.train.texts == few.train.texts and made.train.ids.tolist() == list(range(40))
    assert made.test.ids.tolist() == [48, 49, 48]  # equal texts have one row
    assert "learners read one sentence vector of tiny a text" in made.notes
    pairs = dataclasses.replace(few, task=dataclasses.replace(few.task, text_columns=("a", "b")))
    with pytest.raises(UserError, match="is of text pairs: sentence vectors are made of single texts"):
        with_sentence_vectors(pairs, "tiny")


def test_coresets_of_vectors(problem):
    made = method_named("k_center").distill(
        Coreset(per_class=2, pool=60), problem, key=jax.random.key(0), run=Run(say=silent)
    )
    texts = text_split(made)
    encoded = encode(texts, problem.pretrained.tokenizer, 1)
    np.testing.assert_array_equal(problem.data.train.labels[encoded.ids], texts.labels)
    with pytest.raises(UserError, match="features is 'minilm', but task 'toy/bias' has no texts: give learner"):
        method_named("herding").distill(Coreset(features="minilm"), problem, key=jax.random.key(0), run=Run(say=silent))
    learned = Coreset(learn_labels=True, outer=Outer(updates=1, batch_size=8, selections=1))
    made = method_named("random").distill(learned, problem, key=jax.random.key(0), run=Run(say=silent))
    assert made.soft_labels.shape == (2, 2)


def test_a_whole_run(tmp_path):
    config = ExperimentConfig(
        task=BIAS,
        learner=MLP,
        method="soft_label",
        settings=SoftLabel(length=1, outer=Outer(updates=2, batch_size=32, selections=1)),
        evaluation=EvaluationConfig(
            students=2, baselines=("random",), baseline_students=2, recipe=Recipe(steps=2), full_epochs=0.05
        ),
    )
    result = run_experiment(config, tmp_path / "run", say=silent)
    assert set(result["baselines"]) == {"random", "nearest words", "full"}
    assert all(0 < value < 100 for entry in result["baselines"].values() for value in entry["values"])
    # Of data with groups, how these fare is reported of everything that is scored.
    for also in (result["also"], *result["baselines_also"].values()):
        assert list(also) == list(OF_GROUPS)
        for hits, bias, dto in zip(
            *(also[name]["values"] for name in ("worst_group_accuracy", "gap", "dto")), strict=True
        ):
            assert 0 <= hits <= 100 and 0 <= bias <= 100 and dto >= bias - 1e-9
    both = zip(result["test"]["values"], result["also"]["gap"]["values"], result["also"]["dto"]["values"], strict=True)
    assert all(dto == pytest.approx(np.hypot(100 - hits, bias)) for hits, bias, dto in both)
    printed = summary(result)
    assert printed.count("    gap  ") == 4 and "equalised" not in printed


def test_nearest_rows_are_of_train(problem):
    config = SoftLabel(length=1, outer=Outer(updates=1, batch_size=32, selections=1))
    made = method_named("soft_label").distill(config, problem, key=jax.random.key(0), run=Run(say=silent))
    rows = np.asarray(snapped(made, problem).synthetic.inputs)[:, 0]
    train = problem.data.vectors[: len(problem.train)]
    assert all((train == row).all(axis=1).any() for row in rows)
