"""A language model of Shakespeare's plays: 4 layers x 128, 0.9 M parameters, own byte pairs; the quick one to try.

Texts are the speeches of `lm_corpora/tiny_shakespeare.txt.gz` under `$JAXDISTILL_DATA`, parted by blank lines; any text
file will do: `--config.corpus.sources=plays.txt`. Three epochs of 0.4 M tokens.

Expect: dev perplexity 47 a token (vocabulary 1,024; 714 speeches).
Cost: about 4 minutes on 2 CPU cores, 1.0 GiB.
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
