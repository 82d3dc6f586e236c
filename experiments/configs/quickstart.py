"""Attention-label distillation of the built-in reviews with MiniLM: two synthetic samples in about two minutes.

No download and no data are needed beside the MiniLM package.
"""

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.attention_label import AttentionLabel
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        task=TaskConfig(name="toy/reviews"),
        learner=LearnerConfig(name="minilm"),
        settings=AttentionLabel(length=32, outer=Outer(updates=100, selections=2)),
        evaluation=EvaluationConfig(
            students=5, baselines=("random",), baseline_students=3, recipe=Recipe(steps=50), full_epochs=0.0
        ),
    )
