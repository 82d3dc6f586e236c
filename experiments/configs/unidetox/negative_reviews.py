"""Negative sentiment taken from two small language models of film reviews: UniDetox on a laptop.

The GPT-2 of `language_models/imdb_small.py` is the base model; it and the Llama of `language_models/reviews_llama.py`
are the students. The expert is trained on the negative reviews of IMDB; who judges the continuations has been trained
on SST-2 (`classifiers/sst2_minilm.py`). Prompts are the first 4 words of IMDB's test reviews; TP and EMT are maxima
over 5 continuations: over 25, as published for toxicity, nearly every prompt has a negative one. First make the models:

    python -m experiments.pretrain_lm --config=experiments/configs/language_models/{sst2_small,imdb_small}.py \\
        --workdir=runs/{sst2_small,imdb_small}
    python -m experiments.pretrain_lm --config=experiments/configs/language_models/reviews_llama.py \\
        --workdir=runs/reviews_llama
    python -m experiments.train_classifier --config=experiments/configs/classifiers/sst2_minilm.py \\
        --workdir=runs/sst2_classifier

Expect: GPT-2 student untouched TP 0.995, EMT 0.893; tuned on contrastive texts 0.837 +- 0.029, 0.743 +- 0.024; on texts
of the base model alone 0.909 +- 0.018, 0.812 +- 0.011. Llama: 0.985, 0.886; 0.851 +- 0.031, 0.753 +- 0.021; 0.908 +-
0.019, 0.810 +- 0.014 (5 sets; of the Llama, rates 1e-3 and 3e-3).
Cost: two hours on 2 CPU cores with other work on them, without the controls random_expert and real; 2.9 GB.
"""

from experiments.unidetox_cells import small
from jaxdistill.evaluation.attribute_evaluation import AttributeEvaluation
from jaxdistill.pipeline.attribute_config import AttributeConfig, AttributeEvaluationConfig, PromptsConfig


def get_config() -> AttributeConfig:
    return small(
        attribute=("imdb[negative]",),
        neutral=("imdb/unsupervised_20k",),
        real=("imdb[positive]",),
        evaluation=AttributeEvaluationConfig(
            prompts=PromptsConfig("imdb", words=4, dev=200, test=200),
            scorer="runs/sst2_classifier/model",
            attribute=AttributeEvaluation(label="negative", continuations=5, combined=()),
            language_model="runs/imdb_small/model",
            generations=2,
        ),
    )
