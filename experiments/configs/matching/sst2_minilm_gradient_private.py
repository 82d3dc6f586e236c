"""`sst2_minilm_gradient.py` with differential privacy: epsilon 4 at delta 1e-5, over all 62,350 training texts.

What is matched are noisy sums of the clipped gradients of fresh heads on 250 random texts on average, 770 numbers an
update. Step sizes are not learned: that would release the gradient of 22 million parameters with each update.
`--config.settings.privacy.epsilon=1` or 8 for others; `--config.settings.privacy.signal=False` for noise alone.

Expect: unknown, not run yet.
Cost: unknown, not run yet.
"""

from experiments.matching import with_minilm
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.privacy.training import TrainingPrivacy


def get_config() -> ExperimentConfig:
    privacy = TrainingPrivacy(mode="poisson", epsilon=4.0, delta=1e-5, rate=0.004, records=30_000, micro_batch=32)
    return with_minilm("sst2", "gradient_matching", updates=100, privacy=privacy, learn_step_sizes=False)
