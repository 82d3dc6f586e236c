"""The report of a run: one HTML file that needs nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdistill.evaluation import report_plots as plots
from jaxdistill.evaluation import report_sections as sections
from jaxdistill.evaluation.report_texts import quality_table
from jaxdistill.evaluation.text_quality import TextQuality
from jaxdistill.io import atomic
from jaxdistill.io.distilled import DistilledSet

NearestWords = Sequence[Sequence[Sequence[tuple[str, float]]]]


def write_report(
    path: str | os.PathLike,
    result: dict[str, Any],
    metrics: Sequence[dict[str, Any]],
    distilled: DistilledSet | None,
    *,
    nearest_words: NearestWords | None = None,
    written: TextQuality | None = None,
) -> None:
    """Write the self-contained report of a run, atomically. Parts that are absent are left out.

    Args:
      path: the HTML file.
      result: as in `result.json`: scores in percent. Beyond the numbers it may hold "notes" (sentences) and
        "learning_rates" (`{"names": [g], "values": [t][g]}`, step sizes by inner step and parameter group).
      metrics: lines of `metrics.jsonl`; "loss" and the scores whose name starts with "dev" are drawn.
      distilled: the set, for its learned labels, learning rates, attention labels, and texts.
      nearest_words: of an embedding-level set: for each sample, for each position, (word, cosine), nearest first.
      written: of texts that a method wrote: the training text nearest to each. Their figures are in `result`, as
        "texts": {"sets": [...], "dev": ...}.

    Raises:
      UserError: the disk is full or the path cannot be written.
    """
    title = f"{result.get('task', 'unknown task')}: {result.get('method', 'unknown method')}"
    body = [
        sections.headline(result, title),
        _accuracy(result),
        sections.seed_table(result),
        sections.target_table(result),
        _curves(metrics),
        _learning_rates(result, distilled),
        sections.label_table(distilled) if distilled is not None else "",
        _attention(distilled),
        quality_table(result.get("texts") or {}),
        sections.samples(distilled, nearest_words, written) if distilled is not None else "",
        sections.cost_table(result.get("cost") or {}),
        sections.notes(result.get("notes") or []),
        sections.details(result, distilled),
    ]
    atomic.write_text(path, sections.page(title, body))


def _accuracy(result: dict[str, Any]) -> str:
    scores = sections.all_scores(result)
    if not scores:
        return ""
    metric = result.get("metric", "score")
    picture = plots.embed(plots.score_bars(scores, str(result.get("method", "")), metric))
    caption = f"Test {metric} in percent; lines are 95 % intervals."
    return sections.figure("Against the baselines", picture, caption)


def _curves(metrics: Sequence[dict[str, Any]]) -> str:
    losses = plots.series(metrics, "loss")
    names = sorted({name for line in metrics for name in line if _is_development_score(name)})
    developments = {name: plots.series(metrics, name) for name in names}
    developments = {name: points for name, points in developments.items() if len(points[0])}
    if not len(losses[0]) and not developments:
        return ""
    caption = "Outer loss of each step (faint) and its running mean; scores on the development split."
    return sections.figure("Distillation", plots.embed(plots.curves(losses, developments)), caption)


def _is_development_score(name: str) -> bool:
    return name.startswith("dev") and not any(part in name for part in ("loss", "std", "seconds"))


def _learning_rates(result: dict[str, Any], distilled: DistilledSet | None) -> str:
    given = result.get("learning_rates")
    if given:
        names, values = list(given["names"]), np.asarray(given["values"], np.float64)
    elif distilled is not None and distilled.synthetic is not None and distilled.synthetic.raw_lr is not None:
        raw = np.asarray(distilled.synthetic.raw_lr, np.float64)
        values = np.logaddexp(0.0, raw if raw.ndim == 2 else raw[:, None])
        names = ["all"] if values.shape[1] == 1 else [f"group {index}" for index in range(values.shape[1])]
    else:
        return ""
    caption = "Learned step size of each inner step and parameter group."
    return sections.figure("Learned learning rates", plots.embed(plots.learning_rates(names, values)), caption)


def _attention(distilled: DistilledSet | None) -> str:
    if distilled is None or distilled.synthetic is None or distilled.synthetic.attention is None:
        return ""
    scores = np.asarray(distilled.synthetic.attention, np.float64)
    shown = min(len(scores), plots.MOST_SAMPLES)
    names = [distilled.label_names[label] for label in distilled.labels[:shown]]
    caption = "Attention target of the first token over the positions, layer by layer, mean of the heads"
    caption += f"; the first {shown} of {len(scores)} samples." if shown < len(scores) else "."
    return sections.figure("Attention labels", plots.embed(plots.attention(scores[:shown], names)), caption)
