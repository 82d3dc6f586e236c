"""A controlled bias: two classes and two groups in 16 dimensions, 80 % of the training vectors in two of four cells.

One learned vector a class, 5 passes; vanilla. Give `--config.task.balance.objective=stratified_y` for balanced
training, or `--config.settings.adversary=0.8`, `.contrastive=0.1`, `.group_difference=0.1` for the other variants.

Expect: test 65.6 +- 1.7, GAP 39.3 +- 6.5 (20 learners); all data 65.5, GAP 46.5.
Cost: 0.5 minutes of distillation on 2 CPU cores, 0.7 GB.
"""

from experiments.fair import on_bias
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return on_bias()
