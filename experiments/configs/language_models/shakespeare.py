"""TODO

Expect: dev perplexity TODO
Cost: TODO minutes.
"""

from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.language_config import (
    CorpusConfig,
    LanguageModelConfig,
    ModelConfig,
    SamplesConfig,
    TokenizerConfig,
)


def get_config() -> LanguageModelConfig:
    return LanguageModelConfig(
        corpus=CorpusConfig(sources=("lm_corpora/tiny_shakespeare.txt.gz",)),
        tokenizer=TokenizerConfig(vocabulary=1024),
        model=ModelConfig(width=128, layers=4, heads=4, positions=128),
        training=LanguageModelling(updates=600, epochs=0.0, rows=16, row_length=128, lr=3e-3, selections=4),
        samples=SamplesConfig(count=4, prompts=("ROMEO:\n",), max_new=64),
    )
