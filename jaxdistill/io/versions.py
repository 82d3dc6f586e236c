"""What a run was made with."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import jax

import jaxdistill

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "transformers", "datasets")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result, and the devices in words.

    Initialises the jax backend, to name the devices. Packages that are not installed are left out.
    """
    found = {"jaxdistill": jaxdistill.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"device": device()}


def device() -> str:
    """The devices jax computes on, as "2 x NVIDIA H200 (gpu)" or "cpu (2 cores)"."""
    devices = jax.devices()
    kind, backend = devices[0].device_kind, jax.default_backend()
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    return f"{count}cpu ({os.cpu_count()} cores)" if backend == "cpu" else f"{count}{kind} ({backend})"
