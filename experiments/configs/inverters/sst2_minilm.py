"""Inverts MiniLM's sentence vectors to phrases of film reviews: encoder and decoder of two layers each, on a laptop.

Used by `dallme/sst2.py`. Texts are cut to 24 tokens, which holds 9 of 10 of SST-2's.

Expect: round trip of dev texts unknown, not run yet.
Cost: unknown.
"""

from jaxdistill.evaluation.embed_space import EmbedSpace
from jaxdistill.methods.inversion import Correcting
from jaxdistill.methods.inverter_training import InverterTraining
from jaxdistill.pipeline.inverter_config import InverterConfig
from jaxdistill.pipeline.language_config import CorpusConfig


def get_config() -> InverterConfig:
    return InverterConfig(
        space=EmbedSpace(model="minilm", max_length=64),
        corpus=CorpusConfig(sources=("sst2",), dev_texts=400),
        vocabulary=8192,
        length=24,
        width=256,
        layers=2,
        heads=4,
        intermediate=512,
        training=InverterTraining(updates=6000, corrector_updates=4000, rows=64, lr=1e-3),
        correcting=Correcting(steps=10, beams=3),
    )
