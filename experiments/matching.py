"""What the configurations of `experiments/configs/matching` share."""

from __future__ import annotations

from typing import Any

from jaxdistill.evaluation.recipes import Recipe
from jaxdistill.methods.experts import Experts
from jaxdistill.methods.meta_learning import Outer
from jaxdistill.methods.registry import method_named
from jaxdistill.objectives.distribution import DistributionMatching
from jaxdistill.objectives.gradient import GradientMatching
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig

# What a method needs beside the shared settings, for either learner.
WITH_TEXT_CNN: dict[str, dict[str, Any]] = {
    "gradient_matching": {"gradients": GradientMatching(per_class=False, advance="none")},
    "distribution_matching": {"label_kind": "hard", "distributions": DistributionMatching(encoder="random")},
    "trajectory_matching": {"experts": Experts(count=4, epoch_steps=40, lr=1e-3, batch_size=64)},
}
WITH_MINILM: dict[str, dict[str, Any]] = {
    "gradient_matching": {"gradients": GradientMatching(parameters="head", per_class=False, advance="none")},
    "distribution_matching": {
        "label_kind": "hard",
        "initial_inputs": "texts",
        "distributions": DistributionMatching(features="mean"),
    },
    "trajectory_matching": {
        "steps": 4,
        "experts": Experts(count=2, epoch_steps=20, span=1, latest_start=1),
    },
}


def with_text_cnn(task: str, method: str, *, updates: int = 200, **settings: Any) -> ExperimentConfig:
    """TextConvNet over GloVe vectors, 10 samples a class that start as real texts, 15 inner steps of Adam.

    With plain gradient descent a small network learns little of any set in so few steps: most of a gradient is what all
    texts have in common.

    Args:
      task: of the task table.
      method: one of `methods.matching`.
      updates: outer steps.
      **settings: of the method, in place of `WITH_TEXT_CNN`.
    """
    shared: dict[str, Any] = {
        "length": 32,
        "per_class": 10,
        "batch_per_class": 10,
        "steps": 15,
        "inner_optimizer": "adam",
        "initial_lr": 0.01,
        "initial_inputs": "texts",
        "outer": Outer(updates=updates, selections=4, batch_size=128),
    }
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=64),
        learner=LearnerConfig(name="text_cnn", words=WordsConfig(vectors="glove-100d-subset")),
        method=method,
        settings=method_named(method).config(**(shared | WITH_TEXT_CNN[method] | settings)),
        evaluation=EvaluationConfig(
            students=20,
            baselines=("random", "k_center", "herding", "teacher_labels"),
            baseline_students=10,
            recipe=Recipe(steps=200, lr=1e-3),
            full_epochs=2.0,
            full_lr=1e-3,
        ),
    )


def with_minilm(task: str, method: str, *, updates: int = 300, **settings: Any) -> ExperimentConfig:
    """MiniLM, 1 sample a class, one inner step.

    Args:
      task: of the task table.
      method: one of `methods.matching`.
      updates: outer steps.
      **settings: of the method, in place of `WITH_MINILM`.
    """
    shared: dict[str, Any] = {"length": 64, "outer": Outer(updates=updates, selections=4, batch_size=64)}
    private = "privacy" in settings and settings["privacy"].private
    return ExperimentConfig(
        task=TaskConfig(name=task, max_length=64),
        learner=LearnerConfig(name="minilm"),
        method=method,
        settings=method_named(method).config(**(shared | WITH_MINILM[method] | settings)),
        evaluation=EvaluationConfig(
            students=20,
            baselines=() if private else ("random", "k_center", "herding"),
            baseline_students=5,
            full_epochs=0.0 if private else 0.1,
        ),
    )
