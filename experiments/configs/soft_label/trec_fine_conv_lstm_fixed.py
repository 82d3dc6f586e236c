"""TREC, 50 fine classes, with a convolution before an LSTM, fixed weights (Sucholutsky & Schonlau, IJCNN 2021).

1 sample a class, 1 pass, length 20.

Published, one net: 52.8. Not measured by us. Cost: about 5 minutes on 2 CPU cores (estimated).
"""

from experiments.soft_label import experiment, fixed
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return fixed(
        experiment(
            "trec_fine",
            "conv_lstm",
            length=20,
            initial_lr=6.5,
            lr=0.1,
            updates=1260,
            decay_every=120,
            batch_size=256,
        )
    )
