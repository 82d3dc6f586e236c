"""A small Llama for film reviews: 4 layers x 256 with two key heads, its own 4,096 byte pairs, from scratch.

Texts are 20,000 unlabelled reviews of IMDB. A student of another architecture than the GPT-2 of `imdb_small.py` and
about as large (`unidetox/negative_reviews.py`).

Expect: dev perplexity 118 a token (vocabulary 4,096; 200 reviews); 230, 157, 126 after a quarter, a half and three
quarters of the updates.
Cost: 10 minutes on 2 CPU cores with other work on them, 1.4 GiB.
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
        corpus=CorpusConfig(sources=("imdb/unsupervised_20k",), dev_texts=200),
        tokenizer=TokenizerConfig(vocabulary=4096),
        model=ModelConfig(
            family="llama", width=256, layers=4, heads=4, kv_heads=2, intermediate=688, positions=128, dropout=0.0
        ),
        training=LanguageModelling(updates=2000, epochs=0.0, rows=8, row_length=128, lr=2e-3, selections=4),
        samples=SamplesConfig(count=8, prompts=("I watched this",), max_new=48),
    )
