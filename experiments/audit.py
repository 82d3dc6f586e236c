"""Attack a distilled-set folder of any method: membership inference, and the mechanism of a set that claims privacy.

python -m experiments.audit --distilled=runs/quickstart/distilled --config=experiments/configs/quickstart.py \
    --output=runs/quickstart/audit
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from experiments import command
from experiments.memory import use_huge_pages
from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from jaxdistill.pipeline.config import ExperimentConfig

DISTILLED = flags.DEFINE_string("distilled", None, "Folder of the distilled set.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for audit.json and audit.html; printed only when not given.")
RECORDS = flags.DEFINE_integer("records", 1000, "Members, and others, that are attacked, at most.")
STUDENTS = flags.DEFINE_integer("students", 4, "Learners trained on the set.")
REFERENCES = flags.DEFINE_integer("references", 16, "Learners that never met a record, for the likelihood ratio.")
DRAWS = flags.DEFINE_integer("draws", 4000, "Releases with a canary, and as many without, of a set with privacy.")
CANARIES = flags.DEFINE_integer("canaries", 1000, "Canaries of the audit by one run, of a set with privacy.")


def main(config: ExperimentConfig) -> None:
    if DISTILLED.value is None:
        raise UserError("--distilled is missing: give the folder of a distilled set")
    from jaxdistill.pipeline.audit import AuditSettings, audit_folder

    settings = AuditSettings(
        records=RECORDS.value,
        students=STUDENTS.value,
        references=REFERENCES.value,
        draws=DRAWS.value,
        canaries=CANARIES.value,
    )
    audit_folder(DISTILLED.value, config, settings, output=OUTPUT.value)


if __name__ == "__main__":
    use_huge_pages()
    command.run(main)
