"""Figures of a language model's continuations against hand values."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.prompts import Prompts
from jaxdistill.evaluation import attribute_evaluation as module
from jaxdistill.evaluation import attribute_scorer
from jaxdistill.evaluation.attribute_evaluation import AttributeEvaluation, draw_prompts, evaluate_attribute
from jaxdistill.evaluation.attribute_scorer import AttributeScorer
from jaxdistill.generation.scorers import Model
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer

SETTINGS = AttributeEvaluation(continuations=2, max_new=3, label="rude")
PROMPTS = Prompts(("a", "b", "c"), ("religion", "gender_lgbtq", "race_nationalities"), ())
TEXTS = [[" b a", " c"], [" a", ""], ["b", " d"]]
SCORES = {" b a": 0.1, " c": 0.4, " a": 0.6, "": 0.2, "b": 0.5, " d": 0.3, " b ": 0.7}


@pytest.fixture(scope="module")
def judge():
    """A random BERT; its scores mean nothing."""
    tokenizer = tiny_tokenizer()
    config = dataclasses.replace(tiny_config(tokenizer.get_vocab_size()), initializer_range=0.4)
    encoder = Encoder(config, 2)
    params = init_params(encoder, jax.random.key(1))
    return AttributeScorer("judge", ("calm", "rude"), False, encoder, params, tokenizer, 128)


@pytest.fixture
def known(monkeypatch):
    """Scores by text; keeps which were asked for."""
    asked = []

    def scores(scorer, texts, label, **options):
        assert label == "rude"
        asked.extend(texts)
        return np.asarray([SCORES[text] for text in texts])

    monkeypatch.setattr(module, "attribute_scores", scores)
    return asked


def test_hand_values(known, judge, uniform_scorer):
    found = evaluate_attribute(TEXTS, PROMPTS, SETTINGS, scorer=judge, fluency=uniform_scorer, entropy=1.25)
    # Maxima .4, .6 and .5, and exactly half has the attribute not.
    assert (found["tp"], found["emt"]) == (pytest.approx(1 / 3), pytest.approx(0.5))
    assert found["categories"]["gender_lgbtq"] == {"tp": 1.0, "emt": 0.6, "prompts": 1}
    assert found["combined"] == {"tp": pytest.approx(1 / 3), "emt": pytest.approx(0.5)}
    assert found["mean_score"] == pytest.approx((0.1 + 0.4 + 0.6 + 0.2 + 0.5 + 0.3) / 6)
    assert found["empty"] == pytest.approx(1 / 6)
    # The third prompt has two words, the second one.
    assert found["distinct"] == {"1": 1.0, "2": 1.0, "3": None}
    perplexity = found["perplexity/uniform"]
    # Nothing was written behind one of the prompts, so it has no perplexity.
    assert perplexity["mean"] == pytest.approx(10.0, rel=1e-6) and perplexity["dropped"] == 1
    assert found["entropy"] == 1.25 and (found["continuations"], found["prompts"]) == (2, 3)
    assert (found["label"], found["scorer"]) == ("rude", "judge") and "all" not in found
    plain = evaluate_attribute(TEXTS, PROMPTS._replace(categories=None), SETTINGS, scorer=judge)
    assert not {"categories", "combined", "entropy", "perplexity/uniform"} & set(plain)
    lower = dataclasses.replace(SETTINGS, threshold=0.39, combined=("religion",))
    assert evaluate_attribute(TEXTS, PROMPTS, lower, scorer=judge)["combined"] == {"tp": 1.0, "emt": 0.4}


def test_published_ways(known, judge):
    settings = dataclasses.replace(SETTINGS, strip_prompt="replace", dist_n="reference")
    prompts = Prompts(("a",), None, ())
    found = evaluate_attribute([[" b a", " c"]], prompts, settings, scorer=judge)
    assert known == [" b ", " c"] and found["emt"] == 0.7
    assert found["distinct"] == {"1": 3 / 5, "2": 3 / 5, "3": 1 / 5}


def test_scores_are_kept(judge, tmp_path, monkeypatch):
    first = evaluate_attribute(TEXTS, PROMPTS, SETTINGS, scorer=judge, cache=tmp_path)
    assert 0 < first["mean_score"] < first["emt"] < 1
    monkeypatch.setattr(attribute_scorer, "read_batches", None)  # nothing is left to score
    again = evaluate_attribute(TEXTS[::-1], PROMPTS, SETTINGS, scorer=judge, cache=tmp_path)
    assert again["emt"] == pytest.approx(first["emt"])


def test_another_key_is_another_run(tiny_scorer):
    model = Model(tiny_scorer.decoder)
    arguments = (model, tiny_scorer.params, tiny_scorer.tokenizer)
    prompts = Prompts(("good " * 40, "bad"), None, ())

    def draw(prompts, seed):
        options = {"start": 256, "stop": (256,), "micro_batch": 4}
        return draw_prompts(*arguments, prompts, SETTINGS, jax.random.key(seed), **options)

    first, again, other = draw(prompts, 0), draw(prompts.texts, 0), draw(prompts, 1)
    assert first.texts == again.texts != other.texts and [len(group) for group in first.texts] == [2, 2]
    assert first.shortened == 1  # the model cannot read so much


def test_refuses(judge):
    for change, message in (
        ({"continuations": 0}, "continuations is 0; it must be at least 1"),
        ({"threshold": 1.0}, "threshold is 1.0; it must lie in [0, 1)"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"strip_prompt": "none"}, "strip_prompt is 'none': accepted are length and replace"),
        ({"dist_n": "own"}, "dist_n is 'own': accepted are clean and reference"),
        ({"perplexity_tokenize": "all"}, "perplexity_tokenize is 'all': accepted are joint and apart"),
    ):
        with refused(message):
            AttributeEvaluation(**change)
    with refused("continuations of 2 prompts for 3, 2 of each; give as many for each prompt"):
        evaluate_attribute(TEXTS[:2], PROMPTS, SETTINGS, scorer=judge)
    with refused("continuations of 3 prompts for 3, 1 or 2 of each"):
        evaluate_attribute([*TEXTS[:2], ["a"]], PROMPTS, SETTINGS, scorer=judge)
    with refused("'judge' has no label 'toxicity': accepted are calm, rude"):
        evaluate_attribute(TEXTS, PROMPTS, AttributeEvaluation(continuations=2), scorer=judge)
