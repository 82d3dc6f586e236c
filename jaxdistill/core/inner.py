"""The inner problem: a loss of (parameters, synthetic data), and the update rule that descends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.types import Key, PyTree, pytree


@runtime_checkable
class InnerLoss(Protocol):
    def __call__(self, params: PyTree, data: PyTree, constants: Any) -> Float[Array, ""]:
        """Training loss of one inner step.

        Args:
          params: trainable parameters; twice differentiated.
          data: floating arrays of the minibatch; differentiated after `params`.
          constants: whatever else the loss reads (frozen parameters, token ids, masks, a key), `Constants` as a rule;
            never differentiated.
        """
        ...


class InnerOptimizer(NamedTuple):
    """Update rule of the inner loop.

    Attributes:
      init: `init(params) -> state`.
      update: `update(gradients, state, lr) -> (deltas, state)`; `lr` is a tree like `params` whose leaves broadcast
        against it, and the step is `params + deltas`.
      linear: whether `update` is linear in (gradients, state). Then its derivative needs no gradient at the point,
        which saves the mixed adjoint one backward pass.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    linear: bool


def sgd(momentum: float = 0.0) -> InnerOptimizer:
    """Gradient descent, with heavy-ball momentum m ← μm + g when `momentum` is above 0."""
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum {momentum} is outside [0, 1)")

    def init(params):
        return jax.tree.map(jnp.zeros_like, params) if momentum else ()

    def update(gradients, state, lr):
        if momentum:
            gradients = state = jax.tree.map(lambda m, g: momentum * m + g, state, gradients)
        return jax.tree.map(lambda g, a: -a * g, gradients, lr), state

    return InnerOptimizer(init, update, linear=True)


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> InnerOptimizer:
    """Adam with bias correction. `eps` also stands inside the square root (squared), so that a zero gradient has
    finite derivatives."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        # The step count is a float: every leaf of the state then has an ordinary cotangent.
        return zeros, zeros, jnp.zeros(())

    def update(gradients, state, lr):
        mean, square, count = state
        count = count + 1.0
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mean, gradients)
        square = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g * g, square, gradients)

        def delta(m, s, a):
            correction = (count * np.log(b1)).astype(m.dtype), (count * np.log(b2)).astype(m.dtype)
            m_hat, s_hat = m / -jnp.expm1(correction[0]), s / -jnp.expm1(correction[1])
            return -a * m_hat / (jnp.sqrt(s_hat + eps * eps) + eps)

        return jax.tree.map(delta, mean, square, lr), (mean, square, count)

    return InnerOptimizer(init, update, linear=False)


INNER_OPTIMIZERS: dict[str, Callable[[], InnerOptimizer]] = {
    "sgd": sgd,
    "momentum": lambda: sgd(momentum=0.9),
    "adam": adam,
}


class Constants(NamedTuple):
    """What an inner loss reads and is never differentiated in; see `Schedule` for the parts."""

    fixed: PyTree
    frozen: PyTree
    key: Key | None


@pytree
class Schedule:
    """What an inner loop trains on.

    Attributes:
      lr: step size of each step; with a second axis, one a learning-rate group.
      index: the samples of each step's minibatch.
      data: floating arrays with a leading axis of all n samples; differentiated.
      fixed: other arrays with the same leading axis (token ids, masks); not differentiated.
      frozen: arrays shared by all steps (frozen parameters); not differentiated.
      keys: one of each step, for learners that drop features at random in training; `None` trains without.
    """

    lr: Float[Array, " t"] | Float[Array, "t g"]
    index: Int[Array, "t m"]
    data: PyTree
    fixed: PyTree = None
    frozen: PyTree = None
    keys: Key | None = None

    @property
    def steps(self) -> int:
        return self.index.shape[0]

    def minibatch(self, index: Int[Array, " m"], key: Key | None = None) -> tuple[PyTree, Constants]:
        """(data, constants) of the samples at `index`, as `InnerLoss` takes them; `key` is that of the step."""

        def take(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda x: x[index], tree)

        return take(self.data), Constants(take(self.fixed), self.frozen, key)


class Inner(NamedTuple):
    """An inner problem: what is descended, how, and the learning-rate group of each parameter.

    Attributes:
      loss: see `InnerLoss`.
      optimizer: see `InnerOptimizer`.
      groups: `Learner.groups`; may be `None` when step sizes are scalars.
    """

    loss: InnerLoss
    optimizer: InnerOptimizer = sgd()
    groups: PyTree = None


def inner_gradient(loss: InnerLoss) -> Callable[[PyTree, PyTree, PyTree], PyTree]:
    """∇_θ of an inner loss, differentiable in (θ, data) at the price of one more pass.

    With v the cotangent of the gradient, the backward pass needs ∇_(θ,s) D_v L, where D_v is one forward-mode pass
    along v: no transposed second-order graph, as in `unroll.mixed_step`.

    Returns:
      `gradient(params, data, constants)`, a tree like `params`.
    """

    @jax.custom_vjp
    def gradient(params, data, constants):
        return jax.grad(loss)(params, data, constants)

    def forward(params, data, constants):
        return gradient(params, data, constants), (params, data, constants)

    def backward(residuals, v):
        params, data, constants = residuals

        def directional(p, s):
            return jax.jvp(lambda q: loss(q, s, constants), (p,), (v,))[1]

        return *jax.grad(directional, argnums=(0, 1))(params, data), None

    gradient.defvjp(forward, backward)
    return gradient


def spread(lr: Float[Array, ""] | Float[Array, " g"], groups: PyTree, params: PyTree) -> PyTree:
    """Step size of every parameter: a tree like `params` with leaves that broadcast against it."""
    if lr.ndim == 0:
        return jax.tree.map(lambda p: lr.astype(p.dtype), params)

    def leaf(group: np.ndarray, p: Array) -> Array:
        return lr[group].reshape(group.shape + (1,) * (p.ndim - group.ndim)).astype(p.dtype)

    return jax.tree.map(leaf, groups, params)
