"""A small Llama that reads a film review and says what it thinks of it: GRADMM's language model on a laptop.

Its texts are IMDB's labelled reviews in pieces of 24 words, each with " it was bad" or " it was great" at the end. A
model of billions of words can judge without such texts; one of seven million parameters cannot, and gradients of a
head that tells nothing of the label match any text. One token of 35 is the label, and weighs 30 times as much as
others. All in lower case, as SST-2 is.

Expect: dev perplexity 141 a token (vocabulary 8,192; 2,000 pieces); 214, 178, 149 after a quarter, a half and three
quarters of the updates. It judges 60 % of 400 dev pieces right (AUC 0.70), and 59 % of SST-2's dev texts (0.64).
Without the weight of the label it learned a better perplexity in 6,000 updates (77 on its last batch) and next to
nothing of the label (AUC 0.60 and 0.56).
Cost: 11 minutes on 2 CPU cores, 1.8 GiB.
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
            sources=(),
            judged=("imdb",),
            ending=" it was {label}",
            label_words=("bad", "great"),
            window=24,
            lower=True,
            dev_texts=2000,
        ),
        tokenizer=TokenizerConfig(vocabulary=8192),
        model=ModelConfig(
            family="llama", width=256, layers=4, heads=4, kv_heads=2, intermediate=688, positions=128, dropout=0.0
        ),
        training=LanguageModelling(
            updates=4000, epochs=0.0, rows=8, row_length=128, answer_weight=30.0, lr=2e-3, selections=4
        ),
        samples=SamplesConfig(count=8, prompts=("i watched this",), max_new=48),
    )
