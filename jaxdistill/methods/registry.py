"""All methods by name: published works and coresets alike."""

from __future__ import annotations

import difflib

from jaxdistill.core.errors import UserError
from jaxdistill.methods import (
    attention_label,
    coreset,
    dallme,
    dilm,
    fair,
    gradmm,
    matching,
    soft_label,
    teacher_labels,
)
from jaxdistill.methods.base import Method

METHODS: dict[str, Method] = {
    "attention_label": attention_label.METHOD,
    "soft_label": soft_label.METHOD,
    "fair": fair.METHOD,
    **matching.METHODS,
    "dilm": dilm.METHOD,
    "gradmm": gradmm.METHOD,
    "dallme": dallme.METHOD,
    "teacher_labels": teacher_labels.METHOD,
    **coreset.METHODS,
}
# Methods that need to be told no more than how many samples to make, and that may so stand beside any other.
BASELINES = (*coreset.METHODS, "teacher_labels")


def method_named(name: str) -> Method:
    """The method called `name`.

    Raises:
      UserError: there is none; close names are offered.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(f"unknown method {name!r}{hint}: accepted are {', '.join(METHODS)}")
    return METHODS[name]
