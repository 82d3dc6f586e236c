"""The model of `sst2_small.py` trained further on 20,000 unlabelled reviews of IMDB alone: it writes reviews.

Base model and student of `unidetox/negative_reviews.py`. (Where base model and expert are trained on texts of different
kinds, their contrast is mostly one of kinds: of a base model that knows SST-2's phrases too and an expert on reviews,
the contrast wrote fragments of 4 words.)

Expect: dev perplexity 185 a token (vocabulary 4,096; 200 reviews).
Cost: 8 minutes on 2 CPU cores with other work on them, 1.4 GiB.
"""

from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.language_config import CorpusConfig, LanguageModelConfig, ModelConfig, SamplesConfig


def get_config() -> LanguageModelConfig:
    return LanguageModelConfig(
        corpus=CorpusConfig(sources=("imdb/unsupervised_20k",), dev_texts=200),
        model=ModelConfig(name="runs/sst2_small/model"),
        training=LanguageModelling(updates=800, epochs=0.0, rows=8, row_length=128, lr=1e-3, selections=4),
        samples=SamplesConfig(count=8, prompts=("I watched this",), max_new=48),
    )
