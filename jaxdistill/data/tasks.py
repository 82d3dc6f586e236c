"""The task table: what each data set is called, where it lies and how it is read."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Literal

from jaxdistill.core.errors import UserError

Metric = Literal["accuracy", "accuracy_f1_mean"]
# How the files of a task of vectors are laid out, see `data.vectors`.
VectorFormat = Literal["moji", "bios", "arrays"]
TOY_REVIEWS, TOY_BIAS = "toy/reviews", "toy/bias"
LEAST_SHARE, LARGEST_SHARE = 0.05, 0.95


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
      group_column: column of the protected group; empty when no file tells it.
      group_names: name of each group, in the order of the ids; empty until the data are read where they name their
        groups themselves, and where there are none.
      vector_format: of a task of vectors; `None` for a task of texts.
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
    group_column: str = ""
    group_names: tuple[str, ...] = ()
    vector_format: VectorFormat | None = None

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.text_columns, self.label_column, *([self.group_column] if self.group_column else []))


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
_PROFESSIONS = (
    "accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker interior_designer "
    "journalist model nurse painter paralegal pastor personal_trainer photographer physician poet professor "
    "psychologist rapper software_engineer surgeon teacher yoga_teacher"
)


def _glue(name: str, texts: tuple[str, ...], labels: tuple[str, ...], **changes) -> Task:
    task = Task(name, "nyu-mll/glue", name, name, texts, "label", labels, test_splits=_GLUE_TEST)
    return dataclasses.replace(task, **changes)


def vector_task(name: str, vector_format: VectorFormat, label_names: tuple[str, ...], **changes) -> Task:
    """A task of vectors: each text is the name of its row, one word."""
    task = Task(name, None, None, name, ("row",), "label", label_names, max_length=1, vector_format=vector_format)
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
    # ToxiGen with human annotation; the hub's copy has scores of toxicity in place of a label.
    Task(
        "toxigen",
        None,
        None,
        "toxigen",
        ("text",),
        "label",
        ("benign", "toxic"),
        test_splits=("test", "train"),
        group_column="target_group",
    ),
    # DeepMoji vectors of tweets; groups are Standard and African-American English.
    vector_task("moji", "moji", ("sad", "happy"), group_column="group", group_names=("SAE", "AAE")),
    # BERT vectors of biographies (De-Arteaga et al. 2019).
    vector_task(
        "bios", "bios", tuple(_PROFESSIONS.split()), label_column="p", group_column="g", group_names=("m", "f")
    ),
    Task(TOY_REVIEWS, None, None, "", ("text",), "label", _SENTIMENT, max_length=64),
    vector_task(TOY_BIAS, "arrays", ("0", "1"), group_column="group", group_names=("0", "1")),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def task_named(name: str) -> Task:
    """The row of the table; `toy/reviews:<p>` is `toy/reviews` with a share p, see `reviews_share`, and only it counts
    the manner of writers as protected groups.

    Raises:
      UserError: the table has no such task; names close matches and all there are.
    """
    if name in TASKS:
        return TASKS[name]
    if reviews_share(name) is not None:
        return dataclasses.replace(TASKS[TOY_REVIEWS], name=name, group_names=("casual", "formal"))
    close = difflib.get_close_matches(name, TASKS, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UserError(
        f"unknown task {name!r}: {hint}known are {', '.join(TASKS)}; a task of your own needs data_dir, "
        "text_columns and label_column"
    )


def reviews_share(name: str) -> float | None:
    """The p of `toy/reviews:<p>`: the share of its training texts whose label and writer group go together.

    Returns:
      p; `None` for a name of another form.

    Raises:
      UserError: p is no number from 0.05 to 0.95.
    """
    corpus, colon, given = name.partition(":")
    if corpus != TOY_REVIEWS or not colon:
        return None
    try:
        share = float(given)
    except ValueError:
        share = float("nan")
    if not LEAST_SHARE <= share <= LARGEST_SHARE:
        raise UserError(
            f"task {name!r}: behind {TOY_REVIEWS}: stands the share of training texts whose label and group go "
            f"together; accepted is a number from {LEAST_SHARE} to {LARGEST_SHARE}"
        )
    return share
