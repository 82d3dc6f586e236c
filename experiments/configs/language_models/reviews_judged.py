"""A small Llama that reads a film review and says what it thinks of it: GRADMM's language model on a laptop.

Half of its texts are unlabelled reviews of IMDB; the other half are the last 40 words of labelled ones, with " it was
bad" or " it was great" at the end. A model of billions of words can tell that without such texts; one of five million
parameters cannot, and gradients of a head that tells nothing of the label match any text. All in lower case, as SST-2
is.

Expect: unknown.
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
        corpus=CorpusConfig(
            sources=("imdb/unsupervised_20k",),
            judged=("imdb",),
            ending=" it was {label}",
            label_words=("bad", "great"),
            last_words=40,
            lower=True,
            dev_texts=600,
        ),
        tokenizer=TokenizerConfig(vocabulary=8192),
        model=ModelConfig(
            family="llama", width=256, layers=4, heads=4, kv_heads=2, intermediate=688, positions=128, dropout=0.0
        ),
        training=LanguageModelling(updates=3000, epochs=0.0, rows=8, row_length=128, lr=2e-3, selections=4),
        samples=SamplesConfig(count=8, prompts=("i watched this",), max_new=48),
    )
