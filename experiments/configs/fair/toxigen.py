"""ToxiGen as MiniLM sentence vectors; toxic or benign, the groups are the 13 that the sentences speak of.

Five blocks of one vector a class, 2 passes; vanilla. Variants as in `toy_bias`.

Expect: FIGURE_TOX
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import ExperimentConfig, WordsConfig


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
    )
