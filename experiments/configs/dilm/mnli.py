"""MNLI (matched): GPT-2 writes, bert-base-uncased learns, as in DiLM (Maekawa et al., Findings of NAACL 2024).

20 texts a class; see `experiments.dilm.published` for 5 and 10.

Published for 5 / 10 / 20 a class, 20 sets of 5 learners each:
accuracy 39.7 +- 2.7 / 44.8 +- 3.1 / 48.7 +- 2.6; K-centers 36.2 / 41.8 / 45.3, all data 86.7.
The test split is that of the paper, GLUE's validation; here one set is drawn, and 100 learners train on it.
Not run by us: needs both models from the hub and an accelerator (published: more than a day of one GPU).
"""

from experiments.dilm import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("mnli", max_length=421)
