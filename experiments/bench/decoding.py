"""Decoding with and without a cache, on one model of random weights in the manner of GPT-2.

python -m experiments.bench.decoding                      four layers of width 256, 128 new tokens for each of 8 texts
python -m experiments.bench.decoding --rows=32 --new=256

Both ways draw the same texts from the same key, which is checked. A third line draws from the nucleus. Compiling is
timed apart. Beside wall time stands the time that the processor worked for this process, which other work on the
machine disturbs less.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags

from jaxdistill.generation.batches import Drawn, sample
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Model
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import DecoderConfig

FLAGS = flags.FLAGS


def small_gpt2(layers: int, width: int, vocabulary: int, positions: int) -> Decoder:
    """GPT-2 with heads of 64 features."""
    heads = width // 64
    config = DecoderConfig(
        vocabulary=vocabulary,
        width=width,
        embedding_width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        intermediate=4 * width,
        positions=positions,
        initializer_range=0.1,
    )
    return Decoder(config, scan_layers=FLAGS.scan_layers)


def timed(model: Model, params: dict, rows: int, sampling: Sampling, repeats: int) -> tuple[Drawn, float, float]:
    """What was drawn, and of several times the median seconds, and those that the processor worked for this process."""
    runs, used = [], []
    for _ in range(repeats + 1):  # the first call of a program is slower
        began = time.process_time()
        runs.append(sample(model, params, [[0]], rows, sampling, jax.random.key(1), micro_batch=rows))
        used.append(time.process_time() - began)
    return runs[0], statistics.median(run.seconds for run in runs[1:]), statistics.median(used[1:])


def main(argv: Sequence[str]) -> int:
    del argv
    decoder = small_gpt2(FLAGS.layers, FLAGS.width, FLAGS.vocabulary, FLAGS.new + 1)
    params = init_decoder(decoder, jax.random.key(0))
    model = Model(decoder)
    tokens = FLAGS.rows * FLAGS.new
    print(
        f"{FLAGS.layers} layers of width {FLAGS.width}, {FLAGS.vocabulary} tokens; {FLAGS.rows} texts of {FLAGS.new} "
        f"new tokens on {jax.devices()[0].device_kind}"
    )
    found, seconds, used = {}, {}, {}
    plain = Sampling(FLAGS.new)
    ways = {
        "cached": (model, plain),
        "uncached": (dataclasses.replace(model, cached=False), plain),
        "nucleus": (model, dataclasses.replace(plain, top_p=FLAGS.top_p)),
    }
    for name, (way, sampling) in ways.items():
        found[name], seconds[name], used[name] = timed(way, params, FLAGS.rows, sampling, FLAGS.repeats)
        print(
            f"{name:10} {tokens / seconds[name]:10.1f} tokens/s  {seconds[name]:8.3f} s  {used[name]:8.3f} CPU s  "
            f"compiling {found[name].compile_seconds:.1f} s"
        )
    same = np.mean(found["cached"].token_ids == found["uncached"].token_ids)
    ratios = [times["uncached"] / times["cached"] for times in (seconds, used)]
    print(f"ratio      {ratios[0]:10.1f}  of CPU s {ratios[1]:.1f}  equal tokens {same:.2%}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("layers", 4, "Layers.", lower_bound=1)
    flags.DEFINE_integer("width", 256, "Width; a multiple of 64.", lower_bound=64)
    flags.DEFINE_integer("vocabulary", 4096, "Tokens of the vocabulary.", lower_bound=2)
    flags.DEFINE_bool("scan_layers", False, "Run the layers by a scan: shorter compiling.")
    flags.DEFINE_float("top_p", 0.95, "Of the nucleus.", lower_bound=0.01, upper_bound=1.0)
    flags.DEFINE_integer("rows", 8, "Texts at once.", lower_bound=1)
    flags.DEFINE_integer("new", 128, "New tokens of each text.", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "Times that are timed.", lower_bound=1)
    sys.exit(app.run(main))
