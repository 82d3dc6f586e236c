"""Print a Markdown table from `result.json` files.

python -m experiments.results docs/results/*.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app


def cell(entry: dict[str, Any] | None) -> str:
    """Mean, spread and number of learners of one summary."""
    if entry is None:
        return ""
    spread = "" if entry["std"] is None else f" ± {entry['std']:.1f}"
    return f"{entry['mean']:.1f}{spread} ({entry['n']})"


def row(result: dict[str, Any], baselines: Sequence[str]) -> str:
    """One line of the table."""
    settings = result["config"]["settings"]
    # A coreset has an outer loop too, and runs it when it learns labels.
    outer = settings.get("outer", {}) if settings.get("learn_labels", True) else {}
    minutes = (result["cost"]["distill_seconds"] or 0.0) / 60
    paired = result["paired"].get("random")
    gain = "" if paired is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(paired["mean"], *paired["ci95"])
    cells = [
        result["task"],
        result["learner"],
        result["method"],
        str(result["per_class"]),
        str(outer.get("updates", "")),
        f"{minutes:.1f}",
    ]
    cells += [cell(result["test"]), gain, *(cell(result["baselines"].get(name)) for name in baselines)]
    return f"| {' | '.join(map(str, cells))} |"


def table(paths: Sequence[str]) -> str:
    """The table of several results, baselines in the order in which they appear."""
    results = [json.loads(Path(path).read_text()) for path in paths]
    baselines = list(dict.fromkeys(name for result in results for name in result["baselines"]))
    header = [
        "task",
        "learner",
        "method",
        "a class",
        "outer steps",
        "minutes",
        "test",
        "minus random, 95 %",
        *baselines,
    ]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(row(result, baselines) for result in results)])


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("give the result.json files to tabulate")
    print(table(argv[1:]))


if __name__ == "__main__":
    app.run(main)
