"""Run many command lines in one process, which saves starting JAX for each.

Reads a JSON list of rows from the file named first: {"module", "arguments", "watch", "full_disk"}. Prints, after
"ROWS ", a JSON list with exit status, standard output and error of each, and whether the files under `watch` stayed as
they were. `full_disk` makes a rename onto a path of that ending fail as on a full disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from experiments import command


def snapshot(folder: str) -> dict[str, str]:
    """Hash of each file under a folder, and the folders; nothing where there is none."""
    root = Path(folder)
    paths = [root, *root.rglob("*")] if root.exists() else []
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in paths}


@contextlib.contextmanager
def full_disk(ending: str) -> Iterator[None]:
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(ending):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    os.replace = fail
    try:
        yield
    finally:
        os.replace = replace


def run(row: dict) -> dict:
    """One command line, as `python -m experiments.<module>` would run it."""
    main = importlib.import_module(f"experiments.{row['module']}").main
    flags.FLAGS.unparse_flags()
    sys.argv = [row["module"], *row["arguments"]]
    before, status = snapshot(row["watch"]), None
    out, err = io.StringIO(), io.StringIO()
    disk = full_disk(row["full_disk"]) if row.get("full_disk") else contextlib.nullcontext()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), disk:
        try:
            command.run(main)
        except SystemExit as done:
            status = done.code
        except Exception:
            traceback.print_exc()
    unchanged = snapshot(row["watch"]) == before
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "unchanged": unchanged}


if __name__ == "__main__":
    rows = json.loads(Path(sys.argv[1]).read_text())
    print("ROWS", json.dumps([run(row) for row in rows]))
