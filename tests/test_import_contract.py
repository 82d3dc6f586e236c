"""The shape of the house: which part may import which, what is imported lazily, how long a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, run_python

PACKAGE = ROOT / "jaxdistill"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "experiments").rglob("*.py")), *sorted((ROOT / "launch").rglob("*.py"))]
# Bottom first. A part may import the parts of the tiers below it and itself, none beside it.
TIERS = [
    {"core"},
    {"models", "data", "io", "parallel"},
    {"objectives", "coresets", "generation", "privacy"},
    {"evaluation"},
    {"methods"},
    {"pipeline"},
]
ALLOWED = {part: set().union(*TIERS[:height]) | {part} for height, tier in enumerate(TIERS) for part in tier}
# Slow to import, and needed by few commands.
HEAVY = {"datasets", "transformers", "matplotlib", "sklearn", "scipy", "pandas", "tensorboardX", "huggingface_hub"} | {
    "dp_accounting"
}
MAX_LINES = 450


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """Dotted names that import statements among these nodes bring in."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: write jaxdistill. ..."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_arrows_point_down(path):
    names = list(imported(ast.walk(ast.parse(path.read_text()))))
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    ours = {name.split(".")[1] for name in names if name.startswith("jaxdistill.")}
    assert ours <= ALLOWED.get(part, set()), f"{part} may import {sorted(ALLOWED.get(part, set()))}"
    assert not {"torch", "experiments", "tests"} & {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_are_small_and_heavy_packages_are_imported_lazily(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_LINES
    assert not HEAVY & {name.split(".")[0] for name in imported(ast.parse(text).body)}


def test_every_part_has_its_place():
    parts = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts <= set(ALLOWED)


def test_importing_everything_loads_nothing_heavy():
    names = [relative(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in MODULES]
    code = f"""
        import importlib, sys
        for name in {names}:
            importlib.import_module(name)
        print(sorted({HEAVY | {"torch"}} & set(sys.modules)))
        import jax
        print(jax._src.xla_bridge.backends_are_initialized())
    """
    assert run_python(code).splitlines() == ["[]", "False"]
