"""Outer step and scoring against a PyTorch twin of the published code, side by side on this machine.

python -m experiments.bench.meta_gradient            the table (needs torch and SST-2; some minutes)
python -m experiments.bench.meta_gradient --ours     our figures of one setting, one JSON line

MiniLM on SST-2, one sample a class, length 64, [CLS] attention labels, unrestricted labels, 32 real texts. Every figure
comes from a process of its own; the processes take turns, so neither disturbs the other. Ours runs twice:
the first process shows the memory that the compiler takes, the second finds the compiled programs. Both sides get huge
pages, as `experiments.distill` does (`GLIBC_TUNABLES=glibc.malloc.hugetlb=0` takes them from both).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from experiments.memory import return_memory_after_compiling, use_huge_pages

FLAGS = flags.FLAGS


def ours(steps: int, adjoint: str, repeats: int, *, score: bool) -> dict[str, Any]:
    """Mean seconds a step over `repeats` batches as they come, peak memory of the process, the compiled step's
    temporaries, compile time, work, and seconds to score one fresh learner."""
    import jax

    from jaxdistill.core import adjoints
    from jaxdistill.core.outer import init_outer, make_update
    from jaxdistill.data.batching import TrainBatches
    from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
    from jaxdistill.evaluation.memory import peak_resident_bytes
    from jaxdistill.evaluation.scoring import split_batches
    from jaxdistill.evaluation.students import Examiner
    from jaxdistill.methods.attention_label import clean, initial_set, inner_spec
    from jaxdistill.methods.meta_learning import Outer, usual_shapes
    from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
    from jaxdistill.pipeline.config import LearnerConfig, TaskConfig
    from jaxdistill.pipeline.prepare import prepare

    problem = prepare(TaskConfig(name="sst2", max_length=64), LearnerConfig(name="minilm"))
    config = clean(steps=steps, outer=Outer(adjoint=adjoint))
    spec = inner_spec(config, problem.classes)
    synthetic, support = initial_set(config, problem, jax.random.key(0))
    optimizer = config.outer.optimizer()
    state = init_outer(synthetic, optimizer)
    constants = MetaModelConstants(problem.base(), support)
    shapes = usual_shapes(config.outer.updates, steps)
    batches = TrainBatches(problem.train, batch_size=32, seed=0, row_length=64, usual_shapes=shapes)
    objective = meta_model(problem.pretrained.learner, spec, adjoints.parse(adjoint))
    update = make_update(objective, optimizer)
    key = jax.random.key(1)
    flops = statistics.fmean(matmul_flops(update, state, constants, batches(step), key) for step in range(repeats))
    figures: dict[str, Any] = {"gflop": flops / 1e9, "compile_seconds": 0.0}
    compiled = {}
    for step in range(repeats):
        shape = batches(step).token_ids.shape
        if shape not in compiled:
            start = time.perf_counter()
            compiled[shape] = jax.jit(update, donate_argnums=0).lower(state, constants, batches(step), key).compile()
            state, _ = compiled[shape](state, constants, batches(step), key)  # the first call of a program is slower
            jax.block_until_ready(state)
            figures["compile_seconds"] += time.perf_counter() - start
    seconds = []
    for step in range(repeats):
        start = time.perf_counter()
        batch = batches(step)
        state, _ = jax.block_until_ready(compiled[batch.token_ids.shape](state, constants, batch, key))
        seconds.append(time.perf_counter() - start)
    figures["seconds_per_step"] = statistics.fmean(seconds)
    figures["peak_rss_bytes"] = peak_resident_bytes()  # read first: `compiled_cost` unpacks 100 MB a program
    figures["temp_bytes"] = max(compiled_cost(program)["temp_bytes"] or 0 for program in compiled.values())
    if score:
        examiner = Examiner(problem.pretrained.learner, spec)
        split = split_batches(problem.test, problem.pretrained.learner, row_length=64)
        distilled = (state.learned, support)
        keys = jax.random.split(key, 3)
        seconds = []
        for i in range(3):  # the first compiles
            start = time.perf_counter()
            list(examiner.scores(constants.base, distilled, keys[i : i + 1], split, shared=False))
            seconds.append(time.perf_counter() - start)
        figures["score_seconds"] = min(seconds[1:])
    return figures


def _ours_apart(steps: int, adjoint: str, repeats: int, score: bool, cache: str) -> dict[str, Any]:
    """Our figures from a process of its own, with compiled programs kept in a folder."""
    command = [sys.executable, "-m", "experiments.bench.meta_gradient", "--ours", f"--steps={steps}"]
    command += [f"--adjoint={adjoint}", f"--repeats={repeats}", f"--score={str(score).lower()}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def table(repeats: int) -> None:
    """Run both sides in turn and print figures and ratios."""
    from experiments.bench.torch_twin import measure

    print(
        "| inner steps | adjoint | s/step | PyTorch | ratio | peak GB, compiling | compiled before | PyTorch | ratios |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    scoring = None
    for steps, ours_adjoints in ((1, ["mixed"]), (4, ["mixed"]), (16, ["mixed", "nested"])):
        times = repeats if steps == 1 else max(2, repeats // 4)
        twin = measure(steps=steps, repeats=times, score=steps == 1)
        for adjoint in ours_adjoints:
            with tempfile.TemporaryDirectory() as cache:
                first = _ours_apart(steps, adjoint, times, score=steps == 1, cache=cache)
                mine = _ours_apart(steps, adjoint, times, score=steps == 1, cache=cache)
            cells = [f"{mine['seconds_per_step']:.3f}", f"{twin['seconds_per_step']:.3f}"]
            cells += [f"{mine['seconds_per_step'] / twin['seconds_per_step']:.2f}"]
            peaks = [figures["peak_rss_bytes"] for figures in (first, mine, twin)]
            cells += [f"{peak / 1e9:.2f}" for peak in peaks]
            cells += [", ".join(f"{peak / peaks[2]:.2f}" for peak in peaks[:2])]
            print(f"| {steps} | {adjoint} | {' | '.join(cells)} |", flush=True)
            if steps == 1:
                scoring = mine["score_seconds"], twin["score_seconds"]
    if scoring is not None:
        mine_s, twin_s = scoring
        print(f"\nscoring one fresh learner: {mine_s:.2f} s, PyTorch {twin_s:.2f} s, ratio {mine_s / twin_s:.2f}")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if FLAGS.ours:
        return_memory_after_compiling()
        print(json.dumps(ours(FLAGS.steps, FLAGS.adjoint, FLAGS.repeats, score=FLAGS.score)))
    else:
        table(FLAGS.repeats)


if __name__ == "__main__":
    use_huge_pages()
    flags.DEFINE_bool("ours", False, "Measure our side of one setting only, in this process.")
    flags.DEFINE_integer("steps", 1, "Inner steps.", lower_bound=1)
    flags.DEFINE_string("adjoint", "mixed", "How our inner loop is differentiated.")
    flags.DEFINE_integer("repeats", 12, "Outer steps to time.", lower_bound=1)
    flags.DEFINE_bool("score", False, "Also time the scoring of one fresh learner.")
    app.run(main)
