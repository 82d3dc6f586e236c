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
        corpus=CorpusConfig(sources=("sst2", "imdb/unsupervised_20k"), dev_texts=400),
        tokenizer=TokenizerConfig(vocabulary=4096),
        model=ModelConfig(width=256, layers=4, heads=4, positions=128),
        training=LanguageModelling(updates=1600, epochs=0.0, rows=8, row_length=128, lr=2e-3, selections=4),
        samples=SamplesConfig(count=8, prompts=("the movie is", "a"), max_new=48),
    )
