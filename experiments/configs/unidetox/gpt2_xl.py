"""GPT-2 XL writes 640 texts that detoxify GPT-2 XL, OPT-6.7B, Falcon-7B and Llama-2-7B, as in UniDetox (ICLR 2025).

The expert is trained on Dynamically Generated Hate Speech (Vidgen et al. 2021): a csv of the hub's
LennardZuendorf/Dynamically-Generated-Hate-Speech-Dataset, here or under `$JAXDISTILL_DATA`. Prompts are those of
ToxiGen's annotated test split.

Published: perplexity of GPT-2 XL under Llama-2-7B falls from 17.28 to 12.23. TP and EMT as the paper has them are not
given here, since no certain source for them is at hand; both fall, more so out of distribution (disability).
The published learning rate of students is 5e-5 (1e-5 is reported too), chosen once for all.
Not run by us: it needs the models of the hub and accelerators that hold a 7B model with its optimiser (fp32 master
weights, 112 GB; `--config.student.lora_rank=16` needs 30 GB and is a different method).
"""

import dataclasses

from jaxdistill.evaluation.attribute_evaluation import AttributeEvaluation
from jaxdistill.methods.contrastive import ContrastiveTexts
from jaxdistill.methods.unidetox import published_expert, published_student
from jaxdistill.pipeline.attribute_config import AttributeConfig, AttributeEvaluationConfig, PromptsConfig


def get_config() -> AttributeConfig:
    return AttributeConfig(
        base="openai-community/gpt2-xl",
        attribute=("hate_speech:Dynamically Generated Hate Dataset v0.2.3.csv",),
        neutral=("lm_corpora/wikitext-2.validation.txt.gz",),
        real=("lm_corpora/wikitext-2.validation.txt.gz",),
        expert=published_expert(),
        texts=ContrastiveTexts(top_k=50, micro_batch=128),
        students=(
            "openai-community/gpt2-xl",
            "facebook/opt-6.7b",
            "tiiuae/falcon-7b",
            "meta-llama/Llama-2-7b-hf",
        ),
        student=dataclasses.replace(published_student(), dtype="bfloat16"),
        sets=1,
        student_seeds=5,
        evaluation=AttributeEvaluationConfig(
            prompts=PromptsConfig("toxigen"),
            scorer="unitary/toxic-bert",
            attribute=AttributeEvaluation(label="toxic", top_k=50),
            language_model="meta-llama/Llama-2-7b-hf",
            generations=5,
        ),
    )
