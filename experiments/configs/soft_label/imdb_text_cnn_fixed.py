"""IMDB with a TextConvNet that always starts from the same weights (Sucholutsky & Schonlau, IJCNN 2021).

Otherwise as `imdb_text_cnn`. Results for fixed and for fresh weights cannot be compared.

Published, one net: 76.3 (10 samples a class), 78.3 (1). Not measured by us. Cost: as `imdb_text_cnn`.
"""

from experiments.configs.soft_label import imdb_text_cnn
from experiments.soft_label import fixed
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return fixed(imdb_text_cnn.get_config())
