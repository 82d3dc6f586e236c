"""draft"""

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
        corpus=CorpusConfig(sources=()),
        tokenizer=TokenizerConfig(vocabulary=32000),
        model=ModelConfig(
            family="llama",
            width=4096,
            layers=32,
            heads=32,
            intermediate=11008,
            positions=4096,
            dropout=0.0,
            scan_layers=True,
            remat_layers=True,
        ),
        training=LanguageModelling(
            updates=1000,
            epochs=0.0,
            rows=8,
            row_length=2048,
            lr=3e-4,
            beta2=0.95,
            weight_decay=0.1,
            dtype="bfloat16",
            keep="last",
        ),
        samples=SamplesConfig(count=0),
        devices=8,
        model_devices=1,
    )
