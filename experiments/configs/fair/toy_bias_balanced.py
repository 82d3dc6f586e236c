"""The controlled bias of `toy_bias` with balanced training: the groups of each class made even by resampling.

Expect: test 70.4 +- 0.6, GAP 6.8 +- 3.7 (20 learners); all data 72.3, GAP 1.9.
Cost: 0.6 minutes of distillation on 2 CPU cores, 0.7 GB.
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import BalanceConfig, ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "toy/bias",
        clean(
            passes=5,
            updates=400,
            decay_every=100,
            batch_size=512,
            lr=0.03,
            initial_lr=0.1,
            outer={"inits": 4, "selections": 4},
        ),
        balance=BalanceConfig(objective="stratified_y"),
    )
