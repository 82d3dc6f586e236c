"""TinyStories-656K, a Llama of 2 layers x 128 with weights of its own, taught to write film reviews.

Texts are those of `sst2_small.py`. A second family beside its GPT-2, for what has to be shown on more than one
architecture. Without the hub, put the model's folder under `$JAXDISTILL_WEIGHTS` and give its name there:
`--config.model.name=tinystories-656k`.

Expect: dev perplexity 37.8 a token (vocabulary 2,048; 400 texts of both sources); 48.9, 41.3, 38.4 after a quarter, a
half and three quarters of the updates.
Cost: 19 minutes on 2 CPU cores with other work on them, 1.0 GiB.
"""

from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.language_config import CorpusConfig, LanguageModelConfig, ModelConfig, SamplesConfig


def get_config() -> LanguageModelConfig:
    return LanguageModelConfig(
        corpus=CorpusConfig(sources=("sst2", "imdb/unsupervised_20k"), dev_texts=400),
        model=ModelConfig(name="raincandy-u/TinyStories-656K"),
        training=LanguageModelling(updates=4000, epochs=0.0, rows=8, row_length=128, lr=2e-3, selections=4),
        samples=SamplesConfig(count=8, prompts=("the movie is", "a"), max_new=48),
    )
