"""The run-time type checker, in a module that imports nothing of the package whose modules it checks."""

from __future__ import annotations

from collections.abc import Callable

from beartype import BeartypeConf, beartype

# An int is a float, as for static checkers (PEP 484).
_with_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable) -> Callable:
    """The type checker of the jaxtyping import hook: functions are checked, constructors are not.

    A pytree of arrays also has to hold what JAX puts in its place (specs, shapes, batch axes, `None`), and
    configurations refuse wrong types themselves, with a `UserError`.
    """
    return function if function.__name__ == "__init__" else _with_beartype(function)
