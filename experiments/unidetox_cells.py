"""What the configurations of `experiments/configs/unidetox` for small models share."""

from __future__ import annotations

from typing import Any

from jaxdistill.methods.contrastive import ContrastiveTexts
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.attribute_config import AttributeConfig
from jaxdistill.pipeline.language_config import CorpusConfig, LanguageModelConfig, ModelConfig, SamplesConfig


def small(**settings: Any) -> AttributeConfig:
    """Texts of 64 tokens by a model of 4 million parameters, two students, a fifth of the published steps.

    Args:
      **settings: of `AttributeConfig`: corpora and evaluation, and what differs.
    """
    expert = LanguageModelling(updates=400, epochs=0.0, rows=8, row_length=128, lr=1e-3, selections=2)
    student = LanguageModelling(
        updates=600,
        epochs=0.0,
        rows=8,
        row_length=64,
        truncate=True,
        packed=False,
        schedule="linear",
        warmup=0.0,
        weight_decay=0.0,
        selections=1,
        keep="last",
    )
    return AttributeConfig(
        **{
            "base": "runs/imdb_small/model",
            "students": ("runs/imdb_small/model", "runs/reviews_llama/model"),
            "expert": expert,
            "texts": ContrastiveTexts(length=64, micro_batch=64),
            "student": student,
            "learning_rates": (3e-4, 1e-3, 3e-3),
            "rate_by": "emt",
            "sets": 5,
            "student_seeds": 1,
            **settings,
        }
    )


def further_on_toxigen(model: str) -> LanguageModelConfig:
    """A model of film reviews trained further on ToxiGen's training texts, toxic and benign.

    Args:
      model: its folder.
    """
    return LanguageModelConfig(
        corpus=CorpusConfig(sources=("toxigen",)),
        model=ModelConfig(name=model),
        training=LanguageModelling(updates=400, epochs=0.0, rows=8, row_length=128, lr=1e-3, selections=4),
        samples=SamplesConfig(count=8, max_new=32),
    )
