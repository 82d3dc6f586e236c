"""All figures of a set of texts together, against the parts they come from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxdistill.evaluation.diversity import diversity
from jaxdistill.evaluation.perplexity import text_perplexities
from jaxdistill.evaluation.report import write_report
from jaxdistill.evaluation.text_quality import Judge, text_quality
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.plain import plain

TRAINING = [("the film is good",), ("a dull <plot>",), ("we like the phone",), ("the food is bad",)]
TEXTS = [("A dull <plot>!",), ("the phone is good",)]


@pytest.fixture(scope="module")
def judged(tiny_scorer):
    return text_quality(TEXTS, Judge(TRAINING, tiny_scorer))


def test_figures(judged, tiny_scorer):
    figures = judged.figures
    joined = [text for (text,) in TEXTS]
    assert figures["texts"] == 2 and figures["diversity"] == diversity(joined)
    assert figures["fluency"] == {"perplexity/tiny": text_perplexities(tiny_scorer, joined).summary()}
    overlap = figures["overlap"]
    assert (overlap["copied"], overlap["contained"], overlap["longest_run"]) == (0.5, 0.5, 2.5)
    assert overlap["new_1grams"] == 0.0 and overlap["new_2grams"] == pytest.approx(1 / 5)
    assert judged.nearest == (TRAINING[1], TRAINING[0]) and judged.similarity == "words"
    np.testing.assert_allclose(judged.similarities, [1.0, 3 / 5])
    assert overlap["nearest_words"] == pytest.approx(0.8)
    assert json.loads(json.dumps(plain(figures))) == figures


def test_by_an_encoder_and_without_a_language_model():
    found = text_quality(TRAINING[2:3], Judge(TRAINING, encoder="tiny"))
    assert found.nearest == (TRAINING[2],) and found.similarity == "tiny"
    assert "fluency" not in found.figures
    assert found.figures["overlap"]["nearest_tiny"] == pytest.approx(1.0, abs=1e-5)


def test_pairs_are_read_as_one_text():
    found = text_quality([("a b", "c d")], Judge([("a b", "c x"), ("x b", "c d")]))
    assert found.figures["diversity"]["words"] == 4 and found.figures["overlap"]["longest_run"] == 3
    assert found.nearest == (("a b", "c x"),)


def test_the_report_shows_them(judged, tmp_path):
    distilled = DistilledSet(
        labels=np.asarray([0, 1], np.int32), label_names=("no", "yes"), manifest={}, texts=TEXTS, text_columns=("text",)
    )
    entry = {"sets": [judged.figures], "dev": judged.figures}
    write_report(tmp_path / "a.html", {"texts": entry}, [], distilled, written=judged)
    page = (tmp_path / "a.html").read_text()
    assert "<th>nearest training text</th><th>similarity (words)</th>" in page
    assert "<td>A dull &lt;plot&gt;!</td><td>a dull &lt;plot&gt;</td><td>1.00</td>" in page
    value = judged.figures["fluency"]["perplexity/tiny"]["mean"]
    shown = f"{value:.3f}" if value < 100 else f"{value:,.1f}"
    assert f"<td>perplexity/tiny: mean of the texts</td><td>{shown}</td><td>{shown}</td>" in page
    assert "<td>copies of a training text, as a share</td><td>0.500</td>" in page
    assert "<td>4-grams that no training text has, as a share</td><td>1.000</td>" in page
    write_report(tmp_path / "b.html", {"texts": {"sets": [judged.figures] * 2, "dev": judged.figures}}, [], distilled)
    page = (tmp_path / "b.html").read_text()
    assert "<th>set 0</th><th>set 1</th><th>dev texts</th>" in page and "nearest training text</th>" not in page
