"""The model of `sst2_small.py` trained further on ToxiGen's annotated training texts, toxic and benign.

Base model and student of `unidetox/toxigen.py`.

Expect: dev perplexity 74.9 after 400 updates.
Cost: 3 minutes on 2 CPU cores with other work on them, 1.3 GB.
"""

from experiments.unidetox_cells import further_on_toxigen
from jaxdistill.pipeline.language_config import LanguageModelConfig


def get_config() -> LanguageModelConfig:
    return further_on_toxigen("runs/sst2_small/model")
