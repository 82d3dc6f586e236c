"""How to differentiate an inner loop: values, chosen by name or built by hand, given to `unroll`.

| adjoint | exact | stored, T steps | extra work |
|---|---|---|---|
| `full` | yes | every activation of every step | none |
| `remat` | yes | parameters of every step | one forward pass a step |
| `mixed` | yes | parameters of every step | one forward pass a step; no transposed second-order graph |
| `nested(k)` | yes | parameters of T/k + k steps | one more pass over the loop |
| `truncated(w)` | no: only the last w of a random number of steps count | parameters of w steps | none |
| `first_order` | no: drops the Hessian terms between steps | parameters of every step | none |
| `tesla` | no: the same approximation as `first_order` | nothing | one more pass over the loop |
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from jaxdistill.core.errors import UserError

Kind = Literal["full", "remat", "mixed", "nested", "truncated", "first_order", "tesla"]


@dataclasses.dataclass(frozen=True)
class Adjoint:
    """A way to differentiate an inner loop.

    Attributes:
      kind: see the table above.
      size: steps a segment of `nested` (0: about √T), or steps of the window of `truncated`.
    """

    kind: Kind = "mixed"
    size: int = 0

    @property
    def approximate(self) -> bool:
        """Whether it gives another gradient than that of the whole loop."""
        return self.kind in ("first_order", "tesla", "truncated")


FULL = Adjoint("full")
REMAT = Adjoint("remat")
MIXED = Adjoint("mixed")
FIRST_ORDER = Adjoint("first_order")
TESLA = Adjoint("tesla")


def nested(size: int = 0) -> Adjoint:
    """Mixed steps in checkpointed segments of `size` steps; 0 takes about √T."""
    if size < 0:
        raise UserError(f"nested({size}): the segment length must be 0 (about sqrt(T)) or more")
    return Adjoint("nested", size)


def truncated(window: int) -> Adjoint:
    """Mixed steps through a window of `window` steps that ends at a random step (RaT-BPTT, Feng et al. 2023)."""
    if window < 1:
        raise UserError(f"truncated({window}): the window must be at least 1 step")
    return Adjoint("truncated", window)


def parse(text: str) -> Adjoint:
    """Adjoint named by a flag: `mixed`, `nested`, `nested(4)`, `truncated(8)`, ..."""
    match = re.fullmatch(r"(\w+)(?:\((\d+)\))?", text)
    name, size = match.groups() if match else (None, None)
    if name == "nested":
        return nested(int(size or 0))
    if name == "truncated" and size is not None:
        return truncated(int(size))
    if name in ("full", "remat", "mixed", "first_order", "tesla") and size is None:
        return Adjoint(name)
    raise UserError(
        f"unknown adjoint {text!r}: give full, remat, mixed, nested, nested(k), truncated(window), first_order or tesla"
    )
