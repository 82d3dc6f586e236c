"""Driving the outer loop: resume, log, select on dev, checkpoint, stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import OuterState, Update
from jaxdistill.core.types import Key, PyTree, pytree
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.parallel.mesh import gathered

BAD_STEPS = 20
Select = Callable[[PyTree], tuple[float, dict[str, float]]]


class Wording(NamedTuple):
    """What a loop is called in lines for the user.

    Attributes:
      step: one turn of the loop.
      gradient: what may not be finite beside the loss.
      remedy: what to do about steps that are not finite.
      diverged: what is wrong when no selection has a finite score.
    """

    step: str = "outer step"
    gradient: str = "the meta-gradient"
    remedy: str = "lower the outer learning rate or the initial step size"
    diverged: str = "learners trained on the distilled set diverged in all {count} selections: lower the step size"


OUTER_LOOP = Wording()


@pytree
class Progress:
    """What a checkpoint holds.

    Attributes:
      state: of the outer loop.
      best: what was learned when the selection score was best so far; `None` where the last is kept.
      best_score: its score, higher is better; the last score where the last is kept.
      best_step: outer steps after which it was met.
      selections: scores of all selections so far; NaN where none was made yet, and one NaN where none will be.
      seconds: wall time spent so far, by all processes that took the run up one after another.
    """

    state: OuterState
    best: PyTree
    best_score: Float[Array, ""]
    best_step: Int[Array, ""]
    selections: Float[Array, " k"]
    seconds: Float[Array, ""]


class Fitted(NamedTuple):
    """Result of the outer loop.

    Attributes:
      learned: what was selected, in host memory.
      step: steps after which it was met.
      score: its selection score.
      selections: (step, score) of every selection.
      seconds: wall time of the loop, compilation and selections included, interrupted parts added up.
      seconds_per_step: median over the steps this process ran, the first left out; `None` when it ran fewer than two.
      skipped: updates skipped because something was not finite.
      flops: of the matrix products of all outer steps; `None` when nobody counted.
      by: what it was selected by.
    """

    learned: PyTree
    step: int
    score: float
    selections: list[tuple[int, float]]
    seconds: float
    seconds_per_step: float | None
    skipped: int
    flops: int | None = None
    by: str = "metric"


def fit(
    update: Update,
    state: OuterState,
    constants: PyTree,
    batches: Callable[[int], PyTree],
    *,
    updates: int,
    select: Select,
    select_at: tuple[int, ...],
    key: Key,
    run: Run,
    place: Callable[[PyTree], PyTree],
    keep: Literal["best", "last"] = "best",
    wording: Wording = OUTER_LOOP,
) -> Fitted:
    """Run outer steps until `updates` are done; the same call after an interruption gives the same result, bit for bit.

    Args:
      update: jitted `core.outer` update; its first argument is donated. What it learns is a distilled set, or a model.
      state: before the first step.
      constants: what the objective only reads.
      batches: the real batch of step k, or what the objective reads in its place.
      updates: outer steps in all.
      select: selection score of what is learned, higher is better, and what to log of it; deterministic.
      select_at: numbers of steps done at which to select; 0 is before the first, the last should be `updates`.
      key: of the outer steps.
      run: checkpoints, writers, stop signal.
      place: puts a restored state on the devices.
      keep: what is returned: the best of the selections, or the last; only the best takes memory of its own.
      wording: for messages.

    Raises:
      UserError: `BAD_STEPS` steps in a row gave a non-finite loss or gradient, or no selection a finite score.
      Stopped: `run.stop()` said so.
    """
    progress = Progress(
        state,
        jax.tree.map(jnp.copy, state.learned) if keep == "best" else None,
        jnp.asarray(-jnp.inf),
        jnp.zeros((), jnp.int32),
        jnp.full(max(1, len(select_at)), jnp.nan),  # checkpoints hold no arrays without an entry
        jnp.zeros(()),
    )
    start = 0
    if run.checkpoints is not None and run.checkpoints.latest() is not None:
        progress = place(run.checkpoints.restore(jax.eval_shape(lambda: progress)))
        start = int(progress.state.step)
        run.say(f"resuming at {wording.step} {start} of {updates}")
    began, before = time.monotonic(), float(progress.seconds)
    if start == 0 and 0 in select_at:
        progress, _ = _select(progress, select, select_at, 0)
    writer = run.make_writer(start) if run.make_writer is not None else None
    seconds: list[float] = []

    def save(progress: Progress) -> None:
        if run.checkpoints is not None:
            if writer is not None:
                writer.flush()
            spent = np.asarray(before + time.monotonic() - began, np.float32)
            run.checkpoints.save(int(progress.state.step), gathered(dataclasses.replace(progress, seconds=spent)))

    try:
        last_save = time.monotonic()
        for step in range(start, updates):
            step_began = time.monotonic()
            state, metrics = update(progress.state, constants, batches(step), key)
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            seconds.append(time.monotonic() - step_began)
            progress = dataclasses.replace(progress, state=state)
            done = step + 1
            if done in select_at:
                progress, shown = _select(progress, select, select_at, done)
                values |= shown
            if writer is not None:
                writer.write(step, values)
            if int(state.skipped_in_a_row) >= BAD_STEPS:
                save(progress)  # skipped steps changed nothing, so the state is the last good one
                raise UserError(
                    f"the loss or {wording.gradient} was not finite in {BAD_STEPS} {wording.step}s in a row, up to "
                    f"step {done}; the last good state is kept as a checkpoint: {wording.remedy}"
                )
            stopping = _any_process(run.stop())
            if stopping or done == updates or time.monotonic() - last_save > run.checkpoint_seconds:
                save(progress)
                last_save = time.monotonic()
            if stopping and done < updates:
                raise Stopped(f"stopped after {wording.step} {done} of {updates}")
    finally:
        if writer is not None:
            writer.close()
    scores = np.asarray(progress.selections)[: len(select_at)]
    if len(scores) and not np.isfinite(float(progress.best_score)):
        raise UserError(wording.diverged.format(count=len(scores)))
    return Fitted(
        learned=jax.device_get(gathered(progress.state.learned if keep == "last" else progress.best)),
        step=updates if keep == "last" else int(progress.best_step),
        score=float(progress.best_score),
        selections=[(at, float(score)) for at, score in zip(select_at, scores, strict=True)],
        seconds=before + time.monotonic() - began,
        seconds_per_step=float(np.median(seconds[1:])) if len(seconds) > 1 else None,
        skipped=int(progress.state.skipped),
    )


def _any_process(flag: bool) -> bool:
    """Whether any process says so: a signal may reach one of them first, and all must stop at the same step."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def _select(
    progress: Progress,
    select: Select,
    select_at: tuple[int, ...],
    done: int,
) -> tuple[Progress, dict[str, float]]:
    score, shown = select(progress.state.learned)
    progress = dataclasses.replace(progress, selections=progress.selections.at[select_at.index(done)].set(score))
    # Rounded as it is kept: of equal scores the first stays.
    if progress.best is None or np.float32(score) > float(progress.best_score):
        progress = dataclasses.replace(
            progress,
            # A copy: the state's own buffers are donated to the next update.
            best=None if progress.best is None else jax.tree.map(jnp.copy, progress.state.learned),
            best_score=jnp.asarray(score, jnp.float32),
            best_step=jnp.asarray(done, jnp.int32),
        )
    return progress, shown
