"""Sections of the report in HTML. Whatever comes from a run is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdistill.evaluation.text_quality import TextQuality
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.plain import dumps
from jaxdistill.io.progress import duration

MOST_ROWS = 100
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COST_NAMES = {
    "distill_seconds": "distillation time",
    "seconds_per_outer_step": "time per outer step",
    "evaluate_seconds": "evaluation time",
    "flops": "work of all outer steps",
    "peak_bytes": "peak memory",
    "real_examples": "real examples shown",
    "distilled_bytes": "size of the distilled set",
}
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1e293b; background: #fff; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e2e8f0; text-align: left; vertical-align: top; }
th { font-weight: 600; color: #475569; } td.number, th.number { text-align: right; }
figure { margin: .8rem 0; } img { max-width: 100%; height: auto; }
figcaption, .quiet { color: #64748b; font-size: .9em; }
.headline { font-size: 1.15rem; } .headline b { color: #1d4ed8; font-size: 1.5rem; }
.word { display: inline-block; margin: .1rem .15rem; padding: .05rem .4rem; border-radius: .3rem; }
.scroll { overflow-x: auto; } details pre { background: #f8fafc; padding: .8rem; overflow-x: auto; font-size: .85em; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A page that needs nothing beside it; parts that are empty are left out."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def text(value: Any) -> str:
    """`value` as escaped text."""
    return html.escape(str(value))


def figure(heading: str, picture: str, caption: str) -> str:
    """A section with one picture; `picture` is a data URI."""
    image = f'<img src="{picture}" alt="{text(heading)}">'
    return f"<h2>{text(heading)}</h2>\n<figure>{image}<figcaption>{text(caption)}</figcaption></figure>"


def all_scores(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name to test score: the method first, then the baselines."""
    test = result.get("test")
    scores = {str(result.get("method", "method")): test} if test else {}
    return scores | {name: score for name, score in (result.get("baselines") or {}).items() if score}


def headline(result: dict[str, Any], title: str) -> str:
    """Title, the score in one sentence, and how it stands against the baselines."""
    metric = result.get("metric", "score")
    facts = [f"{result['per_class']} a class" if "per_class" in result else ""]
    facts += [f"protocol {result['protocol']}" if "protocol" in result else ""]
    parts = [f"<h1>{text(title)}</h1>", f'<p class="quiet">{text(", ".join(fact for fact in facts if fact))}</p>']
    if test := result.get("test"):
        line = f"Test {text(metric)} <b>{_percent(test['mean'])}</b> %{_spread(test)}"
        others = [f"{text(name)} {_percent(score['mean'])}" for name, score in all_scores(result).items()][1:]
        line += f"; baselines: {', '.join(others)}" if others else ""
        parts.append(f'<p class="headline">{line}.</p>')
    for name, difference in (result.get("paired") or {}).items():
        if difference:
            interval = _interval(difference.get("ci95"))
            line = f"Paired difference to {name}: {difference['mean']:+.2f} points{interval}."
            parts.append(f"<p>{text(line)}</p>")
    return "\n".join(parts)


def seed_table(result: dict[str, Any]) -> str:
    """Statistics of every method and split, with the single scores."""
    method = result.get("method", "method")
    entries = {f"{name}, test": score for name, score in all_scores(result).items()}
    # What a metric that is a mean is made of.
    entries |= {f"{method}, test {name}": score for name, score in (result.get("also") or {}).items()}
    if result.get("dev"):
        entries = {f"{method}, dev": result["dev"]} | entries
    rows = []
    for name, score in entries.items():
        values = np.ravel(np.asarray(score.get("values") or [], np.float64))
        shown = ", ".join(f"{value:.1f}" for value in values[:MOST_ROWS])
        shown += f" and {len(values) - MOST_ROWS} more" if len(values) > MOST_ROWS else ""
        least_most = f"{values.min():.2f} / {values.max():.2f}" if len(values) else ""
        interval = score.get("ci95")
        rows.append(
            [
                text(name),
                _percent(score["mean"]),
                "" if score.get("std") is None else f"{score['std']:.2f} (ddof {score.get('ddof', '?')})",
                "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
                least_most,
                text(score.get("n", len(values))),
                f"<details><summary>show</summary>{shown}</details>" if shown else "",
            ]
        )
    names = ["", "mean", "standard deviation", "95 % interval", "least / most", "n", "each training"]
    if not rows:
        return ""
    single = any(score.get("clustered") is False for score in entries.values())
    quiet = "An interval over one distillation only is one over its trainings: it says nothing of how much another "
    quiet += "distillation would differ."
    return section("Scores in percent", table(names, rows) + (f'<p class="quiet">{quiet}</p>' if single else ""))


def target_table(result: dict[str, Any]) -> str:
    """Scores of other models, trained on the same texts."""
    targets = result.get("targets") or {}
    if not targets:
        return ""
    method = str(result.get("method", "method"))
    scores = {target: {method: entry["test"]} | entry["baselines"] for target, entry in targets.items()}
    sets = list(dict.fromkeys(name for entry in scores.values() for name in entry))
    rows = []
    for target, entry in targets.items():
        gain = (entry.get("paired") or {}).get("random")
        seconds = seconds_of_training(result, target)
        facts = [
            f"{entry['parameters']:,}" if "parameters" in entry else "",
            "" if seconds is None else f"{seconds:.2g}",
        ]
        cells = [_brief(scores[target][name]) if name in scores[target] else "" for name in sets]
        difference = "" if gain is None else f"{gain['mean']:+.2f}{_interval(gain['ci95'])}"
        rows.append([text(target), *facts, *cells, difference])
    quiet = (
        '<p class="quiet">Mean and standard deviation over n trainings; seconds are those of a training on the set of '
    )
    quiet += (
        "the method, with its scores on test. A model without randomness is trained once on each set of texts: there "
    )
    quiet += "n counts sets.</p>"
    shown = table(["model", "parameters", "seconds", *sets, f"{method} minus random"], rows)
    return section("Other models on the same texts, in percent", shown + quiet)


def seconds_of_training(result: dict[str, Any], target: str) -> float | None:
    """Mean seconds that a target took to train on a set of the method and to be scored; `None` where unknown."""
    name, seconds = f"{target}/{result.get('method', 'method')}", result.get("seconds") or {}
    spent = [value for key, value in seconds.items() if key == name or key.startswith(f"{name}/")]
    return sum(spent) / result["targets"][target]["test"]["n"] if spent else None


def label_table(distilled: DistilledSet) -> str:
    """Learned labels as a coloured table: probabilities where there are, else the raw scores."""
    learned = distilled.synthetic.labels if distilled.synthetic is not None else None
    values = distilled.soft_labels if distilled.soft_labels is not None else learned
    if values is None:
        return ""
    values = np.asarray(values, np.float64)
    shown = distilled.label_names[-values.shape[1] :]  # a single number speaks of class 1 of two
    low, high = min(0.0, float(values.min())), float(values.max())
    kind = "probabilities" if distilled.soft_labels is not None else "scores"
    names = "".join(f'<th class="number">{text(name)}</th>' for name in shown)
    rows = [f"<tr><th>sample</th><th>class</th>{names}</tr>"]
    for index, row in enumerate(values[:MOST_ROWS]):
        cells = "".join(_shaded(value, (value - low) / max(high - low, 1e-12)) for value in row)
        rows.append(f"<tr><td>{index}</td><td>{text(distilled.label_names[distilled.labels[index]])}</td>{cells}</tr>")
    more = _more(len(values), "samples")
    return section(f"Learned labels ({kind})", f'<div class="scroll"><table>{"".join(rows)}</table></div>{more}')


def samples(
    distilled: DistilledSet,
    nearest_words: Sequence[Sequence[Sequence[tuple[str, float]]]] | None,
    written: TextQuality | None = None,
) -> str:
    """The texts, with the training texts nearest to those that a method wrote, or the words nearest to each learned
    vector."""
    names = [distilled.label_names[label] for label in distilled.labels]
    if distilled.texts is not None:
        rows = [
            [str(index), text(name), *map(text, sample)]
            for index, (name, sample) in enumerate(zip(names, distilled.texts, strict=True))
        ][:MOST_ROWS]
        columns = ["sample", "class", *distilled.text_columns]
        if written is not None:
            columns += ["nearest training text", f"similarity ({written.similarity})"]
            for index, row in enumerate(rows):
                nearest = "<br>".join(map(text, written.nearest[index]))
                row += [nearest, f"{written.similarities[index]:.2f}"]
        return section("Texts", table(columns, rows) + _more(len(names), "samples"))
    if nearest_words is None:
        return ""
    rows = []
    for index, (name, positions) in enumerate(zip(names, nearest_words, strict=False)):
        words = " ".join(_word(candidates) for candidates in positions if candidates)
        rows.append([str(index), text(name), words])
    quiet = '<p class="quiet">At each position the nearest word of the table, darker where the cosine is higher; '
    quiet += "the others and their cosines on hovering. Vectors need not mean what their neighbours mean.</p>"
    shown = table(["sample", "class", "nearest words"], rows[:MOST_ROWS])
    return section("Nearest words", quiet + shown + _more(len(rows), "samples"))


def cost_table(cost: dict[str, Any]) -> str:
    """What the run cost, in units a person reads."""
    rows = [
        [text(_COST_NAMES.get(name, name.replace("_", " "))), text(quantity(name, value))]
        for name, value in cost.items()
        if value is not None
    ]
    return section("Cost", table(["", ""], rows)) if rows else ""


def quantity(name: str, value: Any) -> str:
    """A cost in human units, chosen by its name."""
    if not isinstance(value, (int, float)):
        return str(value)
    if "seconds" in name:
        return duration(value)
    if "bytes" in name:
        return _prefixed(value, "B")
    if "flops" in name:
        return _prefixed(value, "FLOP")
    return f"{value:,}"


def notes(sentences: Sequence[str]) -> str:
    """What a reader should know of the data and the run."""
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return section("Notes", f"<ul>{items}</ul>") if items else ""


def details(result: dict[str, Any], distilled: DistilledSet | None) -> str:
    """Configuration and versions, folded."""
    config = distilled.manifest.get("config") if distilled is not None else None
    versions = result.get("versions") or (distilled.manifest.get("versions") if distilled is not None else None)
    parts = [(name, value) for name, value in (("Configuration", config), ("Versions", versions)) if value]
    return "\n".join(
        f"<details><summary>{name}</summary><pre>{text(dumps(value))}</pre></details>" for name, value in parts
    )


def section(heading: str, content: str) -> str:
    return f"<h2>{text(heading)}</h2>\n{content}"


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; names are text."""
    head = "<tr>" + "".join(f"<th>{text(name)}</th>" for name in names) + "</tr>" if any(names) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}{body}</table></div>'


def _shaded(value: float, weight: float) -> str:
    ink = "#fff" if weight > 0.6 else "#1e293b"
    style = f"background: rgba(37, 99, 235, {weight:.3f}); color: {ink}"
    return f'<td class="number" style="{style}">{value:.3f}</td>'


def _word(candidates: Sequence[tuple[str, float]]) -> str:
    word, cosine = candidates[0]
    every = ", ".join(f"{name} {similarity:.2f}" for name, similarity in candidates)
    style = f"background: rgba(37, 99, 235, {0.45 * min(max(cosine, 0.0), 1.0):.3f})"
    return f'<span class="word" style="{style}" title="{text(every)}">{text(word)}</span>'


def _more(count: int, what: str) -> str:
    return f'<p class="quiet">The first {MOST_ROWS} of {count} {what}.</p>' if count > MOST_ROWS else ""


def _percent(value: float) -> str:
    return f"{value:.2f}"


def _spread(score: dict[str, Any]) -> str:
    spread = "" if score.get("std") is None else f" ± {score['std']:.2f}"
    trainings = f" over {score['n']} trainings" if "n" in score else ""
    return spread + _interval(score.get("ci95")) + trainings


def _brief(score: dict[str, Any]) -> str:
    spread = "" if score.get("std") is None else f" ± {score['std']:.2f}"
    return f"{_percent(score['mean'])}{spread} (n = {score['n']})"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"


def _prefixed(value: float, unit: str) -> str:
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
