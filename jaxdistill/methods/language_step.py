"""One update of a language model's training, and where its arrays lie on a mesh; nothing here makes an array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from jaxdistill.core.outer import OuterState, Update, init_outer, make_update
from jaxdistill.core.types import Key, PyTree
from jaxdistill.data.language_batches import LanguageBatch
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.decoder_sharding import sharding_rules
from jaxdistill.models.lora import add_adapters, merge_adapters
from jaxdistill.objectives.language_modelling import language_modelling
from jaxdistill.parallel.mesh import replicated, rule_shardings


class LanguageStep(NamedTuple):
    """The pure functions of a training.

    Attributes:
      init: `init(params, key)` is the state before the first step, and what the steps read beside batches: nothing, or
        the parameters that carry adapters, which are drawn with the key. It copies.
      update: one step, see `core.outer.make_update`.
      params_of: the decoder's parameters, of what is learned and the constants.
      decoder: the module, in the precision of the settings.
    """

    init: Callable[[PyTree, Key], tuple[OuterState, PyTree]]
    update: Update
    params_of: Callable[[PyTree, PyTree], PyTree]
    decoder: Decoder


def make_language_step(settings: LanguageModelling, decoder: Decoder, *, updates: int) -> LanguageStep:
    """Put one update together. The same arguments give the same functions, so that trainings that differ in their texts
    alone share what is compiled.

    Args:
      settings: see there.
      decoder: the module.
      updates: in all, for the schedule of the learning rate.
    """
    kept: Any = _language_step  # flax's modules are hashable, which their types do not say
    return kept(settings, decoder, updates)


@functools.lru_cache(maxsize=16)
def _language_step(settings: LanguageModelling, decoder: Decoder, updates: int) -> LanguageStep:
    decoder = decoder.clone(dtype=jnp.dtype(settings.dtype))
    params_of = functools.partial(merge_adapters, alpha=settings.lora_alpha) if settings.lora_rank else _learned_itself
    objective = language_modelling(decoder, params_of, dropout=settings.dropout, chunk=settings.chunk)
    optimizer, learning_rate = settings.optimizer(updates), settings.learning_rate(updates)
    update = make_update(objective, optimizer, micro_batches=settings.micro_batches)

    def init(params: PyTree, key: Key) -> tuple[OuterState, PyTree]:
        # Copies: the state is donated to the first step, and the caller's parameters are not.
        master = jax.tree.map(lambda p: jnp.array(p, jnp.float32), params)
        if not settings.lora_rank:
            return init_outer(master, optimizer), ()
        return init_outer(
            add_adapters(master, settings.lora_paths, rank=settings.lora_rank, key=key), optimizer
        ), master

    def step(
        state: OuterState, constants: PyTree, real_batch: LanguageBatch, key: Key
    ) -> tuple[OuterState, dict[str, Array]]:
        new, metrics = update(state, constants, real_batch, key)
        shown = {name: value for name, value in metrics.items() if name != "token_loss"}
        shown["perplexity"] = jnp.exp(metrics["token_loss"])
        shown["lr"] = jnp.asarray(learning_rate(state.step - state.skipped))
        return new, shown

    return LanguageStep(init, step, params_of, decoder)


def training_shardings(mesh: Mesh, decoder: Decoder, tree: PyTree) -> PyTree:
    """Where everything of a training lies: parameters and what has their names (moments of the optimiser, adapters, the
    best parameters so far) cut along both axes, the rest on every device.

    Args:
      mesh: with the axes ("data", "model").
      decoder: whose parameters these are.
      tree: arrays, or their shapes.
    """
    sizes = mesh.shape
    rules = sharding_rules(decoder.config, sizes["model"], scan_layers=decoder.scan_layers, data=sizes["data"])
    return rule_shardings(mesh, tree, rules)


def compile_step(step: LanguageStep, state: PyTree, mesh: Mesh | None) -> Update:
    """The update under `jax.jit`; its state is donated and stays where it lies.

    Args:
      step: see there.
      state: before the first step, arrays or their shapes.
      mesh: devices; `None` for the default one.
    """
    if mesh is None:
        return jax.jit(step.update, donate_argnums=0)
    shardings = training_shardings(mesh, step.decoder, state)
    return jax.jit(step.update, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


def _learned_itself(learned: PyTree, constants: PyTree) -> PyTree:
    return learned
