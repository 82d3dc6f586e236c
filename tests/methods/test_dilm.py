"""DiLM on toy data with a tiny language model: stages, what a run keeps, going on, settings."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from helpers import refused, same_arrays

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.methods import dilm
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.dilm_learners import Learners
from jaxdistill.methods.dilm_pool import Pooling, deal, load_pool
from jaxdistill.methods.dilm_settings import DiLM, Matching, reference
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.models.decoder_folder import load_decoder
from jaxdistill.pipeline.config import ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.run import run_experiment

LANGUAGE_MODEL = LanguageModelling(
    updates=3, epochs=0.0, rows=8, row_length=32, reduction="text_mean", truncate=True, selections=1
)
CONFIG = DiLM(
    per_class=2,
    generator="tiny",
    max_length=32,
    oversample=3,
    language_model=LANGUAGE_MODEL,
    matching=Matching(updates=5, selections=1, sets=1, students=2, per_class=2, lr=1e-3),
    learners=Learners(
        trainings=2,
        matches=2,
        every=2,
        recipe=Recipe(steps=4, batch_size=8, dropout=False),
        teacher_sets=2,
        teacher_per_class=4,
        teacher_pool=40,
    ),
    pooling=Pooling(batch=4, refresh=2, micro_batch=16),
)
KEY = jax.random.key(0)


def silent(line):
    pass


@pytest.fixture(scope="module")
def problem():
    return prepare(
        TaskConfig(name="toy/reviews", max_length=24), LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    )


def run_in(folder, **changes):
    checkpoints = Checkpoints(folder / "checkpoints", config_hash="0")
    return Run(
        checkpoints=checkpoints, checkpoint_seconds=0, folder=folder, recipe=Recipe(steps=2), say=silent, **changes
    )


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "dilm"
    folder.mkdir()
    return folder, dilm.distill(CONFIG, problem, key=KEY, run=run_in(folder))


def test_the_set(finished, problem):
    _, found = finished
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1])
    assert found.level == "text" and found.soft_labels is None and found.text_columns == ("text",)
    assert not set(found.texts) & set(problem.data.train.texts)
    facts = found.manifest
    assert [step for step, _ in facts["selection"]["selections"]] == [0, 5]
    assert facts["generator"]["drawn"]["texts"] == 12 and facts["generator"]["language_model"]["updates"] == 3
    sizes = [leaf.size for leaf in jax.tree.leaves(load_decoder("tiny").params)]
    assert facts["generator"]["parameters"] == sum(sizes) + 4 * 32  # four new tokens


def test_what_a_run_keeps(finished):
    folder, _ = finished
    before, after = (load_decoder(folder / name).params for name in ("language_model", "generator"))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    # At most lr a parameter and update; 5 updates of 1e-3.
    assert 1e-4 < max(jax.tree.leaves(moved)) < 5.1e-3
    assert sorted(path.name for path in (folder / "pools").iterdir()) == ["00000.json", "00001.json"]
    pool = load_pool(folder / "pools" / "00000.json")
    assert pool.picks.shape == (4, 2, 4) and [len(texts) for texts in pool.texts] == [16, 16]
    assert pool.batch(1)[:4] == [pool.texts[0][i] for i in pool.picks[1, 0]]
    assert sorted(path.name for path in (folder / "learners").iterdir()) == ["learner_0000", "learner_0001"]


def test_an_interrupted_run_goes_on_to_the_same_bits(finished, problem, tmp_path):
    folder, found = finished
    for calls in (2, 7):  # in stage 0; in stage 1
        left = iter(range(calls))
        with pytest.raises(Stopped):
            dilm.distill(
                CONFIG, problem, key=KEY, run=run_in(tmp_path, stop=lambda left=left: next(left, None) is None)
            )
    again = dilm.distill(CONFIG, problem, key=KEY, run=run_in(tmp_path))
    assert again.texts == found.texts
    same_arrays(*(load_decoder(path / "generator").params for path in (folder, tmp_path)))


def test_a_kept_generator_is_drawn_from(finished, problem):
    folder, found = finished
    config = dataclasses.replace(CONFIG, trained=str(folder / "generator"))
    again = dilm.distill(config, problem, key=KEY, run=Run(say=silent))
    if found.manifest["selection"]["step"]:
        assert again.texts == found.texts
    assert again.manifest["generator"]["trained"] == str(folder / "generator")
    more = dataclasses.replace(config, per_class=3, oversample=1)
    assert len(dilm.distill(more, problem, key=KEY, run=Run(say=silent)).texts) == 6
    missing = dataclasses.replace(CONFIG, trained=str(folder / "nothing"))
    with refused("no such folder; give generator or language_model of a run"):
        dilm.distill(missing, problem, key=KEY, run=Run(say=silent))


def test_no_language_model_leaves_nothing_behind(tmp_path):
    task, learner = TaskConfig(name="toy/reviews"), LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    for field, message in (("generator", "model '/nowhere': no such folder"), ("trained", "trained is '/nowhere'")):
        settings = dataclasses.replace(CONFIG, **{field: "/nowhere"})
        config = ExperimentConfig(task=task, learner=learner, method="dilm", settings=settings)
        with refused(message):
            run_experiment(config, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_batches_take_one_text_of_each_cluster():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 5)
    features = (10.0 * rng.normal(size=(4, 3))[group] + 0.01 * rng.normal(size=(20, 3))).astype(np.float32)
    for pick in ("random", "cycle"):
        picks = deal(features, 10, Pooling(batch=4, pick=pick), KEY, 20)
        assert picks.shape == (10, 4) and all(set(group[row]) == set(range(4)) for row in picks)
        assert len({int(i) for i in picks[:, 0]}) > 1
        if pick == "cycle":  # each member of a cluster of five, twice in ten batches
            assert all(np.bincount(picks[:, 0]).max() == 2 for _ in picks)
    unclustered = deal(None, 3, Pooling(batch=4, clustered=False), KEY, 20)
    assert all(len(set(row)) == 4 for row in unclustered.tolist())
    same = deal(np.zeros((6, 2), np.float32), 5, Pooling(batch=4), KEY, 6)  # nothing to tell apart
    assert same.shape == (5, 4) and set(same.ravel()) <= set(range(6))


def test_published_settings():
    assert Learners().steps == tuple(range(0, 200, 20))
    assert DiLM().matching.select_at == tuple(range(0, 20001, 2000))
    given = reference(per_class=5)
    assert (given.matching.reduction, given.language_model.reduction) == ("padded_mean", "padded_mean")
    assert given.learners.trainings == 2000
    assert given.pooling.pick == "cycle" and given.matching.keep == "last" and given.matching.first_update_is_zero
    recipe = Learners().recipe
    rate = recipe.optimizer()
    assert rate is not None and (recipe.steps, recipe.lr, recipe.dropout) == (200, 1e-4, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Matching(temperature=0.0), "matching.temperature is 0.0: accepted is a number above 0"),
        (lambda: Matching(reduction="sum"), "matching.reduction is 'sum': give text_mean or padded_mean"),
        (lambda: Matching(reduction="padded_mean", micro_batch=4), "matching.micro_batch must be 0 with padded_mean"),
        (lambda: Matching(lr=0.0), "matching.lr is 0.0: accepted is a number above 0"),
        (lambda: Learners(every=30), "the last of 10 matches is at step 270, and their training ends at 200"),
        (lambda: Learners(teacher="k_mean"), "learners.teacher is 'k_mean': give k_means, herding or random"),
        (lambda: Pooling(batch=1), "pooling.batch is 1: accepted is 2 or more"),
        (lambda: Pooling(texts=10), "pooling.texts is 10: a batch takes 64 of each class"),
        (lambda: Pooling(top_p=0.0), "top_p is 0.0; it must lie in (0, 1]"),
        (lambda: DiLM(oversample=0), "oversample is 0: accepted is 1 or more"),
        (lambda: DiLM(max_length=200), "language_model.row_length is 68: it must be at least max_length, 200"),
    ],
)
def test_bad_settings(make, message):
    with refused(message):
        make()


def test_what_stage_1_cannot_do_is_said_before_stage_0(problem):
    matching = dataclasses.replace(CONFIG.matching, micro_batch=3)
    with refused("matching.micro_batch is 3: it must divide the 8 texts of an update"):
        dilm.distill(dataclasses.replace(CONFIG, matching=matching), problem, key=KEY, run=Run(say=silent))
    learners = dataclasses.replace(CONFIG.learners, teacher_per_class=5000)
    with refused("learners.teacher_per_class is 5000, and class"):
        dilm.distill(dataclasses.replace(CONFIG, learners=learners), problem, key=KEY, run=Run(say=silent))
