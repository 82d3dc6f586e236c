"""Columns out of parquet, csv, tsv and jsonl files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxdistill.core.errors import UserError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
_ALIASES = {"dev": "validation"}
Columns = dict[str, list[Any]]


def split_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Files of a data folder by split name (the stem; `dev` is called `validation`).

    Args:
      folder: of the files.
      suffixes: of files that are looked at.

    Raises:
      UserError: no such folder, or two files for one split.
    """
    if not folder.is_dir():
        raise UserError(f"data folder {str(folder)!r} does not exist; give a folder with train.* and test.* files")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in suffixes:
            continue
        name = _ALIASES.get(path.stem, path.stem)
        if name in files:
            raise UserError(f"{folder}: {files[name].name} and {path.name} are both the split {name!r}; keep one")
        files[name] = path
    return files


def read_columns(path: Path, columns: tuple[str, ...]) -> Columns:
    """Read some columns of one file.

    csv and tsv need a header line. csv follows RFC 4180; tsv has no quoting (a quotation mark is a character as any
    other). Text is UTF-8, a byte-order mark is dropped.

    Returns:
      a list of values for each of `columns`; values are as in the file (strings only, for csv and tsv).

    Raises:
      UserError: unreadable file, column not there, text that is not UTF-8.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, columns)
    text = read_text(path)
    if path.suffix == ".jsonl":
        return _read_jsonl(path, text, columns)
    return _read_separated(path, text, columns)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark; one that ends in `.gz` is unpacked.

    Raises:
      UserError: the file cannot be read or unpacked, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start} (line {line}); "
            "save the file as UTF-8"
        ) from error


def read_vectors_column(path: Path, column: str) -> Shaped[np.ndarray, "n d"]:
    """A parquet column of lists of numbers, as a matrix of their type.

    Raises:
      UserError: unreadable file, no such column, not lists, or lists of different lengths.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(str(path), file.schema_arrow.names, (column,))
            lists: Any = file.read(columns=[column]).column(column).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({_first_line(error)})") from error
    types = pyarrow.types
    if not (types.is_list(lists.type) or types.is_large_list(lists.type) or types.is_fixed_size_list(lists.type)):
        raise UserError(f"{path}: column {column!r} holds {lists.type}; lists of numbers are expected")
    fixed = types.is_fixed_size_list(lists.type)
    lengths = {lists.type.list_size} if fixed else set(lists.value_lengths().to_pylist())
    if lists.null_count or len(lengths) > 1:
        raise UserError(f"{path}: column {column!r} holds nulls or lists of several lengths; one length is expected")
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def check_columns(where: str, there: list[str], wanted: tuple[str, ...]) -> None:
    """Raise UserError for the first of `wanted` that is not `there`."""
    for column in wanted:
        if column not in there:
            raise UserError(f"{where}: no column {column!r}; there are {', '.join(map(repr, there)) or 'none'}")


def _read_parquet(path: Path, columns: tuple[str, ...]) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(str(path), file.schema_arrow.names, columns)
            table = file.read(columns=list(dict.fromkeys(columns)))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({_first_line(error)})") from error
    try:
        return {name: table.column(name).to_pylist() for name in columns}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a text is not UTF-8 (byte 0x{error.object[error.start]:02x})") from error


def _read_jsonl(path: Path, text: str, columns: tuple[str, ...]) -> Columns:
    values: Columns = {name: [] for name in columns}
    # Not splitlines(): that also breaks at separators that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number} is not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}: line {number} is a JSON {type(record).__name__}; each line must be an object")
        check_columns(f"{path}: line {number}", list(record), columns)
        for name in columns:
            values[name].append(record[name])
    return values


def _read_separated(path: Path, text: str, columns: tuple[str, ...]) -> Columns:
    lines = io.StringIO(text, newline="")
    if path.suffix == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, strict=True)
    values: Columns = {name: [] for name in columns}
    try:
        header = next(reader, [])
        check_columns(str(path), header, columns)
        places = [(name, header.index(name)) for name in columns]
        for record in reader:
            if not record:
                continue
            if len(record) != len(header):
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(record)} fields; the header has {len(header)}"
                )
            for name, place in places:
                values[name].append(record[place])
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {_first_line(error)}") from error
    return values


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
