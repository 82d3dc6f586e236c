"""A 7B Llama (32 layers x 4096, vocabulary 32,000) on eight devices: what a step takes, without a device or a text.

python -m experiments.pretrain_lm --config=experiments/configs/language_models/llama_7b.py --dry_run

Float32 parameters and optimiser, bfloat16 products, layers scanned and recomputed, 8 rows of 4,096 tokens. Parameters
and moments are cut over both axes of the mesh, 3.1 + 6.3 GiB a device on any mesh. Cut over "model" alone they would
take 37.7 GiB on 4 x 2 devices and 75.3 GiB on 8 x 1.

Bytes on one device, of the program that XLA's CPU compiler makes for eight devices. It computes bfloat16 products in
float32; the temporaries of accelerators differ. Outputs take the place of arguments.

    data x model    arguments    temporaries    together
    8 x 1           9.4 GiB      22.3 GiB       31.8 GiB
    4 x 2           9.4 GiB      19.3 GiB       28.8 GiB
    2 x 4           9.4 GiB      23.3 GiB       32.7 GiB
    1 x 8           9.4 GiB      33.1 GiB       42.5 GiB

Work: 1,919 TFLOP of matrix products a step on all devices together, recomputation included.
Expect: dev perplexity unknown, no model of this size has been trained here. To train one, give texts:
--config.corpus.sources=<...>.
Cost: the dry run takes 15 seconds (8 to 13 of them compile) and 0.5 GiB on one CPU core; minutes of a training were not
measured.
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
        corpus=CorpusConfig(sources=()),
        tokenizer=TokenizerConfig(vocabulary=32_000),
        model=ModelConfig(
            family="llama",
            width=4096,
            layers=32,
            heads=32,
            intermediate=11_008,
            positions=4096,
            dropout=0.0,
            scan_layers=True,
            remat_layers=True,
        ),
        training=LanguageModelling(
            updates=10_000,
            epochs=0.0,
            rows=8,
            row_length=4096,
            lr=3e-4,
            weight_decay=0.1,
            beta2=0.95,
            dtype="bfloat16",
            keep="last",
        ),
        samples=SamplesConfig(count=4),
        devices=8,
        model_devices=2,
    )
