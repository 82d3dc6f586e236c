"""The report of an audit: one HTML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdistill.evaluation import report_plots as plots
from jaxdistill.evaluation import report_sections as sections
from jaxdistill.io import atomic

AttackScores = Mapping[str, tuple[Float[np.ndarray, " m"], Float[np.ndarray, " n"]]]


def write_audit_report(path: str | os.PathLike, result: dict[str, Any], scores: AttackScores) -> None:
    """Write what an audit found, atomically.

    Args:
      path: the HTML file.
      result: as in `audit.json`, see `pipeline.audit`.
      scores: of members and of others, attack by attack.

    Raises:
      UserError: the disk is full or the path cannot be written.
    """
    title = f"Audit of {result['task']}: {result['method']}"
    privacy = result.get("privacy") or {}
    body = [
        f"<h1>{sections.text(title)}</h1>",
        f'<p class="headline">Claimed: {sections.text(privacy.get("guarantee") or "no privacy")}.</p>',
        sections.section("Membership inference", _attacks(result["attacks"], result["learner"])),
        sections.figure(
            "Members found, over others taken for members",
            plots.embed(plots.receiver_operating(scores)),
            "Both axes are logarithmic; the diagonal is a coin.",
        ),
        _mechanism(result.get("mechanism")),
        sections.notes(result.get("notes") or []),
    ]
    atomic.write_text(path, sections.page(title, body))


def _attacks(attacks: Mapping[str, Mapping[str, Any]], learner: str) -> str:
    def share(found: Mapping[str, Any], name: str, form: str, times: float = 1.0) -> str:
        numbers = (times * found[key] for key in (name, f"{name}_low", f"{name}_high"))
        return "{:{f}} [{:{f}}, {:{f}}]".format(*numbers, f=form)

    rows = [
        [
            sections.text(name),
            share(found, "auc", ".3f"),
            share(found, "true_positives", ".1f", 100.0),
            f"{100 * found['false_positives']:.1f}",
            f"{found['members']:,} / {found['others']:,}",
        ]
        for name, found in attacks.items()
    ]
    names = ("attack", "AUC", "members found, %", "others taken for members, %", "members / others")
    sentence = f"Learners of kind {learner} were trained on the set. Intervals are of 95 %; an AUC of 0.5 is a coin."
    return f"<p>{sections.text(sentence)}</p>\n{sections.table(names, rows)}"


def _mechanism(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    verdict = "refuted" if found["flagged"] else "not refuted"
    one = found["one_run"]
    rows = [
        ["epsilon, claimed", f"{found['claimed']:g} at delta {found['delta']:g}"],
        ["epsilon, at least", f"{found['epsilon']:.3f} by {found['draws']:,} releases on each side"],
        ["epsilon, at least, by one run", f"{one['epsilon']:.3f} by {one['correct']} of {one['guesses']} guesses"],
        ["AUC", f"{found['auc']:.3f} [{found['auc_low']:.3f}, {found['auc_high']:.3f}]"],
    ]
    if found["expected_auc"] is not None:
        rows.append(["AUC of such a mechanism", f"{found['expected_auc']:.3f}"])
    sentence = f"The claim is {verdict}. Lower bounds prove what is lost, never that no more is."
    return sections.section("Mechanism", f"<p>{sentence}</p>\n{sections.table(('', ''), rows)}")
