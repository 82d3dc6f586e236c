"""One update of DiLM's stage 1: the closed form of the head's gradient against autodiff through the whole learner.

python -m experiments.bench.stage_one                    MiniLM; a generator of 4 layers of width 256; 2 x 32 texts

Three programs of one update, AdamW included, from the same state, in turns in one process:

- closed form: `objectives.generator.generator_matching`, as `methods.dilm.teach` runs it;
- eager: what a port that calls autodiff step by step computes, as the published code does: the gradient of the weighted
  losses in all of the learner's parameters, whose head part enters the distance, and the distance differentiated back
  to the generator and to the learner. Of the second nothing is used; it is computed all the same;
- pruned: that same program where only the generator's gradient is asked for, so that the compiler drops what does not
  lead to it.

Random weights and words, real MiniLM: losses must agree, which is checked. No dropout. Beside wall time stands the time
that the processor worked for this process, which other work on the machine disturbs less.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jaxtyping import Array

from experiments.memory import use_huge_pages
from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.outer import OuterState, apply_optimizer, init_outer, make_update
from jaxdistill.core.types import Batch, Key, Learner, PyTree, Variables
from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
from jaxdistill.methods.dilm_settings import Matching
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.objectives.generator import GeneratorBatch, generator_matching, text_losses
from jaxdistill.objectives.head_matching import head_has_bias, head_parts
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig
from jaxdistill.pipeline.language_config import ModelConfig
from jaxdistill.pipeline.prepare import prepare

FLAGS = flags.FLAGS
_MATCHING = Matching(updates=100, lr=1e-5, dropout=False)


def generator(layers: int, width: int, vocabulary: int, length: int) -> Decoder:
    """GPT-2 with heads of 64 features, without dropout."""
    sizes = ModelConfig(layers=layers, width=width, heads=width // 64, dropout=0.0)
    return Decoder(sizes.decoder_config(vocabulary=vocabulary, positions=length))


def random_batch(learner: Learner, variables: Variables, vocabulary: int, each: int, length: int) -> GeneratorBatch:
    """Texts of random words, as generator and learner read them, and the head's gradient on others."""
    rng, classes = np.random.default_rng(0), learner.shape["classes"]
    labels = jnp.repeat(jnp.arange(classes), each)

    def words(count: int, size: int) -> Batch:
        return Batch(token_ids=jnp.asarray(rng.integers(1, size, (count, length)), jnp.int32))

    def real_gradient(batch: Batch) -> Array:
        parts = head_parts(learner.apply(variables, batch), labels, bias=head_has_bias(learner))
        members = jax.nn.one_hot(labels, classes).T / each
        return jax.vmap(parts.gradient)(members)

    real = jax.jit(real_gradient)(words(len(labels), learner.shape["vocabulary"]))
    examples = dataclasses.replace(words(len(labels), learner.shape["vocabulary"]), labels=labels)
    return GeneratorBatch(words(len(labels), vocabulary), examples, variables.trainable, real)


def real_work(learner: Learner, variables: Variables, each: int, length: int) -> tuple[int, int]:
    """Operations of matrix products for the head's gradient on real texts of all classes: by autodiff in all of the
    learner's parameters, and in closed form."""
    count = learner.shape["classes"] * each
    batch = Batch(token_ids=jax.ShapeDtypeStruct((count, length), jnp.int32))
    labels = jax.ShapeDtypeStruct((count,), jnp.int32)

    def loss(trainable: PyTree, batch: Batch, labels: Array) -> Array:
        logits = learner.apply(Variables(trainable, variables.frozen), batch).logits
        return jnp.mean(example_cross_entropy(logits, labels))

    def closed(trainable: PyTree, batch: Batch, labels: Array) -> Array:
        outputs = learner.apply(Variables(trainable, variables.frozen), batch)
        return head_parts(outputs, labels, bias=True).gradient(jnp.full(count, 1 / count))

    given = (variables.trainable, batch, labels)
    return matmul_flops(jax.grad(loss), *given), matmul_flops(closed, *given)


def distance_by_autodiff(decoder: Decoder, learner: Learner, *, eager: bool) -> Callable:
    """The objective of `generator_matching` by its definition, differentiated by nobody but autodiff.

    Args:
      decoder: of the generator.
      learner: whose head is matched.
      eager: keep what only an eager program would compute: return it, added up.
    """

    def distance(params: PyTree, learned: PyTree, frozen: PyTree, batch: GeneratorBatch) -> tuple[Array, Array]:
        classes = batch.real.shape[0]
        losses = text_losses(decoder, params, batch.texts, _MATCHING.reduction, groups=classes)
        weights = jax.nn.softmax(-losses.reshape(classes, -1) / _MATCHING.temperature, axis=1)
        distances, kept = [], jnp.zeros(())
        for label in range(classes):  # as the published code: one backward pass of the learner a class
            own = jax.tree.map(lambda x, c=label: x.reshape(classes, -1, *x.shape[1:])[c], batch.examples)

            def weighted(learned: PyTree, own: Batch = own, label: int = label) -> Array:
                logits = learner.apply(Variables(learned, frozen), own).logits
                assert own.labels is not None
                return jnp.sum(weights[label] * example_cross_entropy(logits, own.labels))

            gradient = jax.grad(weighted)(learned)
            head = gradient["classifier"]
            flat = jnp.concatenate([head["kernel"].T, head["bias"][:, None]], axis=1).ravel()
            real = batch.real[label].ravel()
            norms = jnp.sqrt(jnp.sum(flat**2) * jnp.sum(real**2))
            distances.append(1.0 - jnp.sum(flat * real) / norms)
            kept = kept + (jax.lax.stop_gradient(optax.tree.norm(gradient)) if eager else 0.0)
        return jnp.mean(jnp.stack(distances)), kept

    return distance


def autodiff_update(decoder: Decoder, learner: Learner, optimizer: optax.GradientTransformation, *, eager: bool):
    """`update(state, frozen, batch, key) -> (state, metrics)`, as `core.outer.make_update`, without its guards."""
    distance = distance_by_autodiff(decoder, learner, eager=eager)

    def update(state: OuterState, frozen: PyTree, batch: GeneratorBatch, key: Key) -> tuple[OuterState, dict]:
        del key
        wanted = (0, 1) if eager else (0,)
        (loss, kept), found = jax.value_and_grad(distance, argnums=wanted, has_aux=True)(
            state.learned, batch.learner, frozen, batch
        )
        learned, moments = apply_optimizer(optimizer, found[0], state.optimizer, state.learned)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(found[0])}
        if eager:
            metrics["unused"] = kept + optax.tree.norm(found[1])
        return dataclasses.replace(state, learned=learned, optimizer=moments, step=state.step + 1), metrics

    return update


def main(argv: Sequence[str]) -> int:
    del argv
    problem = prepare(TaskConfig(name="toy/reviews", max_length=FLAGS.length), LearnerConfig(name=FLAGS.learner))
    learner = problem.fine_tuning(False)
    variables = learner.init(jax.random.key(0))
    decoder = generator(FLAGS.layers, FLAGS.width, FLAGS.vocabulary, FLAGS.length)
    batch = random_batch(learner, variables, FLAGS.vocabulary, FLAGS.texts, FLAGS.length)
    optimizer = _MATCHING.optimizer()
    options = {"temperature": _MATCHING.temperature, "reduction": _MATCHING.reduction}
    ways = {
        "closed form": make_update(generator_matching(decoder, learner, **options), optimizer),
        "pruned": autodiff_update(decoder, learner, optimizer, eager=False),
        "eager": autodiff_update(decoder, learner, optimizer, eager=True),
    }
    state = init_outer(init_decoder(decoder, jax.random.key(1)), optimizer)
    arguments = (state, variables.frozen, batch, jax.random.key(2))
    print(
        f"{FLAGS.learner}, a generator of {FLAGS.layers} layers of width {FLAGS.width}; {problem.classes} classes x "
        f"{FLAGS.texts} texts of {FLAGS.length} tokens on {jax.devices()[0].device_kind}"
    )
    compiled, found = {}, {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for name, way in ways.items():
        compiled[name] = jax.jit(way).lower(*arguments).compile()
        found[name] = jax.device_get(compiled[name](*arguments)[1])  # the first call of a program is slower
    for _ in range(FLAGS.repeats):
        for name, program in compiled.items():
            began, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arguments))
            seconds[name].append((time.perf_counter() - began, time.process_time() - used))
    middle = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in seconds.items()}
    least = middle["closed form"]
    print("| | s | times | CPU s | times | GFLOP traced | compiled | temporaries, MiB | loss | gradient norm |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, way in ways.items():
        cost = compiled_cost(compiled[name])
        cells = [f"{value:.3f} | {value / best:.2f}" for value, best in zip(middle[name], least, strict=True)]
        cells += [f"{matmul_flops(way, *arguments) / 1e9:.0f}", f"{(cost['flops'] or 0) / 1e9:.0f}"]
        cells += [f"{(cost['temp_bytes'] or 0) / 2**20:.0f}"]
        cells += [f"{found[name]['loss']:.6f}", f"{found[name]['gradient_norm']:.5f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    autodiff, closed = real_work(learner, variables, FLAGS.teacher, FLAGS.length)
    print(
        f"beside that, the head's gradient on {FLAGS.teacher} real texts a class: {autodiff / 1e9:.0f} GFLOP by "
        f"autodiff in all parameters, {closed / 1e9:.0f} in closed form; met again, it is kept"
    )
    for name in ("pruned", "eager"):
        np.testing.assert_allclose(found[name]["loss"], found["closed form"]["loss"], rtol=1e-3)
        np.testing.assert_allclose(found[name]["gradient_norm"], found["closed form"]["gradient_norm"], rtol=1e-2)
    return 0


if __name__ == "__main__":
    use_huge_pages()
    flags.DEFINE_string("learner", "minilm", "Learner, as in a configuration.")
    flags.DEFINE_integer("layers", 4, "Layers of the generator.", lower_bound=1)
    flags.DEFINE_integer("width", 256, "Its width; a multiple of 64.", lower_bound=64)
    flags.DEFINE_integer("vocabulary", 4096, "Its tokens.", lower_bound=2)
    flags.DEFINE_integer("texts", 32, "Texts of each class.", lower_bound=1)
    flags.DEFINE_integer("length", 64, "Tokens of a text.", lower_bound=2)
    flags.DEFINE_integer("teacher", 200, "Real texts of each class, whose work is counted.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Times that are timed.", lower_bound=1)
    sys.exit(app.run(main))
