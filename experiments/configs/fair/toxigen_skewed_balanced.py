"""The biased ToxiGen of `toxigen_skewed` with balanced training, by reweighting.

Expect: test 70.4 +- 1.3, GAP 98.5 +- 16.1 (20 learners); all data 76.0, GAP 100.8.
Cost: 0.6 minutes of distillation on 2 CPU cores, 0.8 GB.
Making the sentence vectors takes about two minutes.
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import BalanceConfig, ExperimentConfig, WordsConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "toxigen",
        clean(
            blocks=5,
            passes=2,
            updates=600,
            decay_every=150,
            batch_size=512,
            lr=0.03,
            initial_lr=0.1,
            outer={"inits": 2, "selections": 4},
        ),
        words=WordsConfig(vectors="sentences:minilm", std=1.0),
        balance=BalanceConfig(skew=0.8, objective="stratified_y", by="reweighting"),
    )
