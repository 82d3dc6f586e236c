"""TREC, coarse classes, with a convolution before an LSTM, fixed weights (Sucholutsky & Schonlau, IJCNN 2021).

10 samples a class, 1 pass, length 50.

Published, one net: 74.2. Not measured by us. Cost: about 5 minutes on 2 CPU cores (estimated).
"""

from experiments.soft_label import experiment, fixed
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return fixed(
        experiment(
            "trec",
            "conv_lstm",
            length=50,
            samples=10,
            initial_lr=1.5,
            updates=1260,
            decay_every=120,
            batch_size=256,
        )
    )
