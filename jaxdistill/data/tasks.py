"""The task table: what each data set is called, where it lies and how it is read."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from jaxdistill.core.errors import UserError

Metric = Literal["accuracy", "accuracy_f1_mean"]
TOY_REVIEWS = "toy/reviews"


@dataclasses.dataclass(frozen=True)
class Task:
    """One text classification task.

    Attributes:
      name: how the user calls it.
      hub_id, hub_config, hub_revision: where it lies on the Hugging Face hub; `hub_id` is `None` for a task that is
        not there.
      folder: name of its folder under `$JAXDISTILL_DATA`.
      text_columns: one column, or two for a pair task.
      label_column: column of class ids or class names.
      label_names: name of each class, in the order of the ids.
      metric: "accuracy", or "accuracy_f1_mean" (the mean of accuracy and F1 of class 1).
      train_split: name of the training split.
      test_splits: names of splits that may play the test role, best first; the first one present does.
      max_length: default truncation, in tokens with the special ones.
    """

    name: str
    hub_id: str | None
    hub_config: str | None
    folder: str
    text_columns: tuple[str, ...]
    label_column: str
    label_names: tuple[str, ...]
    metric: Metric = "accuracy"
    train_split: str = "train"
    test_splits: tuple[str, ...] = ("test", "validation")
    max_length: int = 128
    hub_revision: str | None = None

    @property
    def num_classes(self) -> int:
        return len(self.label_names)


_TREC_FINE = (
    "ABBR:abb ABBR:exp ENTY:animal ENTY:body ENTY:color ENTY:cremat ENTY:currency ENTY:dismed ENTY:event ENTY:food "
    "ENTY:instru ENTY:lang ENTY:letter ENTY:other ENTY:plant ENTY:product ENTY:religion ENTY:sport ENTY:substance "
    "ENTY:symbol ENTY:techmeth ENTY:termeq ENTY:veh ENTY:word DESC:def DESC:desc DESC:manner DESC:reason HUM:gr "
    "HUM:ind HUM:title HUM:desc LOC:city LOC:country LOC:mount LOC:other LOC:state NUM:code NUM:count NUM:date "
    "NUM:dist NUM:money NUM:ord NUM:other NUM:period NUM:perc NUM:speed NUM:temp NUM:volsize NUM:weight"
)
# The labels of GLUE test splits are withheld, so the validation split is the one that is reported.
_GLUE_TEST = ("validation", "test")
_SENTIMENT = ("negative", "positive")


def _glue(name: str, texts: tuple[str, ...], labels: tuple[str, ...], **changes) -> Task:
    task = Task(name, "nyu-mll/glue", name, name, texts, "label", labels, test_splits=_GLUE_TEST)
    return dataclasses.replace(task, **changes)


_ALL = (
    Task(
        "ag_news", "fancyzhx/ag_news", None, "ag_news", ("text",), "label", ("World", "Sports", "Business", "Sci/Tech")
    ),
    _glue("sst2", ("sentence",), _SENTIMENT, max_length=64),
    Task(
        "sst5",
        "SetFit/sst5",
        None,
        "sst5",
        ("text",),
        "label",
        ("very negative", "negative", "neutral", "positive", "very positive"),
        max_length=64,
    ),
    _glue("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), metric="accuracy_f1_mean"),
    _glue("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), metric="accuracy_f1_mean"),
    _glue(
        "mnli",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        test_splits=("validation_matched", "validation", "test"),
    ),
    # The hub's copy is a loading script, which `datasets` no longer runs: read its parquet conversion.
    Task(
        "trec",
        "CogComp/trec",
        None,
        "trec",
        ("text",),
        "coarse_label",
        ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        max_length=64,
        hub_revision="refs/convert/parquet",
    ),
    Task(
        "trec_fine",
        "CogComp/trec",
        None,
        "trec",
        ("text",),
        "fine_label",
        tuple(_TREC_FINE.split()),
        max_length=64,
        hub_revision="refs/convert/parquet",
    ),
    Task("imdb", "stanfordnlp/imdb", None, "imdb", ("text",), "label", _SENTIMENT, max_length=512),
    Task(
        "rotten_tomatoes",
        "cornell-movie-review-data/rotten_tomatoes",
        None,
        "rotten_tomatoes",
        ("text",),
        "label",
        _SENTIMENT,
        max_length=64,
    ),
    Task(
        "tweet_emotion",
        "cardiffnlp/tweet_eval",
        "emotion",
        "tweet_emotion",
        ("text",),
        "label",
        ("anger", "joy", "optimism", "sadness"),
        max_length=64,
    ),
    Task(TOY_REVIEWS, None, None, "", ("text",), "label", _SENTIMENT, max_length=64),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def task_named(name: str) -> Task:
    """The row of the table.

    Raises:
      UserError: the table has no such task; names close matches and all there are.
    """
    if name in TASKS:
        return TASKS[name]
    close = difflib.get_close_matches(name, TASKS, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UserError(
        f"unknown task {name!r}: {hint}known are {', '.join(TASKS)}; a task of your own needs data_dir, "
        "text_columns and label_column"
    )
