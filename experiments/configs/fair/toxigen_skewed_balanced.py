"""The biased ToxiGen of `toxigen_skewed` with balanced training, by reweighting.

Expect: test 70.4 +- 1.3, GAP 98.5 +- 16.1 (20 learners); all data 76.0, GAP 100.8.
Cost: 0.6 minutes of distillation on 2 CPU cores, 0.8 GB.
Making the sentence vectors takes about two minutes.
"""

from experiments.fair import on_sentences
from jaxdistill.pipeline.config import BalanceConfig, ExperimentConfig


def get_config() -> ExperimentConfig:
    return on_sentences("toxigen", BalanceConfig(skew=0.8, objective="stratified_y", by="reweighting"))
