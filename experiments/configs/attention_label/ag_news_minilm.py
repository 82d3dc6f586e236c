"""AG News with MiniLM, preset clean of distillation with attention labels (Maekawa et al., ACL 2023).

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one step size a layer.

Expect: dev 88.5; test not measured to the end yet.
Cost: about 20 minutes of distillation on 2 CPU cores, 3 GB.
"""

from experiments.attention_label import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    # A learner takes most of a minute on the 7,600 test rows, the full data an hour and a half an epoch.
    return with_minilm("ag_news", updates=800, row_length=128, students=5, baseline_students=2, full_epochs=0.1)
