"""End to end with real weights on the built-in reviews: the distilled set beats random texts of the same size."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import ROOT

from jaxdistill.pipeline.overrides import load_config
from jaxdistill.pipeline.run import run_experiment


@pytest.mark.needs_minilm
def test_two_learned_samples_beat_two_random_texts(tmp_path):
    """The quickstart with fewer outer steps and learners; 10 points are well below what it gains."""
    config = load_config(str(ROOT / "experiments" / "configs" / "quickstart.py"))
    outer = dataclasses.replace(config.settings.outer, updates=40, selections=1)
    config = dataclasses.replace(config, settings=dataclasses.replace(config.settings, outer=outer))
    evaluation = dataclasses.replace(config.evaluation, students=3, baseline_students=3)
    config = dataclasses.replace(config, evaluation=evaluation)
    result = run_experiment(config, tmp_path / "run", say=lambda line: None)
    assert result["paired"]["random"]["ci95"][0] > 0
    assert result["test"]["mean"] - result["baselines"]["random"]["mean"] > 10
