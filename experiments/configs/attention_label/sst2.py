"""SST-2 with bert-base-uncased as in Maekawa et al., ACL 2023.

1 sample a class, 1 step, unrestricted labels, [CLS] attention labels.

Published: no verified figure for 1 a class; the DiLM paper's row for 5 a class is 89.6 +- 0.4 accuracy.
Selected on the reported split (protocol paper), outer steps of 30 epochs of the official train split (63120 updates).
Not run by us: needs bert-base-uncased from the hub and an accelerator (about 2 GB of activations a sample).
"""

from experiments.attention_label import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("sst2", updates=63120)
