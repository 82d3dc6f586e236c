"""SST-2: GPT-2 writes, bert-base-uncased learns, as in DiLM (Maekawa et al., Findings of NAACL 2024).

20 texts a class; see `experiments.dilm.published` for 5 and 10.

Published for 5 / 10 / 20 a class, 20 sets of 5 learners each:
accuracy 72.5 +- 5.9 / 76.3 +- 4.6 / 80.3 +- 2.8; K-centers 70.8 / 75.9 / 79.8, vanilla LM 65.2 / 71.7 /
77.6, all data 92.7.
The test split is that of the paper, GLUE's validation; here one set is drawn, and 100 learners train on it.
Not run by us: needs both models from the hub and an accelerator (published: more than a day of one GPU).
"""

from experiments.dilm import published
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return published("sst2", max_length=68)
