"""Attack a distilled-set folder of any method: membership inference, and the mechanism of a set that claims privacy.

python -m experiments.audit --distilled=runs/quickstart/distilled --config=experiments/configs/quickstart.py \
    --output=runs/quickstart/audit

With --runs instead of --distilled, attack the method: distil that often with a canary and without, and tell which is
which.
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
RUNS = flags.DEFINE_integer("runs", 0, "Distillations with a canary, and as many without, in place of --distilled.")
ROWS = flags.DEFINE_integer("rows", 0, "Random training texts that each of --runs is given; 0 for all.")


def main(config: ExperimentConfig) -> None:
    folder = DISTILLED.value
    if (folder is None) == (RUNS.value == 0):
        raise UserError("give --distilled, the folder of a distilled set, or --runs, how often to distil; one of them")
    if folder is None:
        from jaxdistill.io import atomic
        from jaxdistill.io.plain import dumps
        from jaxdistill.pipeline.release_audit import audit_releases

        found = audit_releases(config, runs=RUNS.value, rows=ROWS.value)
        if OUTPUT.value is not None:
            atomic.write_text(f"{OUTPUT.value}/release_audit.json", dumps(found) + "\n")
        return
    from jaxdistill.pipeline.audit import AuditSettings, audit_folder

    settings = AuditSettings(
        records=RECORDS.value,
        students=STUDENTS.value,
        references=REFERENCES.value,
        draws=DRAWS.value,
        canaries=CANARIES.value,
    )
    audit_folder(folder, config, settings, output=OUTPUT.value)


if __name__ == "__main__":
    use_huge_pages()
    command.run(main)
