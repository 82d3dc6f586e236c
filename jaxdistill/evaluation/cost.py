"""What a run costs: wall time, work and memory of the compiled program, peak memory of the process."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jax_core

from jaxdistill.evaluation.memory import peak_resident_bytes


def compiled_cost(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """XLA's own figures for a compiled program; `None` where the backend gives none.

    Returns:
      "flops" and "bytes" (memory traffic) of one execution, in which XLA counts the body of a loop ONCE whatever its
      trip count (see `matmul_flops` for programs with scans); "temp_bytes", "argument_bytes", "output_bytes" and
      "alias_bytes" (of the output, where it takes the place of donated arguments) as allocated. Of a program for
      several devices, all are those of one device.
    """
    analysis: Any = compiled.cost_analysis()
    # A backend may answer one dict, one dict a device program, or nothing.
    programs = analysis if isinstance(analysis, list | tuple) else [analysis]
    program = next((entry for entry in programs if entry), {})
    memory = compiled.memory_analysis()
    return {
        "flops": _whole(program.get("flops")),
        "bytes": _whole(program.get("bytes accessed")),
        "temp_bytes": _whole(getattr(memory, "temp_size_in_bytes", None)),
        "argument_bytes": _whole(getattr(memory, "argument_size_in_bytes", None)),
        "output_bytes": _whole(getattr(memory, "output_size_in_bytes", None)),
        "alias_bytes": _whole(getattr(memory, "alias_size_in_bytes", None)),
    }


def matmul_flops(function: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of all matrix products in one call of `function`, times two; nothing is run.

    Counted in the traced program, scans times their length and rematerialised parts as often as they run, which XLA's
    own count does not do. Element-wise work is left out (a few percent of a transformer). Of a `cond` the dearest
    branch counts; the body of a `while_loop`, whose trip count is not known, counts once.

    Args:
      function: anything `jax.make_jaxpr` traces, gradients and jitted functions included.
      *args: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr)


def peak_memory_bytes() -> int:
    """Most memory used so far: of the fullest local accelerator, or of this process where the backend has no figure."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if known else peak_resident_bytes()


@dataclasses.dataclass(frozen=True)
class CostRecord:
    """The "cost" entry of `result.json`; `None` where nothing was measured.

    Attributes:
      distill_seconds: wall time of the distillation, compilation and selection included, resumed parts added up.
      seconds_per_outer_step: median over outer steps, compilation excluded.
      evaluate_seconds: wall time of the reported number, resumed parts added up.
      flops: of all outer steps together.
      peak_bytes: see `peak_memory_bytes`.
      real_examples: real examples shown to the outer loss, repetitions counted.
      distilled_bytes: of the arrays, or texts, of the distilled set.
    """

    distill_seconds: float | None = None
    seconds_per_outer_step: float | None = None
    evaluate_seconds: float | None = None
    flops: int | None = None
    peak_bytes: int | None = None
    real_examples: int | None = None
    distilled_bytes: int | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """As it stands in `result.json`."""
        return dataclasses.asdict(self)


def _whole(figure: float | int | None) -> int | None:
    """A count as an integer; XLA says "unknown" with a negative number."""
    return None if figure is None or figure < 0 else int(figure)


def _jaxpr_flops(jaxpr: jax_core.Jaxpr) -> int:
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * depth * equation.outvars[0].aval.size
    inner = [_jaxpr_flops(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    return sum(inner) * params["length"] if name == "scan" else sum(inner)


def _jaxprs(parameter: Any) -> list[jax_core.Jaxpr]:
    """The programs inside one parameter of an equation."""
    if isinstance(parameter, jax_core.ClosedJaxpr):
        return [parameter.jaxpr]
    if isinstance(parameter, jax_core.Jaxpr):
        return [parameter]
    if isinstance(parameter, tuple | list):
        return [jaxpr for entry in parameter for jaxpr in _jaxprs(entry)]
    return []
