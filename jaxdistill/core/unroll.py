"""Run an inner loop and differentiate it: `unroll(inner, params, schedule, adjoint)`."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdistill.core.adjoints import MIXED, Adjoint
from jaxdistill.core.errors import UserError
from jaxdistill.core.inner import Inner, Schedule, spread
from jaxdistill.core.types import Key, PyTree

Carry = tuple[PyTree, PyTree]  # (parameters, optimiser state)
Step = Callable[[Carry, jax.Array, PyTree, PyTree], Carry]  # (carry, lr, data, constants)


def unroll(
    inner: Inner, params: PyTree, schedule: Schedule, adjoint: Adjoint = MIXED, *, key: Key | None = None
) -> PyTree:
    """Parameters after the inner loop; differentiable in `params`, `schedule.lr` and `schedule.data`.

    Args:
      inner: the inner problem.
      params: trainable parameters before the first step.
      schedule: step sizes and data of each of t steps.
      adjoint: how to differentiate; see `jaxdistill.core.adjoints` for exactness, memory and time.
      key: draws the end of the window; needed by `truncated` alone.

    Returns:
      parameters after t steps; for `truncated`, after a random number of steps between the window and t.
    """
    if adjoint.kind in ("mixed", "nested") and schedule.steps == 1:
        return single_step(inner, params, schedule)
    carry = (params, inner.optimizer.init(params))
    if adjoint.kind == "tesla":
        return _tesla(inner, params, schedule)
    if adjoint.kind == "truncated":
        return _truncated(inner, carry, schedule, adjoint.size, key)
    if adjoint.kind == "full":
        step = functools.partial(plain_step, inner)
    elif adjoint.kind == "remat":
        step = jax.checkpoint(functools.partial(plain_step, inner))
    else:
        step = mixed_step(inner, hessian=adjoint.kind != "first_order")
    if adjoint.kind == "nested":
        return _nested(step, carry, schedule, adjoint.size)[0]
    return _scan(step, carry, schedule)[0]


def plain_step(inner: Inner, carry: Carry, lr: jax.Array, data: PyTree, constants: PyTree) -> Carry:
    """One inner step, left to JAX to differentiate."""
    params, state = carry
    gradients = jax.grad(inner.loss)(params, data, constants)
    deltas, state = inner.optimizer.update(gradients, state, spread(lr, inner.groups, params))
    return jax.tree.map(jnp.add, params, deltas), state


def mixed_step(inner: Inner, *, hessian: bool = True) -> Step:
    """One inner step with a hand-written backward pass that is exact and stores the step's inputs only.

    Let v be the cotangent of the gradient g = ∇_θ L(θ, s). Everything the backward pass needs is the derivative of
    ∇_(θ,s) L along (θ, v), one `jax.jvp`: its primal is g (for the derivative of the update rule), its tangent holds
    the Hessian-vector product and the mixed product ∇_s⟨∇_θ L, v⟩.

    Args:
      inner: the inner problem.
      hessian: False drops the Hessian-vector product (`first_order`).
    """

    def update(carry: Carry, gradients: PyTree, lr: jax.Array) -> Carry:
        params, state = carry
        deltas, state = inner.optimizer.update(gradients, state, spread(lr, inner.groups, params))
        return jax.tree.map(jnp.add, params, deltas), state

    @jax.custom_vjp
    def step(carry, lr, data, constants):
        return plain_step(inner, carry, lr, data, constants)

    def forward(carry, lr, data, constants):
        return step(carry, lr, data, constants), (carry, lr, data, constants)

    def backward(residuals, cotangent):
        carry, lr, data, constants = residuals
        params = carry[0]

        def gradients_of(p):
            return jax.grad(inner.loss, argnums=(0, 1))(p, data, constants)

        # A linear rule has the same derivative at every gradient, so it is taken at zero and g comes with the jvp.
        at = (
            jax.tree.map(jnp.zeros_like, params)
            if inner.optimizer.linear
            else jax.grad(inner.loss)(params, data, constants)
        )
        v = jax.vjp(lambda g: update(carry, g, lr), at)[1](cotangent)[0]
        (gradients, _), (hessian_v, mixed_v) = jax.jvp(gradients_of, (params,), (v,))
        carry_bar, lr_bar = jax.vjp(lambda c, a: update(c, gradients, a), carry, lr)[1](cotangent)
        if hessian:
            carry_bar = (jax.tree.map(jnp.add, carry_bar[0], hessian_v), carry_bar[1])
        return carry_bar, lr_bar, mixed_v, None

    step.defvjp(forward, backward)
    return step


def single_step(inner: Inner, params: PyTree, schedule: Schedule) -> PyTree:
    """The loop of one step, T = 1: the mixed adjoint without what a longer loop needs of it.

    With v the cotangent of θ_1, the step sizes take ⟨g, v⟩ from the g of the forward pass, and the data take
    ∇_s D_u L(θ_0; s), u = −η⊙v, where D_u is one forward-mode pass, differentiated in reverse in s (Maekawa et al.
    2023; Sucholutsky & Schonlau 2021). The cotangent of θ_0 is exact too; when nobody asks for it, as when θ_0 is
    pretrained, XLA drops its weight gradients.
    """

    def apply(params, gradients, lr):
        deltas, _ = inner.optimizer.update(gradients, inner.optimizer.init(params), spread(lr, inner.groups, params))
        return jax.tree.map(jnp.add, params, deltas)

    @jax.custom_vjp
    def step(params, lr, data, constants):
        return forward(params, lr, data, constants)[0]

    def forward(params, lr, data, constants):
        gradients = jax.grad(inner.loss)(params, data, constants)
        return apply(params, gradients, lr), (params, gradients, lr, data, constants)

    def backward(residuals, cotangent):
        params, gradients, lr, data, constants = residuals
        u, lr_bar = jax.vjp(lambda g, a: apply(params, g, a), gradients, lr)[1](cotangent)

        def directional(p, s):
            return jax.jvp(lambda q: inner.loss(q, s, constants), (p,), (u,))[1]

        params_bar, data_bar = jax.grad(directional, argnums=(0, 1))(params, data)
        return jax.tree.map(jnp.add, cotangent, params_bar), lr_bar, data_bar, None

    step.defvjp(forward, backward)
    lr, index, key = jax.tree.map(lambda x: x[0], _by_step(schedule))
    data, constants = schedule.minibatch(index, key)
    return step(params, lr, data, constants)


def _by_step(schedule: Schedule) -> tuple[jax.Array, jax.Array, Key | None]:
    """What differs from step to step, along the leading axis of each part: step sizes, samples, keys."""
    return schedule.lr, schedule.index, schedule.keys


def _with_steps(schedule: Schedule, steps: tuple[jax.Array, jax.Array, Key | None]) -> Schedule:
    lr, index, keys = steps
    return dataclasses.replace(schedule, lr=lr, index=index, keys=keys)


def _scan(step: Step, carry: Carry, schedule: Schedule) -> Carry:
    def body(carry, t):
        lr, index, key = t
        data, constants = schedule.minibatch(index, key)
        return step(carry, lr, data, constants), None

    return jax.lax.scan(body, carry, _by_step(schedule))[0]


def _window(schedule: Schedule, start: int | jax.Array, size: int) -> Schedule:
    """Steps start..start+size-1; `start` may be traced."""
    steps = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), _by_step(schedule))
    return _with_steps(schedule, steps)


def _nested(step: Step, carry: Carry, schedule: Schedule, size: int) -> Carry:
    """Segments of `size` steps, each recomputed in the backward pass; a shorter one first takes the remainder."""
    size = min(size or max(1, math.isqrt(schedule.steps)), schedule.steps)
    segments, remainder = divmod(schedule.steps, size)

    def segment(carry, steps, data):
        return _scan(step, carry, dataclasses.replace(_with_steps(schedule, steps), data=data))

    checkpointed = jax.checkpoint(segment)
    if remainder:
        first = jax.tree.map(lambda x: x[:remainder], _by_step(schedule))
        carry = checkpointed(carry, first, schedule.data)

    def body(carry, steps):
        return checkpointed(carry, steps, schedule.data), None

    rest = jax.tree.map(lambda x: x[remainder:].reshape(segments, size, *x.shape[1:]), _by_step(schedule))
    return jax.lax.scan(body, carry, rest)[0]


def _truncated(inner: Inner, carry: Carry, schedule: Schedule, window: int, key: Key | None) -> PyTree:
    if window > schedule.steps:
        raise UserError(f"truncated({window}): the window is longer than the inner loop of {schedule.steps} steps")
    if key is None:
        raise ValueError("the truncated adjoint draws its window: give unroll a key")
    start = jax.random.randint(key, (), 0, schedule.steps - window + 1)
    constant = jax.lax.stop_gradient(schedule)

    def burn_in(t, carry):
        lr, index, key = jax.tree.map(lambda x: x[t], _by_step(constant))
        data, constants = constant.minibatch(index, key)
        return plain_step(inner, carry, lr, data, constants)

    # Differentiating a loop with a traced length is impossible; nothing in it is differentiated.
    carry = jax.lax.fori_loop(0, start, burn_in, jax.lax.stop_gradient(carry))
    carry = jax.lax.stop_gradient(carry)
    return _scan(mixed_step(inner), carry, _window(schedule, start, window))[0]


def _tesla(inner: Inner, params: PyTree, schedule: Schedule) -> PyTree:
    """Gradient as if the Hessian were zero, in memory that does not grow with T (TESLA, Cui et al. 2023, eq. 8).

    The cotangent v of θ_T then reaches every step unchanged, so a second run of the loop adds each step's mixed
    product as it passes. It equals `first_order` and is NOT exact.
    """
    if inner.optimizer.init(params) != ():
        raise UserError("the tesla adjoint holds for plain SGD inner steps only: use first_order or an exact adjoint")
    step = functools.partial(plain_step, inner)

    def replay(lr, data, constants) -> Schedule:
        fixed, frozen, keys = constants
        return Schedule(lr, schedule.index, data, fixed, frozen, keys)

    @jax.custom_vjp
    def loop(params, lr, data, constants):
        return _scan(step, (params, ()), replay(lr, data, constants))[0]

    def forward(params, lr, data, constants):
        return loop(params, lr, data, constants), (params, lr, data, constants)

    def backward(residuals, v):
        params, lr, data, constants = residuals
        again = replay(lr, data, constants)
        one = mixed_step(inner, hessian=False)

        def body(carry, t):
            params, data_bar = carry
            only = jax.tree.map(lambda x: x[None], t)

            def advance(lr, data):
                part = dataclasses.replace(_with_steps(again, only), lr=lr[None], data=data)
                return _scan(one, (params, ()), part)[0]

            params, pullback = jax.vjp(advance, t[0], data)
            lr_bar, step_bar = pullback(v)
            return (params, jax.tree.map(jnp.add, data_bar, step_bar)), lr_bar

        zeros = jax.tree.map(jnp.zeros_like, data)
        (_, data_bar), lr_bar = jax.lax.scan(body, (params, zeros), _by_step(again))
        return v, lr_bar, data_bar, None

    loop.defvjp(forward, backward)
    return loop(params, schedule.lr, schedule.data, (schedule.fixed, schedule.frozen, schedule.keys))
