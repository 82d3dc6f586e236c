"""SST-2 with MiniLM as learner and a small GPT-2 of one's own as generator: DiLM on a laptop.

20 texts a class. First make the generator, which takes half an hour on 2 CPU cores:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/sst2_small.py \\
        --workdir=runs/sst2_small

Other sizes, and the language model before stage 1 ("vanilla LM"), are drawn without training anew:

    --config.settings.per_class=5 --config.settings.trained=<run>/generator        (or <run>/language_model)

Not run to the end yet; see docs/results.md.
"""

from experiments.dilm import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("sst2", generator="runs/sst2_small/model")
