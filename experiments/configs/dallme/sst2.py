"""SST-2 in ten phrases a class, inverted from the centres of clusters of MiniLM's sentence vectors.

First train the inverter:

    python -m experiments.train_inverter --config=experiments/configs/inverters/sst2_minilm.py \\
        --workdir=runs/sst2_inverter

So small an inverter does not reach the round trip that the method asks for by default, a median cosine of 0.9: here
0.7 is enough, and how well it did is in the set's manifest and printed.

Expect: unknown, not run yet.
"""

from experiments.dallme import small
from jaxdistill.methods.inversion import Correcting
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return small(
        "sst2",
        inverter="runs/sst2_inverter/model",
        per_class=10,
        pool=20_000,
        least_cosine=0.7,
        correcting=Correcting(steps=10, beams=3),
    )
