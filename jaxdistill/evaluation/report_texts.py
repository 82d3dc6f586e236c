"""The section of the report on how good the texts of a method are."""

from __future__ import annotations

from typing import Any

from jaxdistill.evaluation.report_sections import section, table, text

_NAMES = {
    "texts": "texts",
    "mean": "mean of the texts",
    "corpus": "over all tokens together",
    "dropped": "texts left out (10,000 or more, or none)",
    "truncated": "texts cut to what the model reads",
    "dist_1": "distinct words, as a share",
    "dist_2": "distinct bigrams, as a share",
    "dist_3": "distinct trigrams, as a share",
    "word_entropy": "entropy of the words, in bits",
    "words": "words a text",
    "distinct_texts": "distinct texts, as a share",
    "copied": "copies of a training text, as a share",
    "contained": "texts that stand in a training text, as a share",
    "longest_run": "words in a row out of one training text, mean",
    "longest_run_most": "words in a row out of one training text, most",
}


def quality_table(entry: dict[str, Any]) -> str:
    """Fluency, diversity and overlap, a column a set and one for real texts of the dev split.

    Args:
      entry: "texts" of a result; empty gives nothing.
    """
    if not entry:
        return ""
    sets = [_flat(figures) for figures in entry["sets"]]
    columns = [*sets, _flat(entry["dev"])]
    names = ["", *(f"set {i}" if len(sets) > 1 else "set" for i in range(len(sets))), "dev texts"]
    rows = [[text(name), *(_shown(column.get(name)) for column in columns)] for name in columns[0]]
    quiet = '<p class="quiet">Beside the texts stand as many real texts of the dev split, which is no part of the '
    quiet += "training split. Shares of distinct words and n-grams fall with the number of words.</p>"
    return section("Fluency, diversity and overlap with the training texts", table(names, rows) + quiet)


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures by the name that a reader sees."""
    found = {_NAMES["texts"]: figures["texts"]}
    for metric, values in figures.get("fluency", {}).items():
        chosen = ("mean", "corpus", "dropped", "truncated")
        found |= {f"{metric}: {_NAMES[name]}": values[name] for name in chosen}
    for part in ("diversity", "overlap"):
        found |= {_name(name): value for name, value in figures[part].items()}
    return found


def _name(name: str) -> str:
    if name.startswith("new_"):
        return f"{name.removeprefix('new_').removesuffix('grams')}-grams that no training text has, as a share"
    if name.startswith("nearest_"):
        return f"similarity to the nearest training text ({name.removeprefix('nearest_')})"
    return _NAMES[name]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return text(f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if value < 100 else f"{value:,.1f}")
