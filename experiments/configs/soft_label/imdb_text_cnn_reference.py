"""IMDB with a TextConvNet as the published code runs it (Sucholutsky & Schonlau, IJCNN 2021): every quirk of it.

10 samples a class, 1 block, 5 passes, 400 words, 2,500 outer steps with real batches of 1,024. Give the whole GloVe
file by `--config.learner.words.vectors=glove.6B.100d.txt`.

Published, for fresh learners: 74.3 +- 3.0 (20 nets). Not measured by us.
Cost: published runs took 3 to 4 hours on a GPU.
"""

from experiments.soft_label import reference
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return reference(
        "imdb",
        "text_cnn",
        length=400,
        words=30_000,
        epoch=25,
        students=20,
        samples=10,
        passes=5,
        initial_lr=0.01,
        updates=2500,
        decay_every=250,
    )
