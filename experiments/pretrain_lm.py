"""Train a causal language model, from scratch or from a folder, and write it as a Hugging Face folder.

python -m experiments.pretrain_lm --config=experiments/configs/language_models/shakespeare.py --workdir=runs/shakespeare
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.language_config import LanguageModelConfig

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or of the same configuration, to go on with it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print parameters, work and memory of the compiled step, and stop.")


def main(config: LanguageModelConfig) -> None:
    from jaxdistill.parallel.mesh import pretend_cpu_devices
    from jaxdistill.pipeline.language_dry_run import dry_run_language_model
    from jaxdistill.pipeline.language_run import run_language_model

    if DRY_RUN.value:
        if config.devices > 1:
            pretend_cpu_devices(config.devices)
        print(dry_run_language_model(config))
        return
    if WORKDIR.value is None:
        raise UserError("--workdir is missing: give a folder for the run")
    run_language_model(config, WORKDIR.value, stop=command.StopSignal())


if __name__ == "__main__":
    use_huge_pages()
    command.run(main, "language model")
