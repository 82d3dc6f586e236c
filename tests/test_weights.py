"""Whose weights are used: all are listed with their licences, and none of them are vec2text's."""

from __future__ import annotations

import re
from pathlib import Path

from jaxdistill.data.tasks import TASKS

ROOT = Path(__file__).parent.parent
SOURCES = {
    path: path.read_text("utf-8")
    for folder in ("jaxdistill", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def test_weights_that_configurations_name_are_listed():
    """What looks like a hub id, stands in quotes and is no data set."""
    data = {task.hub_id for task in TASKS.values()} | {"Sci/Tech"}
    listed = (ROOT / "docs" / "weights.md").read_text("utf-8")
    named = set()
    for path, text in SOURCES.items():
        if path.name == "hub.py":  # examples in docstrings
            continue
        for name in re.findall(r'"([A-Za-z][\w.-]+/[A-Za-z][\w.-]+)"', text):
            if name not in data and not name.startswith(("toy/", "imdb/", "lm_corpora/", "runs/")):
                named.add(name)
    assert {"microsoft/phi-1_5", "openai-community/gpt2-xl"} <= named
    assert {name for name in named if f"`{name}`" not in listed} == set()


def test_nothing_of_vec2text():
    asked = (ROOT / "setup.py").read_text("utf-8") + (ROOT / "requirements.lock").read_text("utf-8")
    for text in (asked, *SOURCES.values()):
        assert not re.search(r"^\s*(?:from|import)\s+vec2text|vec2text\s*[=<>]|vec2text/|jxm/", text, re.MULTILINE)
