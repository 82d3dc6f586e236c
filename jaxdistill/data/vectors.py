"""Data sets that are published as vectors: Moji, Bias-in-Bios, and folders of a user's own.

Vectors are float16, float32 or float64 numbers (float64 becomes float32). `.npy` files are memory-mapped, so rows that
are not asked for are not read. Pickles are refused: reading one runs whatever program it holds.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdistill.core.errors import UserError
from jaxdistill.data.readers import SUFFIXES, check_columns, read_columns, read_vectors_column, split_files
from jaxdistill.data.tasks import Task

MOJI_ROWS, MOJI_RATIO = 100_000, 0.8
# File of each cell: the first sign is that of the sentiment (happy), the second that of the group (AAE).
MOJI_FILES = {"pos_pos": (1, 1), "pos_neg": (1, 0), "neg_pos": (0, 1), "neg_neg": (0, 0)}
VECTORS = "vectors"
_CHUNK = 4096


class VectorSplit(NamedTuple):
    """A split as read.

    Attributes:
      where: it lies.
      vectors: one row an example.
      labels: class ids or names.
      groups: ids or names of protected groups; `None` where the data have none.
    """

    where: str
    vectors: Float[np.ndarray, "n d"]
    labels: list[Any]
    groups: list[Any] | None


def read_vectors(task: Task, folder: Path) -> tuple[dict[str, VectorSplit], list[str]]:
    """The splits of a task of vectors by name (train, dev, test; dev need not be there), and notes.

    Raises:
      UserError: files that are missing, unreadable, pickled, not finite, or do not fit one another.
    """
    if not folder.is_dir():
        raise UserError(f"data folder {str(folder)!r} does not exist; task {task.name!r} needs one")
    if task.vector_format == "moji":
        splits, notes = read_moji(folder), ["train takes its rows so that 80 % of each group are of its own class"]
    elif task.vector_format == "bios":
        splits, notes = read_bios(task, folder)
    else:
        splits, notes = read_arrays(task, folder)
    widths = {split.where: split.vectors.shape[1] for split in splits.values()}
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{width} in {where}" for where, width in widths.items())
        raise UserError(f"task {task.name!r}: vectors must have one width, there are {shown}")
    return splits, notes


def moji_counts(rows: int = MOJI_ROWS, ratio: float = MOJI_RATIO, share: float = 0.5) -> dict[str, int]:
    """How many rows each Moji file gives, first rows first.

    Args:
      rows: of the split, about.
      ratio: share of a group's rows that are of the class it goes with: happy for AAE, sad for SAE; 0.5 is balanced.
      share: of the group AAE.

    Returns:
      rows by file; the products are cut to whole numbers as computed in float64, so 100,000 rows at 0.8 make 40,000
      and 9,999, which is how the published splits came about.
    """
    return {
        name: int(rows * (share if group else 1 - share) * (ratio if label == group else 1 - ratio))
        for name, (label, group) in MOJI_FILES.items()
    }


def read_moji(folder: Path) -> dict[str, VectorSplit]:
    """DeepMoji vectors of tweets (Blodgett et al. 2016; Elazar & Goldberg 2018): one file a split and cell.

    The folder holds `train`, `dev` and `test` with `pos_pos.npy`, `pos_neg.npy`, `neg_pos.npy` and `neg_neg.npy` each.
    Train takes the first rows of its files by `moji_counts` and must have as many; dev and test are balanced, and take
    what the files have up to a quarter of `MOJI_ROWS`.

    Raises:
      UserError: a file is missing, too short or unreadable.
    """
    splits = {}
    for split in ("train", "dev", "test"):
        counts = moji_counts(MOJI_ROWS, MOJI_RATIO if split == "train" else 0.5)
        parts, labels, groups = [], [], []
        for name, (label, group) in MOJI_FILES.items():
            path = folder / split / f"{name}.npy"
            part = load_array(path, rows=counts[name])
            if split == "train" and len(part) < counts[name]:
                raise UserError(f"{path}: {len(part):,} rows; {counts[name]:,} are needed")
            if parts and part.shape[1] != parts[0].shape[1]:
                raise UserError(
                    f"{path}: vectors of {part.shape[1]} numbers, the files before have {parts[0].shape[1]}"
                )
            parts.append(part)
            labels += [label] * len(part)
            groups += [group] * len(part)
        splits[split] = VectorSplit(str(folder / split), np.concatenate(parts), labels, groups)
    return splits


def read_bios(task: Task, folder: Path) -> tuple[dict[str, VectorSplit], list[str]]:
    """BERT vectors of biographies (De-Arteaga et al. 2019; the splits of Ravfogel et al. 2020).

    The folder holds, for train, dev and test, the vectors `<split>_avg.npy` (mean over the words, as published) or
    `<split>_cls.npy`, and beside them profession and gender of the same rows: columns `p` and `g` of
    `<split>.parquet`, `.csv`, `.tsv` or `.jsonl`, or the two files `<split>_p.npy` and `<split>_g.npy`.

    Raises:
      UserError: a file is missing, unreadable, a pickle, or has another number of rows.
    """
    pooling = next((kind for kind in ("avg", "cls") if (folder / f"train_{kind}.npy").is_file()), None)
    if pooling is None:
        raise UserError(f"{folder}: neither train_avg.npy nor train_cls.npy; give the vectors of each split as .npy")
    columns = (task.label_column, task.group_column)
    splits = {}
    for split in ("train", "dev", "test"):
        path = folder / f"{split}_{pooling}.npy"
        vectors = load_array(path)
        arrays = [folder / f"{split}_{column}.npy" for column in columns]
        table = next((p for suffix in SUFFIXES if (p := folder / f"{split}{suffix}").is_file()), None)
        if table is not None:
            values = read_columns(table, columns)
            labels, groups = (values[column] for column in columns)
        elif all(array.is_file() for array in arrays):
            labels, groups = (load_values(array) for array in arrays)
        else:
            raise UserError(_no_table(folder, split, columns))
        for column, given in zip(columns, (labels, groups), strict=True):
            _check_rows(path, len(vectors), column, len(given))
        splits[split] = VectorSplit(str(folder / split), vectors, labels, groups)
    return splits, [f"vectors are those of <split>_{pooling}.npy"]


def read_arrays(task: Task, folder: Path) -> tuple[dict[str, VectorSplit], list[str]]:
    """A user's own vectors: one `<split>.npz` or `<split>.parquet` a split.

    It holds `vectors` [n, d], the labels and, where groups are known, these, under the column names of the task. The
    splits are train, test (or else validation, which is the test split then) and, if wanted, validation or dev.

    Raises:
      UserError: a file or an array is missing or unreadable, or lengths differ.
    """
    files = split_files(folder, (".npz", ".parquet"))
    test = next((name for name in task.test_splits if name in files), None)
    for name, there in ((task.train_split, task.train_split in files), (" or ".join(task.test_splits), test)):
        if not there:
            raise UserError(f"{folder}: no split {name}; give train.npz and test.npz (or .parquet)")
    assert test is not None
    roles = {"train": task.train_split, "test": test}
    if test != "validation" and "validation" in files:
        roles["dev"] = "validation"
    splits = {role: _read_arrays_file(task, files[name]) for role, name in roles.items()}
    notes = [f"the split {name!r} is not used" for name in files if name not in roles.values()]
    return splits, notes + ([f"test is the split {test!r}"] if test != "test" else [])


def has_arrays(folder: Path, column: str = VECTORS) -> bool:
    """Whether a folder is one of `read_arrays`: it holds an .npz file, or a parquet file with a column `vectors`."""
    if not folder.is_dir():
        return False
    if any(folder.glob("*.npz")):
        return True
    import pyarrow
    import pyarrow.parquet

    def has_column(path: Path) -> bool:
        try:
            return column in pyarrow.parquet.read_schema(path).names
        except (pyarrow.ArrowException, OSError):
            return False  # what reads it as texts says what is wrong with it

    return any(map(has_column, sorted(folder.glob("*.parquet"))))


def load_array(path: Path, *, rows: int | None = None) -> Float[np.ndarray, "n d"]:
    """The first `rows` vectors of an .npy file, or all; memory-mapped.

    Raises:
      UserError: no such file; a pickle; not a matrix of floating-point numbers; none or some that are not finite.
    """
    return _checked(_load(path, mmap=True), str(path), rows)


def load_values(path: Path) -> list[Any]:
    """Numbers or strings of an .npy file of one axis.

    Raises:
      UserError: no such file; a pickle; another shape.
    """
    values = _load(path, mmap=False)
    if values.ndim != 1:
        raise UserError(f"{path}: an array of shape {values.shape}; one value a row is expected")
    return values.tolist()


def _load(path: Path, *, mmap: bool) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        loaded = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        pickled = any(word in reason for word in ("pickle", "Object arrays", "Python objects"))
        advice = "save it as a plain array of numbers, numpy.save(path, array.astype('float32'))"
        raise UserError(f"{path}: {'a pickle, which is refused; ' + advice if pickled else reason}") from error
    if not isinstance(loaded, np.ndarray):
        raise UserError(f"{path}: not one array, as an .npy file is")
    return loaded


def _checked(array: np.ndarray, where: str, rows: int | None = None) -> Float[np.ndarray, "n d"]:
    """A finite matrix of float16 or float32 numbers."""
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise UserError(
            f"{where}: an array of shape {array.shape} of {array.dtype}; vectors are a matrix of float16 or float32"
        )
    array = array[:rows]
    bad = 0
    for start in range(0, len(array), _CHUNK):
        bad += int((~np.isfinite(array[start : start + _CHUNK]).all(axis=1)).sum())
    if bad:
        raise UserError(f"{where}: {bad:,} of {len(array):,} rows hold NaN or infinity")
    return array if array.dtype in (np.float16, np.float32) else np.asarray(array, np.float32)


def _read_arrays_file(task: Task, path: Path) -> VectorSplit:
    if path.suffix == ".parquet":
        groups = [task.group_column] if task.group_column else []
        columns = read_columns(path, (task.label_column, *groups))
        arrays: dict[str, Any] = {VECTORS: read_vectors_column(path, VECTORS), **columns}
    else:
        arrays = _read_npz(path, (VECTORS, task.label_column, *([task.group_column] if task.group_column else [])))
    vectors = _checked(arrays[VECTORS], str(path))
    for name, values in arrays.items():
        _check_rows(path, len(vectors), name, len(values))
    groups = arrays[task.group_column] if task.group_column else None
    return VectorSplit(str(path), vectors, arrays[task.label_column], groups)


def array_names(path: Path) -> list[str]:
    """Names of the arrays of an .npz file, or of the columns of a parquet file.

    Raises:
      UserError: the file is neither.
    """
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_schema(path).names
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a readable parquet file") from error
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: not a readable .npz file") from error


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    check_columns(str(path), array_names(path), names)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        pickled = "it holds pickled objects, which are refused: save numbers or strings"
        raise UserError(f"{path}: {pickled if 'Object arrays' in reason else reason}") from error
    for name in names[1:]:
        if arrays[name].ndim != 1:
            raise UserError(f"{path}: {name} has shape {arrays[name].shape}; one value a row is expected")
    return {name: array if name == VECTORS else array.tolist() for name, array in arrays.items()}


def _check_rows(path: Path, rows: int, name: str, given: int) -> None:
    if given != rows:
        raise UserError(f"{path}: {rows:,} vectors, but {given:,} values of {name!r} for them")


def _no_table(folder: Path, split: str, columns: tuple[str, str]) -> str:
    label, group = columns
    message = f"{folder}: no {split}.csv (or .parquet) with columns {label!r} and {group!r}"
    names = [name for name in (f"{split}.pickle", f"{split}.pkl") if (folder / name).is_file()]
    if not names:
        return message
    return (
        f"{message}; {names[0]} is a pickle, which is refused: where you trust it, run once "
        f"pandas.DataFrame(pandas.read_pickle('{names[0]}'))[['{label}', '{group}']].to_csv('{split}.csv', index=False)"
    )
