"""Outcomes of learners, and the file that keeps them as they come."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.scoring import Score
from jaxdistill.pipeline.scores import Outcome, Scores, outcome, parts, values

COUNTS = np.asarray([[3, 1], [2, 4]], np.int32)


def test_a_mean_of_scores_comes_with_its_parts():
    made = outcome(Score(COUNTS, np.float32(5.0)), "accuracy_f1_mean")
    f1 = 2 * 4 / (2 * 4 + 1 + 2)
    assert made.parts == pytest.approx({"accuracy": 0.7, "f1": f1})
    assert made.score == pytest.approx((0.7 + f1) / 2) and not made.diverged
    assert outcome(Score(COUNTS, np.float32(5.0)), "accuracy") == Outcome(0.7, {}, False)
    assert parts([[made, made]]) == {"accuracy": [[0.7, 0.7]], "f1": [[made.parts["f1"]] * 2]}
    assert values([made]) == [made.score]


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_learner_that_diverged_scores_nothing(loss):
    """Its NaN logits call everything class 0, which is right for 4 of 10 here."""
    made = outcome(Score(COUNTS, np.float32(loss)), "accuracy_f1_mean")
    assert made == Outcome(0.0, {"accuracy": 0.0, "f1": 0.0}, True)


def test_scores_are_written_one_by_one_and_not_made_twice(tmp_path):
    path = tmp_path / "scores.json"

    def make(numbers):
        for number in numbers:
            if number == 2:
                raise KeyboardInterrupt
            yield Outcome(number / 10, {}, False)

    with pytest.raises(KeyboardInterrupt):
        Scores(path).get("random", 4, make)
    assert [entry["score"] for entry in json.loads(path.read_text())["random"]] == [0.0, 0.1]

    asked = []

    def go_on(numbers):
        asked.extend(numbers)
        return (Outcome(0.5, {}, True) for _ in numbers)

    assert values(Scores(path).get("random", 4, go_on)) == [0.0, 0.1, 0.5, 0.5]
    assert asked == [2, 3]
    assert values(Scores(path).get("random", 3, go_on)) == [0.0, 0.1, 0.5] and asked == [2, 3]


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "scores.json").write_text('{"random": [0.5]}')
    with pytest.raises(UserError, match="does not hold scores"):
        Scores(tmp_path / "scores.json")
