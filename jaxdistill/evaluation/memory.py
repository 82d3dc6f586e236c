"""Peak memory of this process. Imports nothing heavy, so that a program which measures itself can use it first."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """Peak resident memory of this process.

    Linux keeps getrusage's figure across fork and exec, so a child would report its parent's peak: the figure of the
    address space itself is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
