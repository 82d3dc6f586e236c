"""Train an inverter of embeddings on a corpus, for `dallme`.

python -m experiments.train_inverter --config=experiments/configs/inverters/sst2_minilm.py --workdir=runs/sst2_inverter
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.inverter_config import InverterConfig

WORKDIR = flags.DEFINE_string("workdir", None, "Run folder: new, or of the same configuration, to go on with it.")


def main(config: InverterConfig) -> None:
    from jaxdistill.pipeline.inverter_run import run_inverter

    if WORKDIR.value is None:
        raise UserError("--workdir is missing: give a folder for the run")
    run_inverter(config, WORKDIR.value, stop=command.StopSignal())


if __name__ == "__main__":
    use_huge_pages()
    command.run(main, "inverter")
