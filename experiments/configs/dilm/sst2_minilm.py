"""SST-2 with MiniLM as learner and a small GPT-2 of one's own as generator: DiLM on a laptop.

20 texts a class. First make the generator:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/sst2_phrases.py \\
        --workdir=runs/sst2_phrases

Other sizes, and the language model before stage 1 ("vanilla LM"), are drawn without training anew:

    --config.settings.per_class=5 --config.settings.trained=<run>/generator        (or <run>/language_model)

`--config.seeds=6 --config.evaluation.students=1` with `trained` draws six sets of one generator.

Expect: test 73.1 +- 1.4 with 20 a class (4 sets of one generator, one learner each) against 69.8 +- 1.3 of the vanilla
LM and 69.7 +- 3.3 of K-centers; with 10, 71.9 +- 1.6 against 63.0 and 68.2; with 5, 66.1 +- 2.5 against 58.4 and 62.5.
Cost: two hours on 2 CPU cores with other work on them, 5.2 GB; 1 to 3 minutes for a set and its learner.
"""

from experiments.dilm import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return with_minilm("sst2", generator="runs/sst2_phrases/model")
