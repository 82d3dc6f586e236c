"""SST-2 with a small GPT-2 of one's own as GRADMM's language model and MiniLM as learner, 10 texts a class.

First make the language model:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/sst2_phrases.py \\
        --workdir=runs/sst2_phrases
"""

from experiments.gradmm import small
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return small("sst2", model="runs/sst2_phrases/model", per_class=10)
