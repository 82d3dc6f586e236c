"""Large arrays in huge pages."""

from __future__ import annotations

import os
import sys

TUNABLE = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Start this program again with huge pages (2 MiB) for large arrays, unless that is settled already.

    On CPU, XLA takes the temporaries of a program anew at every call. In pages of 4 KiB, Linux needs about a fifth of
    an outer step of MiniLM to hand out and clear them (`docs/benchmarks.md`). glibc (2.35 or later) reads the setting
    when a process starts, hence the restart; call this before anything else. It changes nothing where the C library
    is another, or where `GLIBC_TUNABLES` already speaks of huge pages (`glibc.malloc.hugetlb=0` keeps small ones).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or TUNABLE in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, f"{TUNABLE}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
