"""SST-2 with Phi-1.5 (Nguyen et al. 2025): 50 texts a class that Phi-1.5 is fine-tuned on.

Other students read the same texts: `experiments.evaluate` with `--config.learner.name=facebook/opt-1.3b` or
`meta-llama/Llama-3.2-1B`. Needs the weights from the hub and an accelerator; not run by us.

Expect: 90.0 with 100 texts by Phi-1.5 against 91.2 with 1,000 real ones (from a review of the paper, not its tables).
"""

from experiments.gradmm import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("sst2")
