"""SST-2 with MiniLM as learner and a small GPT-2 of one's own as generator: DiLM on a laptop.

20 texts a class. First make the generator:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/sst2_phrases.py \\
        --workdir=runs/sst2_phrases

Other sizes, and the language model before stage 1 ("vanilla LM"), are drawn without training anew:

    --config.settings.per_class=5 --config.settings.trained=<run>/generator        (or <run>/language_model)

`--config.seeds=6 --config.evaluation.students=1` with `trained` draws six sets of one generator.

Expect: test 65.3 +- 3.5 with 5 a class (6 sets of one generator, one learner each) against 58.4 +- 3.2 of the vanilla
LM, 60.6 +- 3.8 of K-centers, 56.5 +- 7.4 of random texts.
Cost: 65 minutes on 2 CPU cores with other work on them, 4.6 GB; 2 minutes for a set and its learner.
"""

from experiments.dilm import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("sst2", generator="runs/sst2_phrases/model")
