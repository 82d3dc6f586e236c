"""One inner step of GRADMM: the distance of head gradients in closed form against heads' gradients that are built.

python -m experiments.bench.head_gradient                 Phi-1.5's head (51,200 x 2,048) alone
python -m experiments.bench.head_gradient --layers 2      with two layers of Phi's below it

Both programs give the derivative of 1 - cosine in a round of texts, from the same state, and take turns in one process;
values and derivatives must agree, which is checked. "Built" differentiates the loss in the head's matrix and bias and
that again in the texts, as the published code does: its target is as large as the head. The closed form holds the
factors of the real texts. Random weights. The body costs both the same, so the ratio falls with its layers; of the head
alone, texts are what it reads at their last position.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jaxtyping import Array, Float

from experiments.memory import use_huge_pages
from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import FIXED
from jaxdistill.objectives.head_distance import FactoredTarget, head_distance
from jaxdistill.objectives.head_matching import HeadParts
from jaxdistill.pipeline.language_config import ModelConfig

FLAGS = flags.FLAGS
_LABEL = 7


def phi(layers: int, width: int, vocabulary: int) -> Decoder:
    """Phi with heads of 64 features, without dropout."""
    sizes = ModelConfig(layers=layers, width=width, heads=width // 64, dropout=0.0)
    config = sizes.decoder_config(vocabulary=vocabulary, positions=64)
    config = dataclasses.replace(config, family="phi", rotary_width=32, tied_head=False, **FIXED["phi"])
    return Decoder(config)


@dataclasses.dataclass(frozen=True)
class Reader:
    """What the head reads of texts: their last states, or the texts themselves where there is no body."""

    decoder: Decoder | None

    def __call__(self, params: PyTree, x: Float[Array, "b t d"]) -> Float[Array, "b d"]:
        if self.decoder is None:
            return x[:, -1]
        hidden, _ = self.decoder.apply({"params": params}, Batch(embeddings=x), method="states")
        return cast(Array, self.decoder.apply({"params": params}, hidden[:, -1], method="features"))


def loss_of_head(kernel: Array, bias: Array, states: Array) -> Array:
    return jnp.mean(example_cross_entropy(states @ kernel + bias[None], jnp.full(len(states), _LABEL)))


def built(read: Reader) -> Callable:
    """`step(params, x, target) -> (distance [r], derivative)`; the target is (matrix, bias)."""

    def distance(x: Array, params: PyTree, target: tuple[Array, Array]) -> Array:
        head = params["head"]
        own = jax.grad(loss_of_head, (0, 1))(head["kernel"], head["bias"], read(params, x))
        cosines = [
            jnp.sum(mine * real) / (jnp.sqrt(jnp.sum(mine * mine)) * jnp.sqrt(jnp.sum(real * real)))
            for mine, real in zip(own, target, strict=True)
        ]
        return 1.0 - (cosines[0] + cosines[1]) / 2

    def step(params: PyTree, x: Array, target: tuple[Array, Array]) -> tuple[Array, Array]:
        # Rounds one after another: together they would hold as many gradients of the whole head.
        return jax.lax.map(lambda x: jax.value_and_grad(distance)(x, params, target), x)

    return step


def head_parts(params: PyTree, states: Array) -> HeadParts:
    """Errors and inputs at the label."""
    head = params["head"]
    logits = states @ head["kernel"] + head["bias"][None]
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(jnp.full(len(states), _LABEL), logits.shape[1])
    return HeadParts(errors, jnp.concatenate([states, jnp.ones((len(states), 1))], axis=1))


def closed(read: Reader) -> Callable:
    """The same; the target is factors."""

    def distances(x: Array, params: PyTree, target: FactoredTarget) -> tuple[Array, Array]:
        parts = head_parts(params, read(params, x.reshape(-1, *x.shape[2:])))
        parts = jax.tree.map(lambda y: y.reshape(*x.shape[:2], -1), parts)
        each = jax.vmap(head_distance, (None, 0))(target, parts)
        return jnp.sum(each), each

    def step(params: PyTree, x: Array, target: FactoredTarget) -> tuple[Array, Array]:
        (_, each), gradient = jax.value_and_grad(distances, has_aux=True)(x, params, target)
        return each, gradient

    return step


def main(argv: Sequence[str]) -> int:
    del argv
    if FLAGS.layers:
        decoder = phi(FLAGS.layers, FLAGS.width, FLAGS.vocabulary)
        read, params = Reader(decoder), init_decoder(decoder, jax.random.key(0))
    else:
        kernel = 0.02 * jax.random.normal(jax.random.key(0), (FLAGS.width, FLAGS.vocabulary))
        read, params = Reader(None), {"head": {"kernel": kernel, "bias": jnp.zeros(FLAGS.vocabulary)}}
    x = jax.random.normal(jax.random.key(1), (FLAGS.rounds, FLAGS.texts, FLAGS.length, FLAGS.width))
    real = jax.random.normal(jax.random.key(2), (FLAGS.real, FLAGS.length, FLAGS.width))
    parts = jax.jit(lambda params, real: head_parts(params, read(params, real)))(params, real)
    weights = jnp.full(FLAGS.real, 1.0 / FLAGS.real)
    gradient = jax.jit(parts.gradient)(weights)
    targets = {"closed form": FactoredTarget(parts, weights), "built": (gradient[:, :-1].T, gradient[:, -1])}
    ways = {"closed form": closed(read), "built": built(read)}
    compiled, found, seconds = {}, {}, {name: [] for name in ways}
    for name, way in ways.items():
        compiled[name] = jax.jit(way).lower(params, x, targets[name]).compile()
        found[name] = jax.device_get(compiled[name](params, x, targets[name]))
    for _ in range(FLAGS.repeats):
        for name, program in compiled.items():
            began = time.perf_counter()
            jax.block_until_ready(program(params, x, targets[name]))
            seconds[name].append(time.perf_counter() - began)
    print(
        f"head {FLAGS.vocabulary} x {FLAGS.width}, {FLAGS.layers} layers, {FLAGS.rounds} rounds of {FLAGS.texts} "
        f"texts of {FLAGS.length} tokens, {FLAGS.real} real ones, on {jax.devices()[0].device_kind}"
    )
    print("| | s | times | GFLOP | temporaries, MiB | times | target, MiB | distance |")
    print("|---|---|---|---|---|---|---|---|")
    least = statistics.median(seconds["closed form"]), compiled_cost(compiled["closed form"])["temp_bytes"] or 1
    for name, way in ways.items():
        middle, temporary = statistics.median(seconds[name]), compiled_cost(compiled[name])["temp_bytes"] or 0
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(targets[name]))
        print(
            f"| {name} | {middle:.3f} | {middle / least[0]:.1f} | "
            f"{matmul_flops(way, params, x, targets[name]) / 1e9:.1f} | {temporary / 2**20:.0f} | "
            f"{temporary / least[1]:.1f} | {size / 2**20:.1f} | {found[name][0].mean():.6f} |"
        )
    np.testing.assert_allclose(found["built"][0], found["closed form"][0], rtol=1e-3)
    scale = np.abs(found["closed form"][1]).max()
    np.testing.assert_allclose(found["built"][1], found["closed form"][1], atol=1e-3 * scale)
    return 0


if __name__ == "__main__":
    use_huge_pages()
    flags.DEFINE_integer("layers", 0, "Layers of the body; 0 for the head alone.", lower_bound=0)
    flags.DEFINE_integer("width", 2048, "Features; a multiple of 64.", lower_bound=64)
    flags.DEFINE_integer("vocabulary", 51_200, "Rows of the head.", lower_bound=8)
    flags.DEFINE_integer("rounds", 10, "Rounds of texts, each matched by itself.", lower_bound=1)
    flags.DEFINE_integer("texts", 10, "Texts of a round.", lower_bound=1)
    flags.DEFINE_integer("length", 30, "Tokens of a text, prompt included.", lower_bound=1)
    flags.DEFINE_integer("real", 25, "Real texts of the target.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Times that are timed.", lower_bound=1)
    sys.exit(app.run(main))
