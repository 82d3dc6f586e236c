from __future__ import annotations

import base64
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxdistill.core.types import Synthetic
from jaxdistill.evaluation import report_plots as plots
from jaxdistill.evaluation.report import write_report
from jaxdistill.evaluation.report_sections import quantity
from jaxdistill.io.distilled import DistilledSet

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects text and attributes, and checks that tags close in order."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str | None] = []
        self.links: list[str | None] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name == "src"]
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _score(mean):
    return {
        "mean": mean, "std": 1.25, "ddof": 1, "n": 3, "seeds": 1, "values": [mean - 1.25, mean, mean + 1.25],
        "ci95": [mean - 3.0, mean + 3.0], "clustered": False,
    }  # fmt: skip


RESULT = {
    "task": "toy/<reviews>",
    "method": "attention_label",
    "per_class": 1,
    "metric": "accuracy",
    "protocol": "clean",
    "test": _score(84.2),
    "dev": _score(85.5),
    "baselines": {"random": _score(55.1), "full": {"mean": 91.2, "std": None, "ddof": 1, "n": 1, "values": [91.2]}},
    "paired": {"random": {"mean": 29.1, "ci95": [28.0, 30.2]}},
    "cost": {"distill_seconds": 812.0, "flops": 3.14e14, "peak_bytes": 9.1e8, "real_examples": 9600, "x": None},
    "versions": {"jax": "0.10.2"},
    "notes": ["2 texts longer than 64 positions were <truncated>."],
    "learning_rates": {"names": ["layer 0", "head"], "values": [[0.01, 0.2]]},
}
METRICS = [{"step": step, "loss": 1.0 / (step + 1)} | ({"dev/accuracy": 50.0 + step} if step % 5 == 0 else {})
           for step in range(20)]  # fmt: skip


def _distilled(**changes) -> DistilledSet:
    generator = np.random.default_rng(0)
    parts = {
        "labels": np.asarray([0, 1], np.int32),
        "label_names": ("neg$ative", "<positive>"),
        "manifest": {"config": {"method": {"steps": 1}}},
        "synthetic": Synthetic(
            inputs=np.zeros((2, 3, 4), np.float32),
            labels=np.asarray([[1.5, -0.25], [-2.0, 0.125]], np.float32),
            attention=generator.normal(size=(2, 2, 2, 1, 3)).astype(np.float32),
            raw_lr=np.zeros((1, 2), np.float32),
        ),
    }
    return DistilledSet(**(parts | changes))


@pytest.fixture(scope="module")
def full_report(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    words = [[[("good", 0.81), ("<fine>", 0.75)]] * 3, [[("bad", 0.9)]] * 3]
    write_report(path, RESULT, METRICS, _distilled(), nearest_words=words)
    return path.read_text()


def test_the_page_is_well_formed_and_needs_nothing_else(full_report):
    page = Page(full_report)
    assert page.links == [] and len(page.sources) == 4
    for source in page.sources:
        assert source is not None
        kind, data = source.split(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert "http" not in full_report and "<script" not in full_report


@pytest.mark.parametrize(
    "words",
    [
        "toy/<reviews>: attention_label",
        "84.20",
        "± 1.25 (95 % interval 81.20 to 87.20) over 3 trainings; baselines: random 55.10, full 91.20.",
        "Paired difference to random: +29.10 points (95 % interval 28.00 to 30.20).",
        "attention_label, dev 85.50",
        "82.95 / 85.45",
        "1.500 -0.250",
        "13 min 32 s",
        "314 TFLOP",
        "910 MB",
        "9,600",
        "good",
        "2 texts longer than 64 positions were <truncated>.",
        '"steps": 1',
        '"jax": "0.10.2"',
    ],
)
def test_the_page_says(full_report, words):
    assert words in Page(full_report).text


def test_the_same_run_gives_the_same_bytes(full_report, tmp_path):
    words = [[[("good", 0.81), ("<fine>", 0.75)]] * 3, [[("bad", 0.9)]] * 3]
    write_report(tmp_path / "again.html", RESULT, METRICS, _distilled(), nearest_words=words)
    assert (tmp_path / "again.html").read_text() == full_report


def test_texts_and_probabilities_of_a_text_level_set(tmp_path):
    distilled = _distilled(
        synthetic=None,
        texts=[("a <b>bold</b> claim", "x"), ("second", "y")],
        text_columns=("premise", "hypothesis"),
        soft_labels=np.asarray([[0.9, 0.1], [0.25, 0.75]], np.float32),
    )
    write_report(tmp_path / "report.html", {"task": "t", "method": "random"}, [], distilled)
    page = Page((tmp_path / "report.html").read_text())
    assert page.sources == []
    assert "a <b>bold</b> claim" in page.text and "0.250 0.750" in page.text and "(probabilities)" in page.text


@pytest.mark.parametrize(
    ("result", "metrics", "pictures"),
    [
        ({}, [], 0),
        ({"test": None, "baselines": {"full": None}, "paired": {"random": None}, "cost": None}, [{"step": 0}], 0),
        ({"test": {"mean": 50.0, "std": None, "ci95": None}}, [{"step": 0, "loss": float("nan")}], 1),
        ({"baselines": {"random": _score(50.0)}}, [{"step": 0, "dev/accuracy": 0.5}], 2),
    ],
)
def test_absent_parts_are_left_out(tmp_path, result, metrics, pictures):
    write_report(tmp_path / "report.html", result, metrics, None)
    assert len(Page((tmp_path / "report.html").read_text()).sources) == pictures


def test_series_leaves_out_what_cannot_be_drawn():
    metrics = [{"step": 0, "loss": 1.0}, {"step": 1, "loss": float("inf")}, {"step": 2}, {"step": 3, "loss": 2}]
    steps, values = plots.series(metrics, "loss")
    np.testing.assert_array_equal(steps, [0, 3])
    np.testing.assert_array_equal(values, [1.0, 2.0])


def test_smooth_is_a_centred_mean():
    np.testing.assert_allclose(plots.smooth(np.asarray([0.0, 3.0, 6.0, 0.0])), [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(plots.smooth(np.full(200, 2.5)), np.full(200, 2.5))


def test_bars_stand_for_means_and_intervals():
    figure = plots.score_bars({"ours": _score(80.0), "full": {"mean": 90.0}}, "ours", "accuracy")
    axes: Any = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [80.0, 90.0]
    low, high = axes.collections[0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((77.0, 83.0))
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()


@pytest.mark.parametrize(("steps", "groups", "bars"), [(1, 3, 3), (4, 1, 4), (4, 3, 0)])
def test_learning_rates_by_step_and_group(steps, groups, bars):
    values = np.arange(1, steps * groups + 1, dtype=np.float64).reshape(steps, groups)
    axes: Any = plots.learning_rates([f"g{i}" for i in range(groups)], values).axes[0]
    assert [bar.get_width() for bar in axes.patches] == (values.ravel().tolist() if bars else [])
    if not bars:
        np.testing.assert_array_equal(np.ravel(axes.collections[0].get_array()), values.T.ravel())


def test_attention_is_the_mean_of_the_heads_softmax():
    scores = np.zeros((1, 1, 2, 1, 2))
    scores[0, 0, 0, 0] = [np.log(3.0), 0.0]
    axes: Any = plots.attention(scores, ["a"]).axes[0]
    np.testing.assert_allclose(np.ravel(axes.collections[0].get_array()), [0.625, 0.375])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("flops", 2.5e12, "2.5 TFLOP"), ("peak_bytes", 512, "512 B"), ("real_examples", 1000, "1,000"), ("x", "y", "y")],
)
def test_quantity(name, value, words):
    assert quantity(name, value) == words
