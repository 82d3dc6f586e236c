"""TREC, coarse classes, with a Bi-LSTM: soft-label distillation (Sucholutsky & Schonlau, IJCNN 2021).

1 sample a class, 1 block, 2 passes, length 30, labels that may be any number, fresh learners. Real batches of 256 and
600 outer steps, where the published runs took batches of 1,024 and 1,200 steps; the 2,604 word vectors of a GloVe
subset, where they had 8,679.

Published, for fresh learners: 62.0 +- 8.8 (200 nets). After 200 of the 600 steps we saw 57.0 +- 7.7 (50
nets; random texts of equal size 25.8 +- 10.0); not measured to the end yet.
Cost: about 6 minutes of distillation on 2 CPU cores, 1.5 GB.
"""

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.soft_label import clean
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        task=TaskConfig(name="trec", max_length=30),
        learner=LearnerConfig(name="bi_lstm", words=WordsConfig(vectors="glove-100d-subset")),
        method="soft_label",
        settings=clean(passes=2, length=30, initial_lr=1.5, lr=0.1, updates=600, decay_every=150, batch_size=256),
        evaluation=EvaluationConfig(
            students=200,
            baseline_students=10,
            recipe=Recipe(steps=200, lr=1e-3),
            full_epochs=10.0,
            full_lr=1e-3,
        ),
    )
