"""Fixed fine-tuning recipes: how a fresh learner trains on texts, distilled or real."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import cross_entropy
from jaxdistill.core.outer import apply_optimizer
from jaxdistill.core.types import Batch, Key, Learner, PyTree, Variables


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW with warm-up and decay, in steps.

    Attributes:
      steps: updates.
      lr: peak learning rate.
      schedule: shape after the warm-up.
      warmup: share of the steps spent warming up.
      batch_size: examples a step, at most.
      weight_decay: of matrices; biases and normalisation are exempt.
      clip: largest global norm of the gradient.
      dropout: whether the model's own dropout rates are used.
    """

    steps: int = 200
    lr: float = 1e-4
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup: float = 0.5
    batch_size: int = 64
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: bool = True

    def __post_init__(self):
        if self.steps < 1 or self.batch_size < 1:
            raise UserError(f"recipe: steps {self.steps} and batch_size {self.batch_size} must be at least 1")
        if not 0.0 <= self.warmup < 1.0:
            raise UserError(f"recipe: warmup is {self.warmup}; accepted is a share in [0, 1)")
        if self.schedule not in ("cosine", "linear"):
            raise UserError(f"recipe: unknown schedule {self.schedule!r}: accepted are cosine and linear")
        if not (self.lr > 0 and self.clip > 0 and self.weight_decay >= 0):
            raise UserError(
                f"recipe: lr {self.lr} and clip {self.clip} must be above 0, weight_decay {self.weight_decay} not below"
            )

    def optimizer(self) -> optax.GradientTransformation:
        """The recipe as an optax transformation."""
        warm = int(self.warmup * self.steps)
        rest = max(self.steps - warm, 1)
        decay = optax.cosine_decay_schedule if self.schedule == "cosine" else _linear_decay
        schedule = optax.join_schedules(
            [optax.linear_schedule(0.0, self.lr, max(warm, 1)), decay(self.lr, rest)], boundaries=[warm]
        )
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(schedule, weight_decay=self.weight_decay, mask=decayed),
        )


# The recipe that DiLM trains its evaluation students by (Maekawa et al. 2024, section 4).
DILM = Recipe()


def full_data_recipe(steps: int, lr: float = 5e-5, batch_size: int = 32) -> Recipe:
    """Ordinary fine-tuning on all real data: AdamW, 10 % linear warm-up, linear decay."""
    return Recipe(steps=steps, lr=lr, schedule="linear", warmup=0.1, batch_size=batch_size)


class Step(NamedTuple):
    """What a step of a fine-tuning made, on the device.

    Attributes:
      done: steps done.
      loss: of the step's batch, before its update.
      logits: of the examples of that batch, in its order, before its update, with dropout if the recipe has it.
      variables: after the update. The next step uses their trainable buffers up: read them at once, or copy them.
    """

    done: int
    loss: Float[Array, ""]
    logits: Float[Array, "n c"]
    variables: Variables


class FineTuner:
    """Ordinary fine-tuning; one object holds the compiled update of one (learner, recipe).

    Args:
      learner: with its dropout rates set as the recipe wants them.
      recipe: see `Recipe`.
    """

    def __init__(self, learner: Learner, recipe: Recipe):
        self.recipe = recipe
        self._optimizer = optimizer = recipe.optimizer()

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def update(trainable: PyTree, state: PyTree, frozen: PyTree, batch: Batch, key: Key):
            def loss_of(params):
                outputs = learner.apply(Variables(params, frozen), batch, key=key, train=True)
                return cross_entropy(outputs.logits, batch.labels, batch.weights), outputs.logits

            (loss, logits), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
            trainable, state = apply_optimizer(optimizer, gradients, state, trainable)
            return trainable, state, loss, logits

        self._update = update

    def __call__(
        self,
        start: Variables,
        batches: Callable[[int], Batch],
        key: Key,
        *,
        on_step: Callable[[Step], None] = lambda step: None,
    ) -> Variables:
        """Fine-tune.

        Args:
          start: fresh variables; their trainable buffers are used up.
          batches: the batch of step k.
          key: of dropout.
          on_step: told of every step.
        """
        trainable, state = start.trainable, self._optimizer.init(start.trainable)
        for step in range(self.recipe.steps):
            key_of_step = jax.random.fold_in(key, step)
            trainable, state, loss, logits = self._update(trainable, state, start.frozen, batches(step), key_of_step)
            on_step(Step(step + 1, loss, logits, Variables(trainable, start.frozen)))
        return Variables(trainable, start.frozen)


def _linear_decay(peak: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, 0.0, steps)


def decayed(params: PyTree, *, norms: bool = False) -> PyTree:
    """True for what decays: matrices, stacked over layers or not, neither biases nor normalisation weights.

    Args:
      params: nested dict of parameters.
      norms: whether the weights of normalisations decay too, as in published code whose filter misses their names.
    """

    def decays(path: tuple, leaf: jax.Array) -> bool:
        name = str(path[-1].key)
        return name != "bias" and (norms if name == "scale" else jnp.ndim(leaf) >= 2)

    return jax.tree_util.tree_map_with_path(decays, params)
