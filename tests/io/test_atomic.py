from __future__ import annotations

import errno
import os

import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.io import atomic


def _full_disk(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")


def _names(folder):
    return sorted(child.name for child in folder.iterdir())


def test_write_makes_parents_and_replaces(tmp_path):
    target = tmp_path / "a" / "b.txt"
    atomic.write_text(target, "ü")
    atomic.write_bytes(target, b"second")
    assert target.read_bytes() == b"second"
    assert _names(target.parent) == ["b.txt"]


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    target = tmp_path / "file"
    atomic.write_text(target, "old")
    monkeypatch.setattr(os, failing, _full_disk)
    with pytest.raises(UserError, match=f"^disk full while writing {target}: free some space or choose another folder"):
        atomic.write_text(target, "new")
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_a_full_disk_inside_a_folder_leaves_the_old_folder(tmp_path):
    target = tmp_path / "set"
    with atomic.folder(target) as temporary:
        (temporary / "part").write_text("old")
    with pytest.raises(UserError, match="disk full while writing"), atomic.folder(target) as temporary:
        (temporary / "part").write_text("new")
        _full_disk()
    assert (target / "part").read_text() == "old"
    assert _names(tmp_path) == ["set"]


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failed_swap_puts_the_old_folder_back(tmp_path, monkeypatch, failing_call):
    target, calls, replace = tmp_path / "set", [], os.replace
    with atomic.folder(target) as temporary:
        (temporary / "part").write_text("old")

    def fail_once(source, destination):
        calls.append(source)
        if len(calls) == failing_call:
            raise OSError(errno.EIO, "broken")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="broken"), atomic.folder(target) as temporary:
        (temporary / "part").write_text("new")
    assert (target / "part").read_text() == "old"
    assert _names(tmp_path) == ["set"]


def test_other_errors_pass_through_and_clean_up(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.folder(tmp_path / "set") as temporary:
        (temporary / "part").write_text("x")
        (tmp_path / "absent").read_text()
    assert _names(tmp_path) == []


def test_what_a_killed_writer_left_is_swept(tmp_path):
    target = tmp_path / "set"
    leftovers = [tmp_path / ".jaxdistill-set.tmp", tmp_path / ".jaxdistill-set.old"]
    for leftover in leftovers:
        leftover.mkdir()
        (leftover / "half").write_text("x")
        assert atomic.is_leftover(leftover)
    with atomic.folder(target) as temporary:
        (temporary / "part").write_text("whole")
    assert _names(tmp_path) == ["set"] and _names(target) == ["part"]
    leftovers[0].mkdir()
    atomic.sweep(tmp_path)
    assert _names(tmp_path) == ["set"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="^cannot write .*/file/inside: .*; give a path in a writable folder$"):
        atomic.write_text(tmp_path / "file" / "inside", "x")
    with pytest.raises(UserError, match="^cannot write "), atomic.folder(tmp_path / "file" / "inside"):
        pass
