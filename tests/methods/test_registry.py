"""One conformance suite over every registered method: determinism, shapes, a toy run, its folder, its students."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.coresets import selection
from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.evaluation.scoring import split_batches
from jaxdistill.evaluation.students import Examiner
from jaxdistill.io.distilled import load_distilled, save_distilled
from jaxdistill.io.plain import plain
from jaxdistill.methods import dallme, dilm_settings, gradmm_settings, matching
from jaxdistill.methods.base import Run
from jaxdistill.methods.example_scores import SCORES, Scoring
from jaxdistill.methods.experts import Experts
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import METHODS, method_named
from jaxdistill.objectives.gradient import GradientMatching
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.training import learned_arrays, spec_of

OUTER = Outer(updates=2, batch_size=8, selections=1)
CASES = {name: {} for name in METHODS}
CASES |= {name: {"scoring": Scoring(learners=1, epochs=2)} for name in SCORES}
CASES["teacher_labels"] = {"epochs": (0.05, 0.1), "students": 2}
CASES |= {f"{name}/learned": {"learn_labels": True, "outer": OUTER} for name in selection.CORESETS}
CASES["el2n/learned"] = CASES["el2n"] | {"learn_labels": True, "outer": OUTER}
CASES["random/hard"] = {"learn_labels": True, "label_kind": "hard", "outer": OUTER}
CASES["k_means/minilm"] = {"features": "minilm"}
CASES["attention_label/adam"] = {
    "length": 12,
    "per_class": 2,
    "steps": 3,
    "order": "fresh",
    "inner_optimizer": "adam",
    "lr_per": "set",
    "initial_lr": 0.01,
    "outer": OUTER,
}
CASES["attention_label"] = {"length": 12, "outer": OUTER}
CASES |= {name: {"length": 12, "outer": OUTER} for name in (*matching.METHODS, "soft_label")}
CASES["fair"] = {"length": 12, "adversary": 0.8, "contrastive": 0.1, "group_difference": 0.1, "outer": OUTER}
CASES["dallme"] = vars(dallme.smoke(dallme.DaLLME()))
CASES["gradmm"] = vars(gradmm_settings.smoke(gradmm_settings.GRADMM()))
CASES["dilm"] = vars(dilm_settings.smoke(dilm_settings.DiLM())) | {"matching": dilm_settings.Matching(updates=0)}
CASES["trajectory_matching"] |= {"steps": 2, "experts": Experts(count=2, epoch_steps=2, span=1, latest_start=1)}
CASES["gradient_matching/summed"] = {
    "length": 12,
    "label_kind": "soft",
    "distribution": 0.5,
    "gradients": GradientMatching(parameters="head", advance="real"),
    "learn_step_sizes": False,
    "outer": OUTER,
}


@functools.cache
def quick_problem(task):
    """A perceptron, compiled in seconds."""
    learner = LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    return prepare(TaskConfig(name=task, max_length=32), learner)


# These train in ways that other tests show of encoders; `fair` also needs groups.
QUICK = (*matching.METHODS, *SCORES, "teacher_labels", "soft_label", "fair", "dilm", "gradmm", "dallme")


def make(name, problem, seed=0):
    if (family := name.partition("/")[0]) in QUICK:
        problem = quick_problem("toy/reviews:0.8" if family == "fair" else "toy/reviews")
    method = method_named(name.partition("/")[0])
    config = method.config(**CASES[name])
    if hasattr(config, "pool"):
        config = dataclasses.replace(config, pool=200)
    run = Run(recipe=Recipe(steps=2), say=lambda line: None)
    return config, method.distill(config, problem, key=jax.random.key(seed), run=run)


@pytest.fixture(scope="module")
def made(toy_problem):
    known = {}

    class Made:
        def __getitem__(self, name):
            if name not in known:
                known[name] = make(name, toy_problem)
            return known[name]

    return Made()


EVERY = [pytest.param(n, marks=pytest.mark.needs_minilm if n.endswith("/minilm") else ()) for n in CASES]


@pytest.mark.parametrize("name", EVERY)
def test_shapes_and_manifest(made, name):
    config, distilled = made[name]
    np.testing.assert_array_equal(distilled.labels, [0, 1] * config.per_class)
    assert distilled.label_names == ("negative", "positive")
    assert distilled.manifest["method"] == name.partition("/")[0]
    assert distilled.manifest["config"] == config
    assert distilled.level == ("text" if method_named(name.partition("/")[0]).makes_texts else "embedding")
    learned = distilled.synthetic is not None
    assert learned == (distilled.level == "embedding" or name.endswith(("/learned", "/hard")))
    assert (distilled.soft_labels is not None) == (name == "teacher_labels" or name.endswith("/learned"))
    if distilled.soft_labels is not None:
        np.testing.assert_allclose(distilled.soft_labels.sum(axis=1), 1, rtol=1e-5)
    if learned:
        assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in jax.tree.leaves(distilled.synthetic))
        assert distilled.manifest["selection"]["step"] == 2
        assert 0 <= distilled.manifest["selection"]["score"] <= 1


@pytest.mark.parametrize("name", EVERY)
def test_same_key_same_bits(made, toy_problem, name):
    _, first = made[name]
    _, again = make(name, toy_problem)
    jax.tree.map(np.testing.assert_array_equal, first.synthetic, again.synthetic)
    assert first.texts == again.texts
    np.testing.assert_array_equal(first.soft_labels, again.soft_labels)
    np.testing.assert_array_equal(first.labels, again.labels)


@pytest.mark.parametrize("name", ["attention_label", "random"])
def test_another_key_gives_another_set(made, toy_problem, name):
    _, first = made[name]
    _, other = make(name, toy_problem, seed=1)
    assert first.texts != other.texts or not np.array_equal(first.synthetic.inputs, other.synthetic.inputs)


@pytest.mark.parametrize("name", EVERY)
def test_texts_are_real_training_texts(made, toy_problem, name):
    _, distilled = made[name]
    if distilled.texts is not None and name not in ("dilm", "gradmm", "dallme"):  # which writes its own
        for text, label in zip(distilled.texts, distilled.labels, strict=True):
            found = toy_problem.data.train.texts.index(text)
            assert toy_problem.data.train.labels[found] == label


@pytest.mark.parametrize("name", ["attention_label", "attention_label/adam", "k_means/learned", "random/hard"])
def test_saved_set_trains_the_same_students(made, toy_problem, name, tmp_path):
    """Save, load, evaluate: exactly the scores of the set in memory; the spec comes out of the manifest."""
    config, distilled = made[name]
    save_distilled(tmp_path / "set", distilled)
    loaded = load_distilled(tmp_path / "set")
    spec = method_named(name.partition("/")[0]).inner_spec(config, 2)
    assert spec_of(loaded) == spec
    assert loaded.manifest["config"] == plain(config)
    learner = toy_problem.pretrained.learner
    split = split_batches(toy_problem.dev, toy_problem.pretrained.learner, row_length=32)
    examiner = Examiner(learner, spec)
    keys = jax.random.split(jax.random.key(5), 2)

    def losses(s):
        arrays = jax.tree.map(jnp.asarray, learned_arrays(s, spec, toy_problem))
        return [float(x.loss_sum) for x in examiner.scores(toy_problem.base(), arrays, keys, split, shared=False)]

    assert losses(distilled) == losses(loaded)


def test_vmapped_students_equal_looped_ones(made, toy_problem):
    """Students in chunks, the last one not full, against one at a time; and each student its own group."""
    config, distilled = made["attention_label"]
    spec = method_named("attention_label").inner_spec(config, 2)
    learner, base = toy_problem.pretrained.learner, toy_problem.base()
    arrays = jax.tree.map(jnp.asarray, learned_arrays(distilled, spec, toy_problem))
    groups = [np.arange(i, 90, 3) for i in range(3)]
    split = split_batches(toy_problem.dev, toy_problem.pretrained.learner, row_length=32, groups=groups)
    keys = jax.random.split(jax.random.key(6), 3)
    for shared in (False, True):
        one = list(Examiner(learner, spec, axis="map").scores(base, arrays, keys, split, shared=shared))
        many = list(Examiner(learner, spec, axis="vmap", chunk=2).scores(base, arrays, keys, split, shared=shared))
        assert len(one) == len(many) == 3
        for a, b in zip(one, many, strict=True):
            np.testing.assert_array_equal(a.confusion, b.confusion)
            np.testing.assert_allclose(a.loss_sum, b.loss_sum, rtol=1e-5)
            assert a.confusion.sum() == (30 if shared else 90)


def test_unknown_method():
    with pytest.raises(UserError, match="unknown method 'k_mean' .did you mean 'k_means'"):
        method_named("k_mean")


def test_class_with_too_few_examples(toy_problem):
    method = method_named("random")
    with pytest.raises(UserError, match="has .* training examples, 9999 per class asked"):
        method.distill(method.config(per_class=9999), toy_problem, key=jax.random.key(0), run=Run())
