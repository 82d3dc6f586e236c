"""The built-in reviews, 80 % of the training texts of a label from one group of writers, as MiniLM sentence vectors.

Five blocks of one vector a class, 2 passes; vanilla. Variants as in `toy_bias`.

Expect: test 73.3 +- 3.0, GAP 14.4 +- 4.0 (20 learners); all data 80.7, GAP 23.4.
Cost: 0.6 minutes of distillation on 2 CPU cores, 0.8 GB.
Making the sentence vectors takes about two minutes.
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import ExperimentConfig, WordsConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "toy/reviews:0.8",
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
    )
