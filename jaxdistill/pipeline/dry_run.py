"""What an experiment would cost: parameters, work and memory of its compiled outer step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.core import adjoints, tree
from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import init_outer, make_update
from jaxdistill.data.batching import TrainBatches
from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
from jaxdistill.methods.attention_label import AttentionLabel, initial_set, inner_spec
from jaxdistill.objectives.meta_model import MetaModelConstants, meta_model
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.prepare import prepare


def dry_run(config: ExperimentConfig) -> str:
    """Compile one outer step and say what it takes; nothing is trained.

    Raises:
      UserError: the method learns nothing by an outer loop.
    """
    settings = config.settings
    if not isinstance(settings, AttentionLabel):
        raise UserError(f"--dry_run needs a method with an outer step: {config.method!r} has none; use attention_label")
    problem = prepare(config.task, config.learner)
    learner, outer = problem.pretrained.learner, settings.outer
    base = jax.eval_shape(problem.base)
    synthetic, support = initial_set(settings, problem, jax.random.key(0))
    spec = inner_spec(settings, problem.classes)
    optimizer = outer.optimizer()
    state = jax.eval_shape(lambda: init_outer(synthetic, optimizer))
    batches = TrainBatches(
        problem.train, batch_size=outer.batch_size, seed=0, row_length=problem.row_length, packed=outer.packed
    )
    update = make_update(meta_model(learner, spec, adjoints.parse(outer.adjoint)), optimizer, inits=outer.inits)
    arguments = (state, MetaModelConstants(base, support), batches(0), jax.random.key(0))
    flops = matmul_flops(update, *arguments)
    cost = compiled_cost(jax.jit(update, donate_argnums=0).lower(*arguments).compile())
    tokens = batches(0).token_ids.shape
    trainable, frozen = (sum(x.size for x in jax.tree.leaves(part)) for part in (base.trainable, base.frozen))
    temporary = "unknown" if cost["temp_bytes"] is None else f"{cost['temp_bytes'] / 2**20:,.0f} MiB"
    lines = [
        f"{config.method} on {config.task.name} with {config.learner.name}",
        f"learner: {trainable:,} trainable and {frozen:,} frozen parameters",
        f"distilled set: {spec.samples} samples, {tree.size_in_bytes(synthetic):,} bytes learned",
        f"outer step: {outer.batch_size} real texts in {tokens[0]} rows of {tokens[1]} tokens, {outer.inits} fresh "
        f"learners, {spec.steps} inner steps, adjoint {outer.adjoint}",
        f"work: {flops / 1e9:,.1f} GFLOP of matrix products a step, {flops * outer.updates / 1e12:,.1f} TFLOP in "
        f"{outer.updates:,} steps",
        f"memory: {temporary} of temporaries beside {tree_bytes(base):,.0f} MiB of parameters",
    ]
    return "\n".join(lines)


def tree_bytes(shapes) -> float:
    """MiB of a tree of shapes."""
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes)) / 2**20
