"""ToxiGen as MiniLM sentence vectors; toxic or benign, the groups are the 13 that the sentences speak of.

Five blocks of one vector a class, 2 passes; vanilla. Variants as in `toy_bias`.

Expect: test 74.4 +- 0.9, GAP 92.3 +- 9.1 (20 learners); none of balanced training, adversary and group difference
lowered GAP:
the groups hardly differ in their share of toxic sentences, and most of GAP is the noise of 26 small cells.
Cost: 1 minute of distillation on 2 CPU cores, 1 GB.
Making the sentence vectors takes about two minutes.
"""

from experiments.fair import on_sentences
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return on_sentences("toxigen")
