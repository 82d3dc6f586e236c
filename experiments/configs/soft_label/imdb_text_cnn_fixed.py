"""IMDB with a TextConvNet that always starts from the same weights (Sucholutsky & Schonlau, IJCNN 2021).

Otherwise as `imdb_text_cnn`. Results for fixed and for fresh weights cannot be compared.

Published, one net: 76.3 (10 samples a class), 78.3 (1). Not measured by us. Cost: as `imdb_text_cnn`.
"""

from experiments.soft_label import experiment
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "imdb",
        "text_cnn",
        fixed=True,
        length=150,
        full_epochs=1.0,
        samples=10,
        passes=5,
        initial_lr=0.05,
        updates=600,
        decay_every=200,
        batch_size=128,
    )
