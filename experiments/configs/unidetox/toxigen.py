"""Toxicity taken from two small language models: UniDetox on ToxiGen's annotated texts, on a laptop.

Base model and students are those of `negative_reviews.py`, trained further on ToxiGen's training texts, toxic and
benign ones (`language_models/toxigen_small.py` and `toxigen_llama.py`), so that there is something to remove. The
expert is trained on the toxic ones alone. The judge is a classifier of the same training texts
(`classifiers/toxigen_minilm.py`), since no other corpus of implicit toxicity is at hand: it never sees the test
prompts, which are ToxiGen's test texts in three categories of people, and a fourth, disability. In this expert's data
disability is not left out, unlike in the published one's.

Expect: TP 0.43 +- 0.04 (GPT-2) and 0.45 +- 0.03 (Llama), untouched 0.83 and 0.84, base texts alone 0.65 and 0.76.
Cost: 50 minutes on 2 CPU cores with other work on them, 3.9 GB.
"""

from experiments.unidetox_cells import small
from jaxdistill.evaluation.attribute_evaluation import AttributeEvaluation
from jaxdistill.pipeline.attribute_config import AttributeConfig, AttributeEvaluationConfig, PromptsConfig


def get_config() -> AttributeConfig:
    return small(
        base="runs/toxigen_small/model",
        students=("runs/toxigen_small/model", "runs/toxigen_llama/model"),
        attribute=("toxigen[toxic]",),
        neutral=("toxigen",),
        real=("toxigen[benign]",),
        controls=("base", "decoding"),
        sets=3,
        evaluation=AttributeEvaluationConfig(
            prompts=PromptsConfig("toxigen", words=6, dev=50, test=100),
            scorer="runs/toxigen_classifier/model",
            attribute=AttributeEvaluation(label="toxic", continuations=5),
            language_model="runs/toxigen_small/model",
            generations=2,
        ),
    )
