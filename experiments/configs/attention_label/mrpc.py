"""MRPC with bert-base-uncased as in Maekawa et al., ACL 2023.

1 sample a class, 1 step, unrestricted labels, [CLS] attention labels.

Published: no verified figure; accuracy and F1 and their mean are reported.
Selected on the reported split (protocol paper), outer steps of 30 epochs of the official train split (3420 updates).
Not run by us: needs bert-base-uncased from the hub and an accelerator (about 2 GB of activations a sample).
"""

from experiments.attention_label import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("mrpc", updates=3420)
