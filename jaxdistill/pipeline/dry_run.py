"""What an experiment would cost: parameters, work and memory of its compiled outer step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdistill.core import tree
from jaxdistill.core.outer import init_outer
from jaxdistill.core.types import PyTree
from jaxdistill.data.batching import TrainBatches
from jaxdistill.evaluation.cost import compiled_cost, matmul_flops
from jaxdistill.methods.meta_learning import meta_model_match, outer_step, usual_shapes
from jaxdistill.methods.registry import method_named
from jaxdistill.objectives.meta_model import MetaModelConstants
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare


def dry_run(config: ExperimentConfig) -> str:
    """Compile one outer step, on one device, and say what it takes; nothing is trained.

    Raises:
      UserError: the configuration does not fit the problem, or learns nothing by an outer loop.
    """
    settings, method = config.settings, method_named(config.method)
    problem = prepare(config.task, config.learner)
    synthetic, support = method.initial(settings, problem, named_key(config.seed, "distill"))
    spec = method.inner_spec(settings, problem.classes)
    assert spec is not None, "a method that learns has an inner problem"
    learner, outer = problem.pretrained.learner, settings.outer
    match = method.match(settings, problem, spec) if method.match else meta_model_match(learner, spec, outer)
    base = jax.eval_shape(problem.base)
    state = jax.eval_shape(lambda: init_outer(jax.tree.map(jnp.asarray, synthetic), outer.optimizer(), match.state))
    batches = TrainBatches(
        problem.train,
        batch_size=outer.batch_size,
        seed=0,
        row_length=problem.row_length,
        packed=outer.packed and learner.packs,
        min_length=learner.min_length,
        usual_shapes=usual_shapes(outer.updates, spec.steps),
    )
    update = outer_step(match, outer)
    constants = match.constants(MetaModelConstants(base, support))
    arguments = (state, constants, match.batch(0, lambda: batches(0)), jax.random.key(0))
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
        f"memory: {temporary} of temporaries beside {_mebibytes(base):,.0f} MiB of parameters",
    ]
    if config.devices:
        lines.append(f"devices {config.devices} is ignored: work and memory are those of the step on one device")
    return "\n".join(lines)


def _mebibytes(shapes: PyTree) -> float:
    return sum(x.size * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes)) / 2**20
