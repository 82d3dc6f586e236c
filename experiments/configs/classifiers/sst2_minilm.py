"""Sentiment of a text: MiniLM fine-tuned on 12,000 phrases of SST-2, one epoch. Labels: negative, positive.

Expect: dev 88.1 (phrases, as in training), test 85.3 (the 872 sentences of the validation split); one training.
`--config.train_texts=0` takes all 62,350 phrases.
Cost: 5 minutes on 2 CPU cores with other work on them.
"""

from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig


def get_config() -> ClassifierConfig:
    return ClassifierConfig(
        task=TaskConfig(name="sst2"), learner=LearnerConfig(name="minilm"), lrs=(5e-5,), epochs=1, train_texts=12_000
    )
