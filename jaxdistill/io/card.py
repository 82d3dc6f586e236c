"""The data card of a distilled set: a README that Hugging Face tools read too."""

from __future__ import annotations

import json
from typing import Any

from jaxdistill.io.progress import duration


def data_card(manifest: dict[str, Any]) -> str:
    """README.md for a distilled-set folder.

    Args:
      manifest: the full manifest, in plain JSON values.
    """
    text_level = manifest["level"] == "text"
    lines = ["---", *_header(manifest), "---", "", f"# {_name(manifest)}", ""]
    lines += [_summary(manifest), "", "## Loading", "", "```python"]
    if text_level:
        lines += ["import datasets", "", 'rows = datasets.load_dataset("path/to/this/folder", split="train")', ""]
    lines += ["from jaxdistill.io.distilled import load_distilled", ""]
    lines += ['distilled = load_distilled("path/to/this/folder")', "```", ""]
    if manifest["arrays"]:
        lines += ["## Arrays", "", "| name | shape | type |", "|---|---|---|"]
        lines += [f"| `{name}` | {_times(array['shape'])} | {array['dtype']} |" for name, array in _items(manifest)]
        lines += [""]
    lines += ["## Facts", "", "| | |", "|---|---|", *_facts(manifest), ""]
    lines += ["The whole configuration, package versions and file hashes are in `manifest.json`.", ""]
    return "\n".join(lines)


def _header(manifest: dict[str, Any]) -> list[str]:
    # JSON strings are YAML strings, so quoting by `json.dumps` keeps any name intact.
    lines = [f"pretty_name: {json.dumps(_name(manifest))}"]
    lines += ["tags:", "- dataset-distillation", "- jaxdistill"]
    if manifest["level"] == "text":
        lines += ["task_categories:", f"- text-{'generation' if manifest['task'] is None else 'classification'}"]
        lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: data.parquet"]
    return lines


def _name(manifest: dict[str, Any]) -> str:
    """Of a task's set, or of texts that belong to no task."""
    if manifest["task"] is None:
        return f"Texts by {manifest['method']}"
    return f"{manifest['task']} distilled by {manifest['method']}"


def _summary(manifest: dict[str, Any]) -> str:
    if manifest["task"] is None:
        made = f" with the model `{_inline(manifest['learner'])}`" if manifest["learner"] is not None else ""
        return f"{manifest['examples']} texts without labels, made{made} for language models to be tuned on."
    what = "texts" if manifest["level"] == "text" else "sequences of input embeddings"
    text = f"{manifest['examples']} {what} over {len(manifest['label_names'])} classes"
    text += f" ({', '.join(manifest['label_names'])}), distilled from the task `{manifest['task']}`"
    if manifest["learner"] is not None:
        text += f" for the learner `{_inline(manifest['learner'])}`"
    text += ". They are meant to train such a model in place of the whole data set."
    test = (manifest.get("result") or {}).get("test")
    if test:
        metric = manifest["result"].get("metric", "score")
        spread = "" if test["std"] is None else f" ± {test['std']:.2f}"
        text += f" Measured: test {metric} {test['mean']:.2f}{spread} over {test['n']} trainings."
    return text


def _facts(manifest: dict[str, Any]) -> list[str]:
    facts = {"task": manifest["task"], "method": manifest["method"], "seeds": manifest["seeds"]}
    facts |= {"hash of the source data": manifest["source_hash"]}
    for name, value in (manifest["cost"] or {}).items():
        if name.endswith("_seconds") and isinstance(value, (int, float)):
            facts[name.removesuffix("_seconds") + " time"] = duration(value)
        elif value is not None:
            facts[name.replace("_", " ")] = value
    return [f"| {_cell(name)} | {_cell(_inline(value))} |" for name, value in facts.items()]


def _items(manifest: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(manifest["arrays"].items())


def _times(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
