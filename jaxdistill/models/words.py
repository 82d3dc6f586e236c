"""Word vectors with a tokenizer of whole words from a GloVe file, and vectors of whole texts."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNKNOWN = "<pad>", "<unk>"
# Splits "don't" in "do" and "n't", "it's" in "it" and "'s", and off punctuation, as the texts behind GloVe were.
_WORDS = r"n't\b|'\w+|\w+(?=n't)|\w+|[^\w\s]"


class WordVectors(NamedTuple):
    """A frozen table and the tokenizer whose ids index it.

    Attributes:
      table: one row a token id; of words, zeros for padding and unknown ones.
      tokenizer: lower-cases, cuts in words, or takes a whole text as one; no special tokens.
      source: what was read; `None` for vectors that were given.
    """

    table: Float[np.ndarray, "v d"] | Float[Array, "v d"]
    tokenizer: Tokenizer
    source: Path | None


def find_vectors(name: str) -> Path | None:
    """The file that a name stands for: a path, or a file or folder under `$JAXDISTILL_WEIGHTS`; `None` if there is
    none."""
    roots = [Path(), *(Path(root) for root in [os.environ.get("JAXDISTILL_WEIGHTS")] if root)]
    for place in (root / Path(name).expanduser() for root in roots):
        if place.is_file():
            return place
        if place.is_dir() and len(files := sorted([*place.glob("*.txt"), *place.glob("*.txt.gz")])) == 1:
            return files[0]
    return None


def load_glove(path: Path, *, rows: int = 0, split: str = "words") -> WordVectors:
    """Vectors in GloVe's text format, plain or gzipped: a word and its numbers a line.

    Args:
      path: the file.
      rows: read the first so many words only; 0 for all.
      split: "words" cuts punctuation and contractions off; "whitespace" cuts at white space alone.

    Raises:
      UserError: the file is not in that format.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if split not in ("words", "whitespace"):
        raise UserError(f"unknown word split {split!r}: give words or whitespace")
    vocabulary, vectors = {PAD: 0, UNKNOWN: 1}, []
    for number, (word, values) in enumerate(_lines(path), start=1):
        if rows and number > rows:
            break
        if vectors and len(values) != len(vectors[0]):
            raise UserError(f"{path}, line {number}: {len(values)} numbers, the lines before have {len(vectors[0])}")
        if word not in vocabulary:
            vocabulary[word] = len(vocabulary)
            vectors.append(values)
    if not vectors:
        raise UserError(f"{path}: no word vectors in it")
    table = np.zeros((len(vocabulary), len(vectors[0])), np.float32)
    table[2:] = vectors
    if not np.isfinite(table).all():
        raise UserError(f"{path}: some numbers are not finite")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = (
        pre_tokenizers.WhitespaceSplit()
        if split == "whitespace"
        else pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    )
    return WordVectors(table, tokenizer, path)


def row_vectors(texts: Sequence[str], table: Float[np.ndarray, "v d"] | Float[Array, "v d"]) -> WordVectors:
    """Vectors of whole texts: a text is one word, whose id is its row in the table.

    There is no padding and no unknown word: `data.encoding.encode` refuses a text that is not among these.

    Args:
      texts: the text of each row; of equal ones (but for white space around them) the first row counts.
      table: one row a text.

    Raises:
      ValueError: another number of texts than rows.
    """
    from tokenizers import Tokenizer, models

    if len(texts) != len(table):
        raise ValueError(f"{len(texts)} texts for {len(table)} rows")
    vocabulary: dict[str, int] = {}
    for row, text in enumerate(texts):
        vocabulary.setdefault(text.strip(), row)
    # The model must be given a name for unknown words; no text can be it, since texts are stripped.
    return WordVectors(table, Tokenizer(models.WordLevel(vocabulary, unk_token=" ")), None)


def _lines(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                word, *values = line.rstrip("\n").split(" ")
                try:
                    yield word, np.array(values, np.float32)
                except ValueError:
                    raise UserError(f"{path}, line {number}: expected a word and numbers") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as word vectors ({error})") from None
