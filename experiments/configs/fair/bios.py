"""Bias in Bios: 28 professions from BERT vectors of biographies, groups by gender (Han et al., SustaiNLP 2022).

One learned vector a class, 10 blocks, 3 passes. Give the folder of the published files by `--config.task.data_dir`.
The paper has no table. Full-data anchors of fairlib, accuracy / fairness in percent: vanilla 82.3 / 85.1, balanced
training 83.8 / 90.5, adversarial 81.7 / 90.7.

Not measured by us: the data are not freely to be had. Cost: 7,500 outer steps, minutes on a GPU (estimated).
"""

from experiments.fair import experiment
from jaxdistill.methods.fair import clean
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "bios",
        clean(blocks=10, passes=3, updates=7500, decay_every=2500),
    )
