"""Configuration files, and typed changes to them from the command line: `--config.settings.per_class=5`."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jaxdistill.core.errors import UserError
from jaxdistill.methods.registry import method_named
from jaxdistill.pipeline.attribute_config import AttributeConfig, smoke_attribute
from jaxdistill.pipeline.checks import check_value
from jaxdistill.pipeline.classifier_config import ClassifierConfig, smoke_classifier
from jaxdistill.pipeline.config import ExperimentConfig, smoke
from jaxdistill.pipeline.inverter_config import InverterConfig, smoke_inverter
from jaxdistill.pipeline.language_config import LanguageModelConfig, smoke_language_model

# The kinds of configuration files, with what makes the smoke form.
_SMOKE: dict[type, Callable[[Any], Any]] = {
    ExperimentConfig: smoke,
    LanguageModelConfig: smoke_language_model,
    ClassifierConfig: smoke_classifier,
    AttributeConfig: smoke_attribute,
    InverterConfig: smoke_inverter,
}
Config = TypeVar("Config", ExperimentConfig, LanguageModelConfig, ClassifierConfig, AttributeConfig, InverterConfig)
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def load_config(path: str, kind: type[Config] = ExperimentConfig) -> Config:
    """What `get_config()` of a Python file returns; `path:smoke` gives its smoke form.

    Args:
      path: of the file.
      kind: of configuration that it has to be.

    Raises:
      UserError: there is no such file, it cannot be run, it has no `get_config`, or that returns something else.
    """
    name, _, form = path.partition(":")
    if form not in ("", "smoke"):
        raise UserError(f"config {path!r}: unknown form {form!r}; accepted is smoke, or nothing")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"config file {name!r} does not exist; see experiments/configs")
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {name!r} is no Python file; accepted is a .py file with get_config()")
    module = importlib.util.module_from_spec(spec)
    # The file is the user's program: whatever it raises is a mistake in it.
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"config file {name!r} has no function get_config()")
        config = module.get_config()
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise UserError(f"config file {name!r} cannot be used: {type(error).__name__}: {reason}") from error
    if not isinstance(config, kind):
        article = "a" if kind is LanguageModelConfig else "an"
        raise UserError(f"get_config() of {name!r} returns {type(config).__name__}, not {article} {kind.__name__}")
    return _SMOKE[kind](config) if form else config


def override(config: Config, changes: dict[str, str]) -> Config:
    """A configuration with some fields changed.

    Changing `method` alone puts that method's default settings in place of the old ones.

    Args:
      config: what to change.
      changes: texts by dotted path, as in {"settings.outer.updates": "100"}; tuples are comma-separated.

    Raises:
      UserError: unknown field (close names are offered), wrong type, or a value that a configuration refuses.
    """
    changes = dict(changes)
    if isinstance(config, ExperimentConfig) and changes.get("method", config.method) != config.method:
        name = changes.pop("method")
        config = dataclasses.replace(config, method=name, settings=method_named(name).config())
    tree: dict[str, Any] = {}
    for path, text in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"config.{path} changes a part of a field that is itself changed")
        node[leaf] = text
    return _replace(config, tree, "config")


def _replace(config: Any, changes: dict[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]
    values = {}
    for name, change in changes.items():
        where = f"{path}.{name}"
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UserError(f"unknown field {where}{hint}: {path} has {', '.join(names)}")
        current = getattr(config, name)
        if isinstance(change, dict):
            if not dataclasses.is_dataclass(current):
                raise UserError(f"unknown field {where}.{next(iter(change))}: {where} has no fields")
            values[name] = _replace(current, change, where)
        elif dataclasses.is_dataclass(current):
            fields = ", ".join(field.name for field in dataclasses.fields(current))
            raise UserError(f"{where} cannot be set as a whole to {change!r}: set one of its fields {fields}")
        else:
            values[name] = parse(change, hints[name], where)
    return dataclasses.replace(config, **values)


def parse(text: str, kind: Any, where: str) -> Any:
    """A value of type `kind` from its text.

    Raises:
      UserError: the text is no such value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if text not in arguments:
            raise UserError(f"{where} is {text!r}: accepted are {', '.join(map(str, arguments))}")
        return text
    if origin is tuple:
        return tuple(parse(part, arguments[0], where) for part in text.split(",") if part)
    if origin in (types.UnionType, typing.Union):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return parse(text, next(a for a in arguments if a is not type(None)), where)
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise UserError(f"{where} is {text!r}: accepted are true and false")
        return _BOOLEANS[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise UserError(f"{where} is {text!r}: accepted is {noun}") from None
    if kind is str:
        return text
    raise TypeError(f"{where} has the type {kind}, which no flag can set")


def from_plain(config: Any, values: Any, path: str = "config") -> Any:
    """A configuration from its JSON form, as manifests hold it.

    Args:
      config: of the same type; fields that `values` lacks keep its values.
      values: as `io.plain.plain` made them.
      path: what it is called in an error.

    Raises:
      UserError: a field that the configuration does not have, a value of another type or one that it refuses.
    """
    if not isinstance(values, dict):
        raise UserError(f"{path} is {values!r}: accepted is an object with the fields of {type(config).__name__}")
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]
    if unknown := sorted(set(values) - set(names)):
        raise UserError(f"{type(config).__name__} has no field {unknown[0]!r}: it has {', '.join(sorted(names))}")
    changes = {}
    for name, value in values.items():
        current, where = getattr(config, name), f"{path}.{name}"
        if dataclasses.is_dataclass(current):
            changes[name] = from_plain(current, value, where)
            continue
        if isinstance(value, list):
            value = tuple(value)
        elif hints[name] is float and value in ("nan", "inf", "-inf"):  # which JSON has no numbers for
            value = float(value)
        check_value(value, hints[name], where)
        changes[name] = value
    return dataclasses.replace(config, **changes)
