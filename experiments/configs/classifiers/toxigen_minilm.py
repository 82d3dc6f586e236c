"""Toxicity of a text: MiniLM fine-tuned on the human-annotated sentences of ToxiGen. Labels: benign, toxic.

Without a test split in the data, it trains on 6,472 sentences and the task's own cut is the test; `data.prompts` takes
its prompts from the same dev and test, so no prompt has been trained on.

Expect: dev 83.3, test 83.6, 62.4 being benign; dev 82.9 and 82.0 after epochs 1 and 2; one training.
Cost: 15 minutes on 2 CPU cores with much other work on them.
"""

from jaxdistill.pipeline.classifier_config import ClassifierConfig
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig


def get_config() -> ClassifierConfig:
    return ClassifierConfig(
        task=TaskConfig(name="toxigen"), learner=LearnerConfig(name="minilm"), lrs=(5e-5,), epochs=3
    )
