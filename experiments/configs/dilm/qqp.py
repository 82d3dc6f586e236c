"""QQP: GPT-2 writes, bert-base-uncased learns, as in DiLM (Maekawa et al., Findings of NAACL 2024).

20 texts a class; see `experiments.dilm.published` for 5 and 10.

Published for 5 / 10 / 20 a class, 20 sets of 5 learners each:
mean of accuracy and F1 58.8 +- 5.2 / 62.2 +- 3.3 / 64.4 +- 2.6; K-centers 60.7 / 60.9 / 62.6, all data 89.6.
The test split is that of the paper, GLUE's validation; here one set is drawn, and 100 learners train on it.
Not run by us: needs both models from the hub and an accelerator (published: more than a day of one GPU).
"""

from experiments.dilm import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("qqp", max_length=313)
