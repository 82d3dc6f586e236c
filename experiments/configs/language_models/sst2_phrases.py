"""A small language model in the manner of GPT-2 for the phrases of SST-2 alone: 4 layers x 256, own byte pairs.

Generator of `dilm/sst2_minilm.py`. Its 8,192 tokens are learned from SST-2 only, so that nearly every word of its
reviews is one token: a model this small, with tokens shared with IMDB, makes up words ("chivers", "technation").

Expect: dev perplexity 205 a token (vocabulary 8,192; 400 texts); 424, 284, 223 after a quarter, a half and three
quarters of the updates. DiLM's stage 0 goes on from there, to 9.9 with the classes' tokens.
Cost: 8 minutes on 2 CPU cores with other work on them, 1.6 GiB.
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
        corpus=CorpusConfig(sources=("sst2",), dev_texts=400),
        tokenizer=TokenizerConfig(vocabulary=8192),
        model=ModelConfig(width=256, layers=4, heads=4, positions=128),
        training=LanguageModelling(
            updates=1000, epochs=0.0, rows=16, row_length=64, truncate=True, lr=2e-3, selections=4
        ),
        samples=SamplesConfig(count=16, prompts=("the movie is", "a"), max_new=48),
    )
