"""How learners train on a distilled set: by its learned step sizes, or by a recipe on its texts."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Synthetic
from jaxdistill.data.splits import Split
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.plain import plain
from jaxdistill.methods.base import Problem
from jaxdistill.methods.coreset import text_support
from jaxdistill.methods.registry import METHODS, method_named
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.pipeline.overrides import from_plain

TrainBy = Literal["auto", "schedule", "recipe"]


class Plan(NamedTuple):
    """How learners train.

    Attributes:
      spec: of the learned schedule; `None` for the recipe.
      notes: what a user should know of the choice.
    """

    spec: InnerSpec | None
    notes: tuple[str, ...] = ()


def training_plan(distilled: DistilledSet, problem: Problem, train_by: TrainBy) -> Plan:
    """Choose how learners train on a set.

    Args:
      distilled: the set, its manifest included.
      problem: data and learner.
      train_by: "auto" takes the learned schedule where the set has one that fits the learner; a set of texts made for
        another learner falls back on the recipe, with its soft labels, and the notes say so.

    Raises:
      UserError: the set cannot be trained on that way.
    """
    if train_by == "recipe":
        text_split(distilled)
        return Plan(None)
    spec = spec_of(distilled)
    if spec is None:
        if train_by == "schedule":
            raise UserError("the distilled set holds no learned step sizes: accepted are train_by=auto and recipe")
        text_split(distilled)
        return Plan(None)
    reason = misfit(distilled, problem)
    if reason is None:
        return Plan(spec)
    if train_by == "schedule" or distilled.texts is None:
        raise UserError(f"{reason}: evaluate it with the learner it was made for")
    labels = "hard labels" if distilled.soft_labels is None else "soft labels"
    return Plan(None, (f"{reason}: learners train by the recipe on its texts and {labels}, not by its step sizes",))


def spec_of(distilled: DistilledSet) -> InnerSpec | None:
    """The learned schedule of a set, from its manifest; `None` for plain texts.

    Raises:
      UserError: the manifest names an unknown method, or settings that the method does not have.
    """
    if distilled.synthetic is None or distilled.synthetic.raw_lr is None:
        return None
    name = distilled.manifest["method"]
    if name not in METHODS:
        raise UserError(f"the distilled set was made by {name!r}; known methods are {', '.join(METHODS)}")
    method = method_named(name)
    settings = from_plain(method.config(), plain(distilled.manifest["config"]), "config of the distilled set")
    return method.inner_spec(settings, len(distilled.label_names))


def misfit(distilled: DistilledSet, problem: Problem) -> str | None:
    """In what the learned arrays of a set do not fit the learner, in words; `None` when they do."""
    synthetic, shape = distilled.synthetic, problem.pretrained.learner.shape
    assert synthetic is not None
    groups = None if synthetic.raw_lr is None or synthetic.raw_lr.ndim == 1 else synthetic.raw_lr.shape[1]
    pairs = {
        "width": (None if synthetic.inputs is None else synthetic.inputs.shape[2], shape["width"]),
        "layers": (None if synthetic.attention is None else synthetic.attention.shape[1], shape["layers"]),
        "heads": (None if synthetic.attention is None else synthetic.attention.shape[2], shape["heads"]),
        "step-size groups": (groups, len(problem.pretrained.learner.group_names)),
    }
    for name, (there, here) in pairs.items():
        if there is not None and there != here:
            return f"the distilled set has {there} {name}, the learner {problem.pretrained.source!r} {here}"
    length = 0 if synthetic.inputs is None else synthetic.inputs.shape[1]
    learner = problem.pretrained.learner
    if length and not learner.min_length <= length <= learner.max_length:
        allowed = f"{learner.min_length} to {learner.max_length}"
        return f"the distilled set has {length} positions, the learner {problem.pretrained.source!r} {allowed}"
    return None


def learned_arrays(distilled: DistilledSet, spec: InnerSpec, problem: Problem) -> tuple[Synthetic, Batch]:
    """(learned arrays, support) of a distilled set, checked against the learner, the task and its own settings.

    Raises:
      UserError: the set does not fit.
    """
    synthetic = distilled.synthetic
    if synthetic is None or synthetic.raw_lr is None:
        raise UserError("the distilled set holds no learned step sizes: evaluate it by a recipe")
    if reason := misfit(distilled, problem):
        raise UserError(f"{reason}: evaluate it with the learner it was made for")
    rates, attention = synthetic.raw_lr.shape[0], synthetic.attention is not None
    length = 0 if synthetic.inputs is None else synthetic.inputs.shape[1]
    rows = (1 if spec.attention == "cls" else length, length)
    given = synthetic.attention.shape[3:] if synthetic.attention is not None and length else rows
    for fits, there, asked in (
        (len(distilled.label_names) == problem.classes, f"{len(distilled.label_names)} classes", problem.classes),
        (len(distilled.labels) == spec.samples, f"{len(distilled.labels)} samples", spec.samples),
        (rates in (1, spec.steps), f"step sizes for {rates} steps", f"1 or {spec.steps}"),
        (attention == (spec.attention != "none"), f"{'' if attention else 'no '}attention labels", spec.attention),
        (given == rows, f"attention labels for {given[0]} rows of {given[1]} positions", f"{rows[0]} of {rows[1]}"),
    ):
        if not fits:
            raise UserError(f"the distilled set has {there}, its settings and the task ask for {asked}")
    if distilled.texts is not None:
        return synthetic, text_support(problem, text_split(distilled), spec)
    hard = np.eye(spec.classes, dtype=np.float32)[distilled.labels]
    return synthetic, Batch(labels=hard if synthetic.labels is None else None)


def text_split(distilled: DistilledSet) -> Split:
    """The texts of a text-level set.

    Raises:
      UserError: the set holds vectors.
    """
    if distilled.texts is None:
        raise UserError("the distilled set holds vectors, not texts: a fine-tuning recipe cannot train on it")
    return Split(distilled.texts, np.asarray(distilled.labels, np.int32))
