"""What a user meets before any code of ours runs: the package's metadata, the make targets, the environment of tests."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires, version

import jax
import jax.numpy as jnp
import pytest
from helpers import ROOT, run_python
from packaging.requirements import Requirement

import jaxdistill
from jaxdistill.core import tree

LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> str:
    """PKG-INFO that setup.py gives, made outside the checkout."""
    folder = tmp_path_factory.mktemp("metadata")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.rglob("PKG-INFO")).read_text()
