"""TREC, coarse classes, with a Bi-LSTM that always starts from the same weights (Sucholutsky & Schonlau, IJCNN 2021).

Otherwise as `trec_bi_lstm`. Results for fixed and for fresh weights cannot be compared.

Published, one net: 87.4 (1 sample a class), 87.8 (20). Not measured by us. Cost: as `trec_bi_lstm`.
"""

from experiments.configs.soft_label import trec_bi_lstm
from experiments.soft_label import fixed
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return fixed(trec_bi_lstm.get_config())
