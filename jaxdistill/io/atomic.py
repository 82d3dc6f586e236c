"""Files and folders that appear whole or not at all.

Everything is written under a temporary sibling name, flushed to the disk, then renamed. The temporary name follows from
the target's, so what a killed process left is swept away by the next writer of the same target; one writer at a time
per target is assumed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxdistill.core.errors import UserError

_PREFIX, _TEMPORARY, _RETIRED = ".jaxdistill-", ".tmp", ".old"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_leftover(path: Path) -> bool:
    """True for the name of something an interrupted writer left behind."""
    return path.name.startswith(_PREFIX) and path.name.endswith((_TEMPORARY, _RETIRED))


@contextlib.contextmanager
def full_disk(target: Path) -> Iterator[None]:
    """Turn a full disk into one line that names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UserError(f"disk full while writing {target}: free some space or choose another folder") from error
        raise


@contextlib.contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk, and a place that cannot be written, into one line that names `target`."""
    try:
        with full_disk(target):
            yield
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError) as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {target}: {reason}; give a path in a writable folder") from error


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file atomically, making its parent folders.

    Raises:
      UserError: the disk is full or the place cannot be written; `path` is then as it was before.
    """
    path = Path(path)
    temporary = _sibling(path, _TEMPORARY)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_text(path: str | os.PathLike, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def folder(path: str | os.PathLike) -> Iterator[Path]:
    """Fill a folder atomically: yields an empty temporary folder that becomes `path` when the block ends well.

    A folder already at `path` is replaced. Should the process die between the two renames of a replacement, `path` is
    absent for a moment but never half-written.

    Raises:
      UserError: the disk is full or the place cannot be written; `path` is then as it was before.
    """
    path = Path(path)
    temporary, retired = _sibling(path, _TEMPORARY), _sibling(path, _RETIRED)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (temporary, retired):
            _remove(leftover)
        temporary.mkdir()
    try:
        with full_disk(path):
            yield temporary
            _sync_tree(temporary)
        with disk_errors(path):
            _swap_in(temporary, path, retired)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _remove(retired)
    _sync_folder(path.parent)


def remove_folder(path: str | os.PathLike) -> None:
    """Remove a folder so that it is never seen half-removed under its own name."""
    path = Path(path)
    retired = _sibling(path, _RETIRED)
    _remove(retired)
    os.replace(path, retired)
    _remove(retired)


def sweep(parent: str | os.PathLike) -> None:
    """Remove what interrupted writers left in `parent`."""
    for child in Path(parent).iterdir():
        if is_leftover(child):
            _remove(child)


def _sibling(path: Path, suffix: str) -> Path:
    return path.parent / f"{_PREFIX}{path.name}{suffix}"


def _swap_in(temporary: Path, path: Path, retired: Path) -> None:
    if path.exists():
        os.replace(path, retired)
    try:
        os.replace(temporary, path)
    except BaseException:
        if retired.exists():
            os.replace(retired, path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_tree(root: Path) -> None:
    for parent, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(parent))


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
