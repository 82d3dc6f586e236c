"""SST-2 with MiniLM, preset reference: the published code's quirks, to compare with the published code itself.

1 sample a class, 1 step, length 64, unrestricted labels, [CLS] attention labels, one scalar step size, 300 outer steps.

Expect: 52.1, 73.0 and 71.6 with seeds 0, 1, 2 (20 learners each): 300 steps are just enough to leave the initial
plateau, or not. The authors' code gave 74.4 +- 1.1 (20 inits, one seed) with the same model, data and steps; see
docs/results.md.
Cost: about 3 minutes of distillation a seed on 2 CPU cores.
"""

from jaxdistill.methods.attention_label import reference
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        task=TaskConfig(name="sst2", max_length=64),
        learner=LearnerConfig(name="minilm"),
        settings=reference(
            length=64,
            label_kind="unrestricted",
            attention="cls",
            initial_lr=0.1,
            outer={"updates": 300, "selections": 1},
        ),
        evaluation=EvaluationConfig(students=20, baselines=(), full_epochs=0.0),
        seeds=3,
    )
