"""What the programs ask of the C library's allocator, where it is glibc; elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import os
import sys

HUGE_PAGES = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Start this program again with huge pages (2 MiB) for large arrays, unless that is settled already.

    On CPU, XLA takes the temporaries of a program anew at every call. In pages of 4 KiB, Linux needs about a fifth of
    an outer step of MiniLM to hand out and clear them (`docs/benchmarks.md`). glibc (2.35 or later) reads the setting
    when a process starts, hence the restart; call this before anything else. `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`
    keeps small pages.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not sys.platform.startswith("linux") or HUGE_PAGES in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, f"{HUGE_PAGES}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_memory_after_compiling() -> None:
    """Hand what the compiler freed back to the system after every compilation, from now on.

    LLVM frees hundreds of MB in small pieces, which glibc would keep beside the arrays of the compiled program.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is None:
        return
    import jax

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(listen)
