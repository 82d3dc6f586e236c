"""One update of DiLM's stage 1: the closed form of the head's gradient against autodiff through the whole learner.

python -m experiments.bench.stage_one                    MiniLM; a generator of 4 layers of width 256; 2 x 32 texts

Programs of one update, AdamW included, from the same state, in turns in one process:

- closed form: `objectives.generator.generator_matching`, as `methods.dilm.teach` runs it, which has the head's gradient
  on real texts from the first time that it met this learner;
- eager: what a port that calls autodiff step by step computes, as the published code does: the gradient of the weighted
  losses in all of the learner's parameters, whose head part enters the distance, and the distance differentiated back
  to the generator and to the learner. Of the second nothing is used; it is computed all the same;
- pruned: that same program where only the generator's gradient is asked for, so that the compiler drops what does not
  lead to it;
- published: eager, and the gradient on the real texts of each class made anew by autodiff in all of the learner's
  parameters, as the published code does in each update;
- closed form, first time: the gradient on the real texts made too, in closed form.

Random weights and words, real MiniLM: losses must agree, which is checked. No dropout. Beside wall time stands the time
that the processor worked for this process, which other work on the machine disturbs less. "Compiled" counts the body of
a loop once: of real texts, one part a class.
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
from jaxtyping import Array, Float, Int

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
_ROWS = 50  # real texts in the learner at once
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

    examples = dataclasses.replace(words(len(labels), learner.shape["vocabulary"]), labels=labels)
    return GeneratorBatch(words(len(labels), vocabulary), examples, variables.trainable, jnp.zeros(()))


def real_texts(learner: Learner, each: int, length: int) -> Int[Array, "classes parts rows length"]:
    """Texts of random words, in parts of `_ROWS` that are in the learner at once."""
    shape = (learner.shape["classes"], each // _ROWS, _ROWS, length)
    return jnp.asarray(np.random.default_rng(1).integers(1, learner.shape["vocabulary"], shape), jnp.int32)


def real_gradient(learner: Learner, *, closed: bool) -> Callable:
    """`gradient(trainable, frozen, real) -> (head [classes, numbers], kept)`: of the mean loss of a class's texts.

    Args:
      learner: whose head it is.
      closed: the closed form of the head; otherwise autodiff in all parameters, whose norm is returned too.
    """

    def of_part(trainable: PyTree, frozen: PyTree, ids: Array, label: Array) -> PyTree:
        labels = jnp.full(len(ids), label)

        def loss(trainable: PyTree) -> Array:
            logits = learner.apply(Variables(trainable, frozen), Batch(token_ids=ids)).logits
            return jnp.mean(example_cross_entropy(logits, labels))

        if not closed:
            return jax.grad(loss)(trainable)
        outputs = learner.apply(Variables(trainable, frozen), Batch(token_ids=ids))
        return head_parts(outputs, labels, bias=head_has_bias(learner)).gradient(jnp.full(len(ids), 1 / len(ids)))

    def gradient(trainable: PyTree, frozen: PyTree, real: Array) -> tuple[Array, Array]:
        heads, kept = [], jnp.zeros(())
        for label, parts in enumerate(real):
            first = jax.tree.map(
                jnp.zeros_like, jax.eval_shape(of_part, trainable, frozen, parts[0], jnp.asarray(label))
            )

            def add(total: PyTree, ids: Array, label: int = label) -> tuple[PyTree, None]:
                return jax.tree.map(jnp.add, total, of_part(trainable, frozen, ids, jnp.asarray(label))), None

            total = jax.tree.map(lambda x, parts=parts: x / len(parts), jax.lax.scan(add, first, parts)[0])
            heads.append(total if closed else flat_head(total))
            kept = kept + (0.0 if closed else optax.tree.norm(total))
        return jnp.stack(heads), kept

    return gradient


def flat_head(gradient: PyTree) -> Float[Array, " numbers"]:
    """The head's part of a learner's gradient, in the order of `head_parts`."""
    head = gradient["classifier"]
    return jnp.concatenate([head["kernel"].T, head["bias"][:, None]], axis=1).ravel()


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
            flat = flat_head(gradient)
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


def making_real(update: Callable, gradient: Callable) -> Callable:
    """An update that makes the gradient on real texts first: `batch` is that of `update`, and the texts."""

    def both(state: OuterState, frozen: PyTree, batch: tuple[GeneratorBatch, Array], key: Key):
        given, real = batch
        made, kept = gradient(given.learner, frozen, real)
        state, metrics = update(state, frozen, dataclasses.replace(given, real=made), key)
        return state, metrics | {"kept": kept}

    return both


def main(argv: Sequence[str]) -> int:
    del argv
    problem = prepare(TaskConfig(name="toy/reviews", max_length=FLAGS.length), LearnerConfig(name=FLAGS.learner))
    learner = problem.fine_tuning(False)
    variables = learner.init(jax.random.key(0))
    decoder = generator(FLAGS.layers, FLAGS.width, FLAGS.vocabulary, FLAGS.length)
    batch = random_batch(learner, variables, FLAGS.vocabulary, FLAGS.texts, FLAGS.length)
    real = real_texts(learner, FLAGS.teacher, FLAGS.length)
    closed_real = real_gradient(learner, closed=True)
    batch = dataclasses.replace(batch, real=jax.jit(closed_real)(batch.learner, variables.frozen, real)[0])
    optimizer = _MATCHING.optimizer()
    options = {"temperature": _MATCHING.temperature, "reduction": _MATCHING.reduction}
    closed = make_update(generator_matching(decoder, learner, **options), optimizer)
    eager = autodiff_update(decoder, learner, optimizer, eager=True)
    ways = {
        "closed form": closed,
        "pruned": autodiff_update(decoder, learner, optimizer, eager=False),
        "eager": eager,
        "published": making_real(eager, real_gradient(learner, closed=False)),
        "closed form, first time": making_real(closed, closed_real),
    }
    state = init_outer(init_decoder(decoder, jax.random.key(1)), optimizer)
    arguments = {
        name: (state, variables.frozen, batch if index < 3 else (batch, real), jax.random.key(2))
        for index, name in enumerate(ways)
    }
    print(
        f"{FLAGS.learner}, a generator of {FLAGS.layers} layers of width {FLAGS.width}; {problem.classes} classes x "
        f"{FLAGS.texts} texts of {FLAGS.length} tokens, {FLAGS.teacher} real ones, on {jax.devices()[0].device_kind}"
    )
    compiled, found = {}, {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for name, way in ways.items():
        compiled[name] = jax.jit(way).lower(*arguments[name]).compile()
        found[name] = jax.device_get(compiled[name](*arguments[name])[1])  # the first call of a program is slower
    for _ in range(FLAGS.repeats):
        for name, program in compiled.items():
            began, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*arguments[name]))
            seconds[name].append((time.perf_counter() - began, time.process_time() - used))
    middle = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in seconds.items()}
    least = middle["closed form"]
    print("| | s | times | CPU s | times | GFLOP traced | compiled | temporaries, MiB | loss | gradient norm |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, way in ways.items():
        cost = compiled_cost(compiled[name])
        cells = [f"{value:.3f} | {value / best:.2f}" for value, best in zip(middle[name], least, strict=True)]
        cells += [f"{matmul_flops(way, *arguments[name]) / 1e9:.0f}", f"{(cost['flops'] or 0) / 1e9:.0f}"]
        cells += [f"{(cost['temp_bytes'] or 0) / 2**20:.0f}"]
        cells += [f"{found[name]['loss']:.6f}", f"{found[name]['gradient_norm']:.5f}"]
        print(f"| {name} | {' | '.join(cells)} |")
    for name in ways:
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
    flags.DEFINE_integer("teacher", 200, f"Real texts of each class; a multiple of {_ROWS}.", lower_bound=_ROWS)
    flags.DEFINE_integer("repeats", 5, "Times that are timed.", lower_bound=1)
    sys.exit(app.run(main))
