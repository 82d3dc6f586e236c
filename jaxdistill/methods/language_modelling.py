"""Training of a causal language model: from scratch, on a task's texts (DiLM's stage 0), or on a distilled set.

Built on the outer update and the loop that learn distilled sets, and so with their checkpoints, resuming, stop signal
and skipped steps. What is learned are all parameters, or low-rank adapters.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import OuterState
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Key, PyTree
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.language_batches import LanguageBatches
from jaxdistill.evaluation.cost import matmul_flops, peak_memory_bytes
from jaxdistill.evaluation.token_loss import make_token_loss, perplexity
from jaxdistill.methods.base import Run
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.methods.language_step import LanguageStep, compile_step, make_language_step, training_shardings
from jaxdistill.methods.loop import Fitted, Wording, fit
from jaxdistill.models.decoder import Decoder
from jaxdistill.parallel.mesh import gathered, put

_WORDING = Wording(
    step="step",
    gradient="its gradient",
    remedy="lower training.lr, or lengthen the warm-up",
    diverged="the loss on dev was not finite in all {count} selections: lower training.lr",
)


class Trained(NamedTuple):
    """A trained language model.

    Attributes:
      params: all parameters, adapters merged, in host memory.
      record: what came of it, as plain JSON: "updates", "kept" (step, dev_loss, dev_perplexity), "dev" (step, loss and
        perplexity of each selection), "tokens" predicted in training, "tokens_per_second" of training steps,
        "seconds" (selections and compilation included), "seconds_per_step", "flops" of all matrix products, "skipped"
        updates, "peak_bytes", "row_fill".
    """

    params: PyTree
    record: dict[str, Any]


class Training(NamedTuple):
    """What a training is made of, before its first step.

    Attributes:
      step: its functions.
      state: before the first step.
      constants: what it reads beside batches: nothing, or the parameters that carry adapters.
      batches: the batch of step k.
      updates: in all.
      key: of the steps.
    """

    step: LanguageStep
    state: OuterState
    constants: PyTree
    batches: LanguageBatches
    updates: int
    key: Key


def make_training(
    settings: LanguageModelling,
    decoder: Decoder,
    params: PyTree,
    train: Encoded,
    *,
    key: Key,
    mesh: Mesh | None = None,
) -> Training:
    """Put a training together.

    Args:
      settings: see there.
      decoder: the module; its config names the end token.
      params: its parameters, which are copied.
      train: documents, see `data.documents.encode_documents`.
      key: all randomness: order of texts, dropout, fresh adapters.
      mesh: devices that the state is cut over, see `methods.language_step.training_shardings`.

    Raises:
      UserError: the texts do not fit the settings or the model.
    """
    order_key, adapter_key, step_key = jax.random.split(key, 3)
    batches = make_batches(settings, decoder, train, seed=numpy_seed(order_key))
    updates = settings.total_updates(batches.steps_per_epoch)
    step = make_language_step(settings, decoder, updates=updates)
    shardings = None
    if mesh is not None:
        check_mesh(settings, mesh)
        shardings = training_shardings(mesh, step.decoder, jax.eval_shape(step.init, params, adapter_key))
    state, constants = jax.jit(step.init, out_shardings=shardings)(params, adapter_key)
    return Training(step, state, constants, batches, updates, step_key)


def check_mesh(settings: LanguageModelling, mesh: Mesh) -> None:
    """Raises `UserError` where the rows of a micro-batch cannot be cut over the data axis."""
    if (settings.rows // settings.micro_batches) % mesh.shape["data"]:
        raise UserError(
            f"{settings.rows} rows in {settings.micro_batches} micro-batches cannot be cut over "
            f"{mesh.shape['data']} data devices: accepted are rows of which each micro-batch has a multiple of that"
        )


def make_batches(settings: LanguageModelling, decoder: Decoder, train: Encoded, *, seed: int) -> LanguageBatches:
    """The batches of a training; see `make_training`."""
    if settings.row_length > decoder.config.positions:
        raise UserError(
            f"training.row_length is {settings.row_length}, and the model reads {decoder.config.positions} positions: "
            "accepted are as many or fewer"
        )
    end = decoder.config.end_tokens[0] if decoder.config.end_tokens else None
    return LanguageBatches(train, settings.layout(end), seed=seed)


def train_language_model(
    settings: LanguageModelling,
    decoder: Decoder,
    params: PyTree,
    train: Encoded,
    dev: Encoded | None,
    *,
    key: Key,
    run: Run,
) -> Trained:
    """Train a language model; the same call after an interruption gives the same parameters, bit for bit.

    Args:
      settings: see there.
      decoder: the module, fresh (`models.decoder.init_decoder`) or loaded (`models.decoder_folder.load_decoder`, with
        `dropout=None` where its own rates are wanted).
      params: its parameters; they are copied.
      train: documents, see `data.documents.encode_documents`.
      dev: documents that checkpoints are compared on; `None` only where the last is kept.
      key: all randomness: order of texts, dropout, fresh adapters.
      run: checkpoints, writers, stop signal, devices. Rows are cut over the data axis of its mesh, parameters and
        optimiser over both.

    Raises:
      UserError: settings, texts and model do not fit one another; the loss was not finite for long.
      Stopped: `run.stop()` said so; a checkpoint is kept.
    """
    training = make_training(settings, decoder, params, train, key=key, mesh=run.mesh)
    return run_training(settings, training, dev, run=run)


def run_training(settings: LanguageModelling, training: Training, dev: Encoded | None, *, run: Run) -> Trained:
    """Run what `make_training` has put together of the same settings and mesh; see `train_language_model`.

    The state is donated to the first step: a training runs once.
    """
    if dev is None and settings.keep == "best":
        raise UserError("training.keep is 'best', but there are no dev texts to compare on: give 'last', or such texts")
    updates, mesh, parts = training.updates, run.mesh, training.step
    state, constants = training.state, training.constants
    step = compile_step(parts, state, mesh)

    def place(tree: PyTree) -> PyTree:
        if mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return put(tree, training_shardings(mesh, parts.decoder, tree))

    def batch(number: int) -> PyTree:
        found = training.batches(number)
        if mesh is None:
            return found
        return put(found, NamedSharding(mesh, P(*(() if settings.micro_batches == 1 else (None,)), "data")))

    tokens, flops = _work(training)
    merged = jax.jit(parts.params_of)
    token_loss = None
    if dev is not None:
        options = {"row_length": settings.row_length, "chunk": settings.chunk, "mesh": mesh}
        token_loss = make_token_loss(parts.decoder, dev, **options)

    def select(learned: PyTree) -> tuple[float, dict[str, float]]:
        assert token_loss is not None, "without dev texts nothing is selected"
        loss = token_loss(merged(learned, constants) if settings.lora_rank else learned)
        shown = {"dev_loss": loss, "dev_perplexity": perplexity(loss)}
        return (-loss if np.isfinite(loss) else -np.inf), shown

    fitted = fit(
        step,
        state,
        constants,
        batch,
        updates=updates,
        select=select,
        select_at=settings.select_at(updates) if dev is not None else (),
        key=training.key,
        run=run,
        place=place,
        keep=settings.keep,
        wording=_WORDING,
    )
    params = fitted.learned
    if settings.lora_rank:
        params = jax.device_get(gathered(merged(place(params), constants)))
    return Trained(params, _record(training, fitted, tokens, flops))


def _work(training: Training) -> tuple[int, int]:
    """(real tokens predicted, operations of matrix products) in all updates: a pure function of the settings."""
    facts = [training.batches.facts(number) for number in range(training.updates)]
    lengths = [length for length, _ in facts]
    flops = 0
    for length, count in Counter(lengths).items():
        found = training.batches(lengths.index(length))
        flops += count * matmul_flops(training.step.update, training.state, training.constants, found, training.key)
    return sum(tokens for _, tokens in facts), flops


def _record(training: Training, fitted: Fitted, tokens: int, flops: int) -> dict[str, Any]:
    dev = [{"step": at, "loss": -score, "perplexity": perplexity(-score)} for at, score in fitted.selections]
    kept = next((entry for entry in dev if entry["step"] == fitted.step), None)
    per_step = fitted.seconds_per_step or fitted.seconds / training.updates
    return {
        "updates": training.updates,
        "kept": {
            "step": fitted.step,
            "dev_loss": None if kept is None else kept["loss"],
            "dev_perplexity": None if kept is None else kept["perplexity"],
        },
        "dev": dev,
        "tokens": tokens,
        "tokens_per_second": tokens / training.updates / per_step,
        "seconds": fitted.seconds,
        "seconds_per_step": fitted.seconds_per_step,
        "flops": flops,
        "skipped": fitted.skipped,
        "peak_bytes": peak_memory_bytes(),
        "row_fill": training.batches.fill,
    }
