"""Answers by likelihood: against sums made by hand, shots by subject, what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.multiple_choice import Question
from jaxdistill.evaluation.likelihoods import likelihoods
from jaxdistill.evaluation.multiple_choice import answer_questions

SUN = Question("Is it hot?", ("yes", "no", "not at all"), 0, "sun")
MOON = Question("Round?", ("yes", "no"), 1, "moon")
SOLVED = [Question("Big?", ("no", "yes"), 1, "sun"), Question("Far?", ("a", "b"), 0, "moon"), SUN]


def log_probability(model, before, text):
    """Of the bytes of `text`, after `before`."""
    rows = [model.tokenizer.encode(before + text).ids]
    return -likelihoods(model, rows, [len(before.encode())]).negative[0]


@pytest.mark.parametrize("shots", [0, 1])
def test_question_and_answer_together(tiny_scorer, shots):
    found = answer_questions(tiny_scorer, [SUN, MOON], SOLVED, shots=shots)
    before = {"sun": "Question: Big?\nAnswer: yes\n\n", "moon": "Question: Far?\nAnswer: a\n\n"}
    for question, scores in zip((SUN, MOON), found.log_probabilities, strict=True):
        example = before[question.subject] if shots else ""
        texts = [f"Question: {question.question}\nAnswer: {choice}" for choice in question.choices]
        expected = [log_probability(tiny_scorer, example, text) for text in texts]
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found.chosen.tolist() == [int(np.argmax(scores)) for scores in found.log_probabilities]
    assert found.correct.tolist() == [found.chosen[0] == 0, found.chosen[1] == 1]
    assert (found.shots, found.shortened) == (shots, 0)


def test_longer_answers_are_less_likely_under_a_uniform_model(uniform_scorer):
    """Log-probabilities are not divided by the number of tokens; the first of equal ones is chosen."""
    questions = [
        Question("a", ("bcd", "b", "c"), 1, "x"), Question("a", ("b", "c"), 1, "x"), Question("a", ("c",) * 2, 0, "y"),
    ]  # fmt: skip
    found = answer_questions(uniform_scorer, questions, shots=0)
    assert found.chosen.tolist() == [1, 0, 0]
    np.testing.assert_allclose(np.diff(found.log_probabilities[0]), [2 * np.log(10), 0], atol=1e-4)
    summary = found.summary()
    assert summary["accuracy"] == pytest.approx(2 / 3) and summary["subject_mean"] == 0.75
    assert summary["subjects"] == {"x": 0.5, "y": 1.0}
    assert (summary["questions"], summary["shots"], summary["shortened"]) == (3, 0, 0)


def test_shots_that_do_not_fit_are_left_out_and_counted(tiny_scorer):
    long = Question("w" * 70, ("yes", "no"), 0, "sun")  # 128 positions hold it with one example of about 30 bytes
    solved = [SOLVED[0], SUN]
    found = answer_questions(tiny_scorer, [long, SUN], solved, shots=2)
    assert found.shortened == 1
    alone = answer_questions(tiny_scorer, [long], solved[:1], shots=1)
    np.testing.assert_allclose(found.log_probabilities[0], alone.log_probabilities[0], atol=1e-4)


def test_refuses(tiny_scorer):
    with refused("0 questions and 5 shots"):
        answer_questions(tiny_scorer, [])
    with refused("2 shots asked for, but subject 'moon' has 1 solved questions"):
        answer_questions(tiny_scorer, [MOON], SOLVED, shots=2)
    with refused("has more than the 128 tokens that 'tiny' can read"):
        answer_questions(tiny_scorer, [Question("w" * 130, ("yes", "no"), 0)], shots=0)
