"""ToxiGen as MiniLM sentence vectors, with a training split that is biased on purpose, as that of Moji is.

In training 80 % of the sentences on half of the 13 groups are toxic, and 80 % of those on the others benign; dev and
test are as they are. Otherwise as `toxigen`; vanilla.

Expect: test 68.5 +- 1.4, GAP 175.5 +- 9.8 (20 learners); all data 75.0, GAP 150.9.
Cost: 0.6 minutes of distillation on 2 CPU cores, 0.8 GB.
Making the sentence vectors takes about two minutes.
"""

from experiments.fair import on_sentences
from jaxdistill.pipeline.config import BalanceConfig, ExperimentConfig


def get_config() -> ExperimentConfig:
    return on_sentences("toxigen", BalanceConfig(skew=0.8))
