"""The model of `sst2_small.py` trained further on ToxiGen's annotated training texts, toxic and benign.

Base model and student of `unidetox/toxigen.py`.

Expect: dev perplexity unknown, not run yet.
Cost: some minutes on 2 CPU cores.
"""

from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.language_config import CorpusConfig, LanguageModelConfig, ModelConfig, SamplesConfig


def get_config() -> LanguageModelConfig:
    return LanguageModelConfig(
        corpus=CorpusConfig(sources=("toxigen",)),
        model=ModelConfig(name="runs/sst2_small/model"),
        training=LanguageModelling(updates=400, epochs=0.0, rows=8, row_length=128, lr=1e-3, selections=4),
        samples=SamplesConfig(count=8, max_new=32),
    )
