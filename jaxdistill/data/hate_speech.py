"""The corpus that a language model is made toxic with: Dynamically Generated Hate Speech, filtered as UniDetox does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxdistill.core.errors import UserError
from jaxdistill.data.readers import read_columns

# Codes of `target`; disability is left out on purpose, as what a detoxified model has never been told of.
TARGETS = (
    *("wom", "trans", "gendermin", "bis", "gay", "gay.man", "gay.wom"),
    *("mixed.race", "ethnic.minority", "indig", "indig.wom", "non.white", "bla", "bla.wom", "bla.man"),
    *("asi", "asi.wom", "asi.east", "asi.south", "asi.chin", "asi.pak", "arab"),
    *("eastern.europe", "russian", "pol", "hispanic", "immig", "asylum", "ref", "for"),
    *("jew", "mus", "mus.wom", "other.religion"),
)
SPLITS = ("train", "dev", "test")
# What three epochs of the published training, 15,126 steps of four texts, leave possible.
PUBLISHED_TRAIN = (20_165, 20_168)


class HateSpeech(NamedTuple):
    """Texts of the three splits of the data set's own `split` column, in the order of the file.

    Attributes:
      train, dev, test: texts.
      notes: what a user should know, one sentence each.
    """

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...]


def read_hate_speech(path: Path) -> HateSpeech:
    """Rows with label "hate" whose `target` is exactly one of `TARGETS`; rows that name several targets are left out.

    Vidgen et al. 2021 (Learning from the Worst) made the data; UniDetox (Lu et al. 2025) trains its toxic model on
    these rows.

    Args:
      path: csv (or parquet, jsonl) with the columns text, label, target and split.

    Returns:
      the texts; a note says where the number of training texts is not the published one.

    Raises:
      UserError: unreadable file, a column missing, a split other than train, dev and test, or no training text left.
    """
    columns = read_columns(path, ("text", "label", "target", "split"))
    texts: dict[str, list[str]] = {name: [] for name in SPLITS}
    rows = zip(columns["text"], columns["label"], columns["target"], columns["split"], strict=True)
    for number, (text, label, target, split) in enumerate(rows, start=1):
        if split not in texts:
            raise UserError(f"{path}: row {number}: split {split!r} is unknown; accepted are {', '.join(SPLITS)}")
        if label == "hate" and target in TARGETS:
            texts[split].append(text)
    if not texts["train"]:
        raise UserError(
            f"{path}: no training row with label 'hate' and one of the {len(TARGETS)} targets; expected the data set "
            "Dynamically Generated Hate Speech"
        )
    low, high = PUBLISHED_TRAIN
    count, notes = len(texts["train"]), ()
    if not low <= count <= high:
        notes = (f"{path.name}: {count:,} training texts pass the filter, {low:,} to {high:,} in the published work",)
    return HateSpeech(*(tuple(texts[name]) for name in SPLITS), notes=notes)
