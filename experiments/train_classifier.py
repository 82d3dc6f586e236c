"""Fine-tune an encoder as a classifier of a task, and write it as a Hugging Face folder that judges texts.

python -m experiments.train_classifier --config=experiments/configs/classifiers/sst2_minilm.py \\
    --workdir=runs/sst2_classifier
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.classifier_config import ClassifierConfig

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or of the same configuration.")


def main(config: ClassifierConfig) -> None:
    from jaxdistill.pipeline.classifier_run import run_classifier

    if WORKDIR.value is None:
        raise UserError("--workdir is missing: give a folder for the run")
    run_classifier(config, WORKDIR.value)


if __name__ == "__main__":
    use_huge_pages()
    command.run(main, "classifier")
