"""Scores of real texts by trained learners: against loops over single texts, what stops them, bad settings."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.types import Variables
from jaxdistill.coresets.scores import error_norms, forgetting_counts
from jaxdistill.data.packing import pad
from jaxdistill.evaluation import fine_tuning
from jaxdistill.evaluation.recipes import full_data_recipe
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.coreset import Forgetting
from jaxdistill.methods.example_scores import SCORES, Scoring, el2n, forgetting, grand
from jaxdistill.methods.registry import method_named

MEMBERS, KEY, RUN = np.arange(5, 60, 3), jax.random.key(4), Run()
ONCE = Scoring(learners=1, epochs=0.0)
# One training for all tests: one compilation.
TRAINED = Scoring(learners=1, epochs=40.0, lr=3e-3, batch_size=8)


def score(function, scoring, problem, run=RUN):
    return function(scoring, problem, MEMBERS, key=KEY, run=run)


@pytest.fixture(scope="module")
def start(toy_problem):
    """Learner 0 as it is before training."""
    return toy_problem.trainer().start(full_data_recipe(1), jax.random.fold_in(KEY, 0))


@pytest.fixture(scope="module")
def forward(toy_problem):
    return jax.jit(toy_problem.fine_tuning(True).apply)


def test_el2n_at_the_start_is_that_of_single_texts(toy_problem, start, forward):
    scores = score(el2n, ONCE, toy_problem)
    for place in (0, 7, len(MEMBERS) - 1):
        outputs = forward(start, pad(toy_problem.train, MEMBERS[[place]], length=32))
        expected = error_norms(np.asarray(outputs.logits), toy_problem.train.labels[MEMBERS[[place]]])
        np.testing.assert_allclose(scores[[place]], expected, rtol=1e-4)


def test_grand_at_the_start_is_the_gradient_of_single_texts(toy_problem, start):
    scores, of_heads = (score(grand, dataclasses.replace(ONCE, gradients=g), toy_problem) for g in ("all", "head"))
    learner = toy_problem.fine_tuning(True)

    @jax.jit
    def gradient(trainable, batch):
        def loss(p):
            return cross_entropy(learner.apply(Variables(p, start.frozen), batch).logits, batch.labels)

        return jax.grad(loss)(trainable)

    for place in (0, len(MEMBERS) - 1):
        made = gradient(start.trainable, pad(toy_problem.train, MEMBERS[[place]], length=32))
        assert "word" in made["embeddings"], "the word table is trained too"
        for tree, found in ((made, scores), (made["classifier"], of_heads)):
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(tree)))
            np.testing.assert_allclose(found[place], norm, rtol=1e-3)
    assert (scores > of_heads).all()


def test_scores_are_means_over_learners_of_their_own(toy_problem):
    two = score(el2n, dataclasses.replace(ONCE, learners=2), toy_problem)
    one, other = score(el2n, ONCE, toy_problem), 2 * two - score(el2n, ONCE, toy_problem)
    assert not np.allclose(one, other) and (other > 0).all() and (other < np.sqrt(2)).all()


def test_training_makes_learnt_texts_easy(toy_problem):
    trained = score(el2n, TRAINED, toy_problem)
    assert trained.mean() < 0.5 * score(el2n, ONCE, toy_problem).mean()


def test_forgetting_counts_what_training_steps_say(toy_problem, monkeypatch):
    """Against the logits of every step, and the examples that it read, taken down in order."""
    visits: dict[int, list[int]] = {int(i): [] for i in MEMBERS}
    seen = []
    call = fine_tuning.FineTuner.__call__

    def watched(self, start, batches, key, *, on_step):
        def note(step):
            batch = batches(step.done - 1)
            seen.append((np.asarray(step.logits), batch))
            on_step(step)

        return call(self, start, batches, key, on_step=note)

    monkeypatch.setattr(fine_tuning.FineTuner, "__call__", watched)
    scores = score(forgetting, TRAINED, toy_problem)
    assert len(seen) == 40 * (len(MEMBERS) // 8)
    texts = {toy_problem.train.tokens(i).tobytes(): int(i) for i in MEMBERS}
    for logits, batch in seen:
        ids = np.ravel(batch.token_ids)
        row_of = np.repeat(np.arange(len(batch.segments)), batch.segments.shape[1])
        place = np.ravel(batch.segments) + 1000 * row_of
        for row, first in enumerate(batch.starts):
            index = texts[ids[place == place[first]].tobytes()]
            visits[index].append(int(logits[row].argmax() == toy_problem.train.labels[index]))
    expected = [forgetting_counts(np.array([v], int).T)[0] if v else np.nan for v in visits.values()]
    np.testing.assert_array_equal(scores, expected)
    assert (scores[np.isfinite(scores)] > 0).any()


@pytest.mark.parametrize("name", SCORES)
def test_a_stop_is_heard(toy_problem, name):
    asked = []
    with pytest.raises(Stopped, match=f"stopped while scoring texts by {name}"):
        score(SCORES[name], TRAINED, toy_problem, Run(stop=lambda: asked.append(1) or len(asked) > 1))
    assert len(asked) == 2


def test_a_learner_that_diverges_is_said(toy_problem):
    with pytest.raises(UserError, match="a learner of 'el2n' diverged: lower scoring.lr, now 1e\\+38"):
        score(el2n, Scoring(lr=1e38, epochs=5.0, learners=1), toy_problem)


def test_kept_texts_follow_the_setting(toy_problem):
    """Among all texts of the pool: the easiest has the lowest score of its class, the hardest the highest."""
    method = method_named("el2n")
    chosen = {}
    for keep in ("easy", "hard"):
        config = method.config(pool=40, scoring=dataclasses.replace(ONCE, keep=keep))
        made = method.distill(config, toy_problem, key=KEY, run=Run())
        chosen[keep] = [toy_problem.data.train.texts.index(text) for text in made.texts]
        members = made.manifest["members"]
        assert len(members) == 40 and set(chosen[keep]) <= set(members)
    both = np.array([*chosen["easy"], *chosen["hard"]])
    # The same pool, learner and key for both: hard texts score above easy ones under that learner.
    choose_key, _ = jax.random.split(KEY)
    score_key, _ = jax.random.split(jax.random.split(choose_key)[1])
    order = np.argsort(both)
    scores = np.empty(4)
    scores[order] = el2n(ONCE, toy_problem, both[order], key=score_key, run=Run())
    assert scores[0] < scores[2] and scores[1] < scores[3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scoring(keep="best"), "scoring.keep is 'best': give easy, middle or hard"),
        (lambda: Scoring(gradients="some"), "scoring.gradients is 'some': give all or head"),
        (lambda: Scoring(learners=0), "scoring.learners is 0: it must be at least 1"),
        (lambda: Scoring(batch_size=0), "scoring.batch_size is 0"),
        (lambda: Scoring(epochs=-1.0), "scoring.epochs is -1.0: accepted is a number from 0"),
        (lambda: Scoring(lr=-0.1), "scoring.lr is -0.1: accepted is a number from 0"),
        (lambda: Forgetting(scoring=Scoring(epochs=1.5)), "scoring.epochs is 1.5: a text can be forgotten at its"),
    ],
)
def test_bad_settings(make, message):
    with refused(message):
        make()
