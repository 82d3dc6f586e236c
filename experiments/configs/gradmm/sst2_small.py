"""SST-2 with a small language model of one's own and MiniLM as learner, 10 texts a class.

First make the language model:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/reviews_judged.py \\
        --workdir=runs/reviews_judged

Controls: `--config.settings.making=sampling --config.settings.filtering.distance_weight=0` lets the language model go
on from the prefix, `--config.settings.prefix="this is a {label} movie :"` beside them from one that tells the label.
"""

from experiments.gradmm import small
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return small("sst2")
