"""SST-2 with MiniLM, preset clean of distillation with attention labels (Maekawa et al., ACL 2023).

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one step size a layer.

Expect: test 81.9 +- 0.4 (one distillation, 100 learners), dev 86.2; random texts of equal size 55.6 +- 2.9,
fine-tuning on all data 89.3.
Cost: 28 minutes of distillation on 2 CPU cores, 2.5 GB.
"""

from experiments.attention_label import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("sst2", updates=3000, students=100, baseline_students=5)
