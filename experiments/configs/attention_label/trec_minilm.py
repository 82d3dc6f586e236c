"""TREC, coarse classes, with MiniLM, preset clean of distillation with attention labels (Maekawa et al., ACL 2023).

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one step size a layer.

Expect: not measured to the end yet; dev above 80 after 200 outer steps in a trial.
Cost: about 11 minutes of distillation on 2 CPU cores, 2.5 GB.
"""

from experiments.attention_label import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("trec", updates=1000, students=100, baseline_students=5)
