"""What the training of a language model would take, said by its compiled step; no parameter is ever made."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.language_batches import LanguageBatch, LanguageBatches
from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
from jaxdistill.methods.language_modelling import check_mesh, make_batches
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.methods.language_step import compile_step, make_language_step, training_shardings
from jaxdistill.models.decoder import Decoder
from jaxdistill.parallel.mesh import make_mesh, replicated
from jaxdistill.pipeline.language_config import LanguageModelConfig
from jaxdistill.pipeline.language_prepare import corpus_of, decoder_of, parameter_shapes, prepare_language_model


class DryRun(NamedTuple):
    """Figures of one compiled step.

    Attributes:
      parameters, learned: numbers of them, all and those that are learned.
      parameter_bytes: of all parameters on one device, in float32.
      state_bytes: of what the steps keep on one device: parameters, optimiser, counts.
      batch: shapes of the first batch.
      fill: share of the positions of its rows that hold a token.
      updates, steps_per_epoch, tokens: of the training; the last two `None` where there are no texts.
      flops: of the matrix products of one step, on all devices together.
      memory: on one device, see `evaluation.cost.compiled_cost`.
      compile_seconds: wall time.
      mesh: devices; `None` for one.
    """

    parameters: int
    learned: int
    parameter_bytes: int
    state_bytes: int
    batch: LanguageBatch
    fill: float
    updates: int
    steps_per_epoch: int | None
    tokens: int | None
    flops: int
    memory: dict[str, int | None]
    compile_seconds: float
    mesh: Mesh | None


def dry_run_language_model(config: LanguageModelConfig) -> str:
    """Compile one step and say what it takes; nothing is trained, and no weights are read or drawn.

    Texts are read where the configuration names some, for the number of steps and for how full rows are. Without any
    (`corpus.sources` empty), rows are full, and neither texts nor a tokenizer is needed.

    Raises:
      UserError: see `pipeline.language_run.run_language_model`; epochs without texts.
    """
    figures, settings = measure_step(config), config.training
    texts = ", ".join(config.corpus.names) or "no texts"
    parameters = f"parameters: {figures.parameters:,}"
    if settings.lora_rank:
        parameters += f", of which {figures.learned:,} are learned"
    length = f"training: {figures.updates:,} steps"
    if figures.steps_per_epoch and figures.tokens:
        length += f", {figures.updates / figures.steps_per_epoch:.2f} epochs, {figures.tokens:,} tokens"
    flops = figures.flops
    lines = [
        f"{config.model.name or 'a new language model'} on {texts}",
        parameters,
        f"step: {settings.rows} rows of {figures.batch.weights.shape[-1]} tokens in {settings.micro_batches} "
        f"micro-batches, {figures.fill:.1%} of them filled",
        length,
        f"work: {flops / 1e9:,.1f} GFLOP of matrix products a step, {flops * figures.updates / 1e12:,.1f} TFLOP in "
        "all steps",
        *_memory(figures),
    ]
    return "\n".join(lines)


def measure_step(config: LanguageModelConfig) -> DryRun:
    """The figures of `dry_run_language_model`."""
    settings, mesh = config.training, _mesh(config)
    if config.corpus.names:
        problem = prepare_language_model(config, corpus_of(config), key=jax.random.key(0))
        decoder, shapes, train = problem.decoder, problem.shapes, problem.train
    elif not settings.updates:
        raise UserError(
            f"training.epochs is {settings.epochs}: without texts (corpus.sources is empty) only training.updates says "
            "how long the training is"
        )
    else:
        decoder = decoder_of(config)
        shapes, train = parameter_shapes(decoder), _full_rows(settings)
    batches = make_batches(settings, decoder, train, seed=0)
    updates = settings.total_updates(batches.steps_per_epoch)
    step = make_language_step(settings, decoder, updates=updates)
    if mesh is not None:
        check_mesh(settings, mesh)
    state, constants = jax.eval_shape(step.init, shapes, jax.random.key(0))
    found = (state, constants, batches(0), jax.eval_shape(lambda: jax.random.key(0)))
    arguments = found if mesh is None else _placed(mesh, decoder, settings, found)
    began = time.monotonic()
    compiled = compile_step(step, state, mesh).lower(*arguments).compile()
    seconds = time.monotonic() - began
    return DryRun(
        parameters=_size(shapes),
        learned=_size(state.learned),
        parameter_bytes=_bytes_here(arguments[1] if settings.lora_rank else arguments[0].learned),
        state_bytes=_bytes_here(arguments[:2]),
        batch=found[2],
        fill=batches.fill,
        updates=updates,
        steps_per_epoch=batches.steps_per_epoch if config.corpus.names else None,
        tokens=_tokens(batches, updates) if config.corpus.names else None,
        flops=matmul_flops(step.update, *found),
        memory=compiled_cost(compiled),
        compile_seconds=seconds,
        mesh=mesh,
    )


def _mesh(config: LanguageModelConfig) -> Mesh | None:
    """The mesh of the configuration, of CPU devices where there are too few others."""
    if not config.devices:
        return None
    wanted = None if config.devices < 0 else config.devices
    enough = wanted is None or wanted <= len(jax.devices())
    return make_mesh(wanted, config.model_devices, backend=None if enough else "cpu")


def _full_rows(settings: LanguageModelling) -> Encoded:
    """Texts of no content that fill the rows of one batch."""
    rows, length = settings.rows, settings.row_length
    ids = np.zeros(rows * length, np.int32)
    offsets = np.arange(rows + 1) * length
    return Encoded(ids, np.zeros(len(ids), np.int8), offsets, np.zeros(rows, np.int32), 0)


def _placed(mesh: Mesh, decoder: Decoder, settings: LanguageModelling, arguments: tuple) -> tuple:
    """The shapes of a step's arguments, with their shardings."""
    state, constants, batch, key = arguments
    rows = NamedSharding(mesh, P(*(() if settings.micro_batches == 1 else (None,)), "data"))
    shardings = (
        *training_shardings(mesh, decoder, (state, constants)),
        jax.tree.map(lambda x: rows, batch),
        replicated(mesh),
    )
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments, shardings
    )


def _memory(figures: DryRun) -> list[str]:
    """What one device holds, by kind."""
    found, where = figures.memory, "memory"
    arguments, outputs = found["argument_bytes"], found["output_bytes"]
    temporaries, aliased = found["temp_bytes"], found["alias_bytes"]
    if figures.mesh is not None:
        data, model = figures.mesh.shape["data"], figures.mesh.shape["model"]
        where = f"memory of each of {data * model} devices ({data} data x {model} model)"
    together = None
    if arguments is not None and outputs is not None and temporaries is not None and aliased is not None:
        together = arguments + outputs + temporaries - aliased
    platform = jax.default_backend() if figures.mesh is None else figures.mesh.devices.flat[0].platform
    return [
        f"{where}: {_shown(arguments)} of arguments, {_shown(outputs)} of outputs, of which {_shown(aliased)} take the "
        f"place of arguments, {_shown(temporaries)} of temporaries; together {_shown(together)}",
        f"of these, parameters are {_shown(figures.parameter_bytes)}, with the optimiser {_shown(figures.state_bytes)}",
        f"compiled for {platform} in {figures.compile_seconds:.1f} s; other kinds of device need other temporaries",
    ]


def _shown(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"


def _bytes_here(tree: PyTree) -> int:
    """Bytes of one device's part of arrays that are known by their shapes."""

    def size(leaf: Any) -> int:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def _tokens(batches: LanguageBatches, updates: int) -> int:
    return sum(batches.facts(number)[1] for number in range(updates))


def _size(tree: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
