"""The numbers of a run that removes an attribute: what `result.json` holds, and the lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdistill.data.corpus import Corpus
from jaxdistill.evaluation.cost import peak_memory_bytes
from jaxdistill.evaluation.diversity import diversity
from jaxdistill.evaluation.overlap import TrainingWords
from jaxdistill.evaluation.statistics import Summary, paired_difference, summarise
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.versions import device, versions
from jaxdistill.models.pretrained import short_name
from jaxdistill.pipeline.attribute_config import CONTRAST, UNTOUCHED, AttributeConfig

if TYPE_CHECKING:
    from jaxdistill.pipeline.attribute_scores import Student

# Differences of the method are taken to these figures of what it is compared with.
_COMPARED = ("tp", "emt", "mean_score", "perplexity", "entropy")
_SHOWN = ("tp", "emt", "mean_score", "perplexity", "entropy", "distinct_2")


def attribute_result(
    config: AttributeConfig,
    corpora: Mapping[str, Corpus],
    facts: Mapping[str, Any],
    sets: Mapping[str, Sequence[DistilledSet]],
    students: Mapping[str, Student],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """What `result.json` holds.

    Args:
      config: of the run.
      corpora: by what for.
      facts: "experts" and "alignment".
      sets: texts of each condition.
      students: by name.
      seconds: of tuning and measuring, by student and condition.

    Returns:
      "students": of each, "untouched" and "decoding" (figures), and of each condition its learning rate, its figures
      (mean, std, values as [sets][student seeds]) and, of the method, the differences to everything else with 95 %
      intervals: over sets where there are several, else over student seeds.
    """
    words = TrainingWords(list(corpora["attribute"].train))
    return {
        "base": config.base,
        "attribute": list(config.attribute),
        "label": config.evaluation.attribute.label,
        "scorer": config.evaluation.scorer,
        "language_model": config.evaluation.language_model,
        "prompts": config.evaluation.prompts.source,
        "continuations": config.evaluation.attribute.continuations,
        "generations": config.evaluation.generations,
        **facts,
        "texts": {name: [_text_facts(one, words) for one in found] for name, found in sets.items()},
        "students": {name: _student(student) for name, student in students.items()},
        "cost": {
            "text_seconds": {
                name: [one.manifest["cost"]["distill_seconds"] for one in found] for name, found in sets.items()
            },
            "student_seconds": dict(seconds),
            "peak_bytes": peak_memory_bytes(),
            "device": device(),
        },
        "versions": versions(),
    }


def summary(result: Mapping[str, Any]) -> str:
    """A table a student, and how far the method is from what it is compared with."""
    lines = []
    names = dict(zip(_SHOWN, ("TP", "EMT", "mean", "perplexity", "entropy", "Dist-2"), strict=True))
    for student, found in result["students"].items():
        lines.append(
            f"{short_name(student)}: {result['label']} of the largest of {result['continuations']} continuations by "
            f"{short_name(result['scorer'])}"
        )
        lines.append(f"{'':16}" + "".join(f"{name:>16}" for name in names.values()))
        for name in (UNTOUCHED, "decoding"):
            if found[name] is not None:
                cells = [_number(found[name].get(figure)) for figure in names]
                lines.append(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells))
        for condition, of in found["conditions"].items():
            cells = [_spread(of["figures"].get(figure)) for figure in names]
            lines.append(f"{condition:16}" + "".join(f"{cell:>16}" for cell in cells))
        for other, differences in found["differences"].items():
            shown = [
                f"{names[figure]} {_interval(differences[figure])}" for figure in ("tp", "emt") if figure in differences
            ]
            lines.append(f"{CONTRAST} minus {other}: {', '.join(shown)}")
    return "\n".join(lines)


def _student(student: Student) -> dict[str, Any]:
    conditions = {}
    for name, rows in student.figures.items():
        shared = [figure for figure in rows[0][0] if all(figure in entry for row in rows for entry in row)]
        figures = {figure: _plain(summarise(_table(rows, figure))) for figure in shared}
        conditions[name] = {"lr": student.rates[name], "chosen_on": student.chosen_on[name], "figures": figures}
    own, differences = student.figures[CONTRAST], {}
    others: dict[str, Any] = {UNTOUCHED: student.untouched}
    others |= {name: rows for name, rows in student.figures.items() if name != CONTRAST}
    for name, other in others.items():
        compared = {}
        for figure in _COMPARED:
            mine = _table(own, figure)
            theirs = other.get(figure) if name == UNTOUCHED else _table(other, figure)
            if mine is not None and theirs is not None:
                compared[figure] = _plain(paired_difference(mine, np.broadcast_to(np.asarray(theirs), mine.shape)))
        differences[name] = compared
    return {
        "untouched": student.untouched,
        "decoding": student.decoding,
        "conditions": conditions,
        "differences": differences,
        "update_cosines": student.cosines,
    }


def _table(rows: Sequence[Sequence[Mapping[str, float]]], figure: str) -> Any:
    """[sets, student seeds]; `None` where a student has no such figure."""
    if not all(figure in entry for row in rows for entry in row):
        return None
    return np.asarray([[entry[figure] for entry in row] for row in rows])


def _plain(found: Summary) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "std": found.std,
        "n": found.n,
        "ci95": None if found.ci95 is None else list(found.ci95),
        "clustered": found.clustered,
        "values": [list(row) for row in found.values],
    }


def _text_facts(texts: DistilledSet, words: TrainingWords) -> dict[str, Any]:
    """How long, how different, and how new against the texts that the expert was trained on."""
    assert texts.texts is not None
    plain = [text for (text,) in texts.texts]
    counts = [len(text.split()) for text in plain]
    return {
        "texts": len(plain),
        "distinct_texts": len(set(plain)),
        "words": sum(counts),
        "mean_words": float(np.mean(counts)),
        "diversity": diversity(plain),
        "overlap_with_attribute": words.overlap(plain).summary(),
        "generation": texts.manifest.get("generation"),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return _number(found["mean"]) + ("" if found["std"] is None else f" +- {_number(found['std'])}")


def _interval(found: Mapping[str, Any]) -> str:
    if found["ci95"] is None:
        return f"{found['mean']:+.3f}"
    low, high = found["ci95"]
    return f"{found['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"
