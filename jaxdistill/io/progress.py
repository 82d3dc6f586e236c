"""How far a long stage is and how long is left."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_LINES_REMEMBERED = 8


def duration(seconds: float) -> str:
    """Seconds in the two largest human units: "8.4 s", "1 min 52 s", "3 h 05 min", "2 d 04 h"."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, size in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = size.split()
            return f"{whole // large} {first} {whole % large // small:02d} {second}"
    return f"{whole} s"


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere. Time a step is that of the last few lines, so a pause
    (a laptop asleep) is soon forgotten.

    Args:
      label: what is going on.
      total: steps in all.
      start: steps already done (a resumed run).
      interval: least seconds between two plain lines; the last step always gives one.
      stream: where to write; standard error by default.
      clock: seconds, rising.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        start: int = 0,
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._label, self._total = label, total
        self._interval, self._clock = interval, clock
        self._stream = sys.stderr if stream is None else stream
        self._last_line = -float("inf")
        self._marks: deque[tuple[int, float]] = deque(maxlen=_LINES_REMEMBERED)
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, desc=label, file=self._stream, dynamic_ncols=True)

    def update(self, done: int, text: str = "") -> None:
        """Say that `done` of the total steps are done; `text` follows on the same line."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = self._clock()
        if not self._marks:
            self._marks.append((done, now))  # the first step is spent compiling
        if done < self._total and now - self._last_line < self._interval:
            return
        self._last_line = now
        parts = [f"{self._label} {done}/{self._total}"] + ([text] if text else [])
        since, then = self._marks[0]
        if done > since:
            per_step = (now - then) / (done - since)
            parts += [f"{duration(per_step)} a step"]
            parts += [f"{duration(per_step * (self._total - done))} left"] if done < self._total else []
            self._marks.append((done, now))
        print("  ".join(parts), file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
