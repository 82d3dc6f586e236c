"""IMDB with a TextConvNet, fresh learners: soft-label distillation (Sucholutsky & Schonlau, IJCNN 2021).

10 samples a class, 1 block, 5 passes. The first 150 words of a review, real batches of 128 and 600 outer steps, where
the published runs took 400 words, batches of 1,024 and 2,500 steps; the 2,604 word vectors of a GloVe subset, where
they had 30,000.

Published: 74.3 +- 3.0 (20 nets, classes called from probability 0.62 on, which costs accuracy).
Expect: test 63.9 +- 1.3 (20 learners), random texts 53.7 +- 2.0, k-center 53.5 +- 0.2, herding 56.5 +- 0.6, teacher
labels 53.8 +- 1.2, all data 73.2.
Cost: 13 minutes of distillation on 2 CPU cores with other work on them, 1.4 GB.
"""

from experiments.soft_label import experiment
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "imdb",
        "text_cnn",
        length=150,
        students=20,
        full_epochs=1.0,
        samples=10,
        passes=5,
        initial_lr=0.05,
        updates=600,
        decay_every=200,
        batch_size=128,
    )
