"""Moji as the published scripts of the vanilla variant in fact run: with the adversary on (Han et al., SustaiNLP 2022).

Labels of any value of one logit, called from 0.5 on; learners always start from the same weights; the last iterate.

Not measured by us: the data are not freely to be had.
"""

import dataclasses

from experiments.fair import experiment
from jaxdistill.methods.fair import released_vanilla
from jaxdistill.models.classic_learner import ClassicOptions
from jaxdistill.pipeline.config import ExperimentConfig, LearnerConfig


def get_config() -> ExperimentConfig:
    return dataclasses.replace(
        experiment(
            "moji",
            released_vanilla(
                blocks=10,
                passes=5,
                updates=4900,
                decay_every=980,
                epoch=98,
                label_kind="binary",
            ),
            students=2,  # all alike
        ),
        learner=LearnerConfig(name="mlp", network=ClassicOptions(fixed_init=True, one_logit=True, threshold=0.5)),
    )
