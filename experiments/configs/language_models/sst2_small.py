"""A small language model in the manner of GPT-2 for film reviews: 4 layers x 256, 4.2 M parameters, own byte pairs.

Texts are the training split of SST-2 (its dev split is the dev part here too) and 20,000 unlabelled reviews of IMDB;
1.6 M of their 7.6 M tokens are seen. A generator to start from where GPT-2 cannot be had: it writes phrases of reviews,
not sentences that hold together. More updates go on falling.

Expect: dev perplexity 221 a token (vocabulary 4,096; 400 texts of both sources); 368, 283, 233 after a quarter, a half
and three quarters of the updates.
Cost: 27 minutes on 2 CPU cores with other work on them, 1.6 GiB.
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
