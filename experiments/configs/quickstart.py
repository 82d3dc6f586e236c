"""Attention-label distillation of the built-in reviews with MiniLM: two synthetic samples of 32 vectors.

No download and no data are needed beside the MiniLM package.

Expect: test 81 +- 1 (5 learners), two random texts about 50; 96 of 100 labels are right by design.
Cost: about two minutes on 2 CPU cores, 2.4 GB.
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
