"""Distil a task and evaluate the result beside its baselines.

python -m experiments.distill --config=experiments/configs/quickstart.py --workdir=runs/quickstart
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.config import ExperimentConfig

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or of the same configuration, to go on with it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print parameters, work and memory of the compiled step, and stop.")


def main(config: ExperimentConfig) -> None:
    if DRY_RUN.value:
        from jaxdistill.pipeline.dry_run import dry_run

        print(dry_run(config))
        return
    if WORKDIR.value is None:
        raise UserError("--workdir is missing: give a folder for the run")
    from jaxdistill.pipeline.run import run_experiment

    run_experiment(config, WORKDIR.value, stop=command.StopSignal())


if __name__ == "__main__":
    use_huge_pages()
    command.run(main)
