"""Do the values of a configuration have the types its fields declare? Dataclasses themselves do not ask."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from jaxdistill.core.errors import UserError

_NOUNS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def check_types(config: Any, path: str = "config") -> None:
    """Check every field of a dataclass, and of the dataclasses in it, against its annotation.

    Args:
      config: a configuration.
      path: what it is called in an error.

    Raises:
      UserError: a value has another type.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        check_value(getattr(config, field.name), hints[field.name], f"{path}.{field.name}")


def check_value(value: Any, kind: Any, where: str) -> None:
    """Check one value against a type. A whole number passes for a number; a bool passes for neither.

    Raises:
      UserError: the value has another type.
    """
    if not _is(value, kind):
        raise UserError(f"{where} is {_shown(value)}: accepted is {noun(kind)}")
    if dataclasses.is_dataclass(value):
        check_types(value, where)


def at_least(config: Any, path: str, least: dict[str, int]) -> None:
    """Check lower bounds of fields.

    Raises:
      UserError: a value is below its bound, or not a number at all (NaN).
    """
    for name, bound in least.items():
        if not (value := getattr(config, name)) >= bound:
            raise UserError(f"{path}.{name} is {value}: accepted is {bound} or more")


def noun(kind: Any) -> str:
    """What a type accepts, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a tuple whose entries are each {noun(arguments[0])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join("None" if kind is type(None) else noun(kind) for kind in arguments)
    return _NOUNS.get(kind) or f"a {kind.__name__}"


def _is(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:  # configurations have tuples of one type only, tuple[str, ...]
        return isinstance(value, tuple) and all(_is(entry, arguments[0]) for entry in value)
    if origin in (types.UnionType, typing.Union):
        return any(_is(value, kind) for kind in arguments)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _shown(value: Any, width: int = 60) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."
