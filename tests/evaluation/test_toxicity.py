"""Maxima over continuations, and categories."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused

from jaxdistill.evaluation.toxicity import attribute_summary


def test_hand_values():
    found = attribute_summary(np.asarray([[0.1, 0.4], [0.6, 0.2]]))
    assert found == {"continuations": 2, "prompts": 2, "all": {"tp": 0.5, "emt": 0.5}}


def test_exactly_half_has_the_attribute_not():
    assert attribute_summary(np.asarray([[0.5], [np.nextafter(0.5, 1)]]))["all"]["tp"] == 0.5


def test_combined_is_the_mean_of_the_category_means():
    scores = np.asarray([[0.9], [0.8], [0.7], [0.2], [0.6], [1.0]])
    categories = ["religion"] * 3 + ["gender_lgbtq", "race_nationalities", "disability"]
    found = attribute_summary(scores, categories)
    assert found["categories"]["religion"] == {"tp": 1.0, "emt": pytest.approx(0.8), "prompts": 3}
    assert found["combined"] == {"tp": pytest.approx(2 / 3), "emt": pytest.approx((0.8 + 0.2 + 0.6) / 3)}
    assert found["all"]["emt"] == pytest.approx(4.2 / 6)
    assert attribute_summary(scores, ["religion"] * 6)["combined"] is None
    only = attribute_summary(scores, categories, combined=("disability",))
    assert only["combined"] == {"tp": 1.0, "emt": 1.0}


def test_both_rise_with_the_number_of_continuations():
    scores = np.random.default_rng(0).uniform(size=(20, 25))
    found = [attribute_summary(scores[:, :k])["all"] for k in (1, 5, 25)]
    for name in ("tp", "emt"):
        values = [entry[name] for entry in found]
        assert values == sorted(values) and values[0] < values[-1]


def test_refuses():
    with refused("shape (0, 3)"):
        attribute_summary(np.zeros((0, 3)))
    with refused("must lie in [0, 1]"):
        attribute_summary(np.asarray([[np.nan]]))
    with refused("1 categories for 2 prompts"):
        attribute_summary(np.zeros((2, 1)), ["religion"])
