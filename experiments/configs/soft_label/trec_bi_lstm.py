"""TREC, coarse classes, with a Bi-LSTM: soft-label distillation (Sucholutsky & Schonlau, IJCNN 2021).

1 sample a class, 1 block, 2 passes, length 30, labels that may be any number, fresh learners. Real batches of 256 and
600 outer steps, where the published runs took batches of 1,024 and 1,200 steps; the 2,604 word vectors of a GloVe
subset, where they had 8,679.

Published, for fresh learners: 62.0 +- 8.8 (200 nets).
Expect: test 62.7 +- 7.1 (50 learners), random texts 25.8 +- 10.0, teacher-labelled ones 25.1 +- 1.1 (5 learners
each), all data 86.6 after ten epochs.
Cost: 8 minutes of distillation on 2 CPU cores with other work on them, 1.2 GB.
"""

from experiments.soft_label import experiment
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return experiment(
        "trec",
        "bi_lstm",
        length=30,
        passes=2,
        initial_lr=1.5,
        lr=0.1,
        updates=600,
        decay_every=150,
        batch_size=256,
    )
