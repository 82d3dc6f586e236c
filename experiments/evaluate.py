"""Evaluate a distilled-set folder by the configuration it was made with, or by a fixed recipe on any learner.

python -m experiments.evaluate --distilled=runs/quickstart/distilled --config=experiments/configs/quickstart.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.config import ExperimentConfig

DISTILLED = flags.DEFINE_string(
    "distilled", None, "Folder of the distilled set; or a table (parquet, csv, tsv, jsonl) of texts and labels."
)
SET_COLUMN = flags.DEFINE_string("set_column", "", "Of a table with several sets: the column that tells them apart.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for the scores; printed only when not given.")


def main(config: ExperimentConfig) -> None:
    if DISTILLED.value is None:
        raise UserError("--distilled is missing: give the folder of a distilled set, or a table of texts")
    from jaxdistill.pipeline.evaluate_folder import evaluate_folder

    evaluate_folder(DISTILLED.value, config, set_column=SET_COLUMN.value, output=OUTPUT.value)


if __name__ == "__main__":
    use_huge_pages()
    command.run(main)
