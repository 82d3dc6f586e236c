"""Take an attribute from language models: distil texts from a contrast of two, tune students on them, measure them.

python -m experiments.unidetox --config=experiments/configs/unidetox/negative_reviews.py --workdir=runs/negative_reviews
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.attribute_config import AttributeConfig

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or of the same configuration, to go on with it.")


def main(config: AttributeConfig) -> None:
    from jaxdistill.pipeline.attribute_run import run_attribute

    if WORKDIR.value is None:
        raise UserError("--workdir is missing: give a folder for the run")
    run_attribute(config, WORKDIR.value, stop=command.StopSignal())


if __name__ == "__main__":
    use_huge_pages()
    command.run(main, "attribute")
