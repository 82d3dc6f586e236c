"""SST-5 with a Bi-RNN that always starts from the same weights (Sucholutsky & Schonlau, IJCNN 2021).

1 sample a class, 1 pass, length 56, labels through a softmax.

Published, one net: 36.0 (1 sample a class), 36.8 (20). Not measured by us.
Cost: about 15 minutes on 2 CPU cores (estimated).
"""

from experiments.soft_label import experiment, fixed
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return fixed(
        experiment(
            "sst5",
            "bi_rnn",
            length=56,
            label_kind="soft",
            initial_lr=0.5,
            lr=0.01,
            updates=1260,
            decay_every=270,
            batch_size=256,
        )
    )
