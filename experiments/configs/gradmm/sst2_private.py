"""`sst2_small.py` with differential privacy: epsilon 4 at delta 1e-5, over all 62,350 training texts.

The language model has read IMDB's reviews alone (`language_models/reviews_judged.py`), for what it knows of the
private texts is not covered. Compare with `sst2_small.py`.

`--config.settings.privacy.epsilon=1` or 8 for others. `--config.settings.privacy.signal=False` releases noise alone,
the control that tells what the private texts were worth.
"""

from experiments.gradmm import small
from jaxdistill.methods.gradmm_settings import Privacy
from jaxdistill.pipeline.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    privacy = Privacy(mode="gaussian", epsilon=4.0, delta=1e-5, records=30_000)
    return small("sst2", privacy=privacy)
