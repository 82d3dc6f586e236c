"""Moji: sentiment of tweets as DeepMoji vectors, groups by the English of the writer (Han et al., SustaiNLP 2022).

One learned vector a class, 10 blocks, 5 passes. Give the folder of the published files by `--config.task.data_dir`.
The paper has no table. Full-data anchors of fairlib, accuracy / fairness in percent: vanilla 72.3 / 61.2, balanced
training 74.1 / 82.9, adversarial 75.6 / 89.3.

Not measured by us: the data are not freely to be had. Cost: 4,900 outer steps, minutes on a GPU (estimated).
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "moji",
        clean(blocks=10, passes=5, updates=4900, decay_every=980),
    )
