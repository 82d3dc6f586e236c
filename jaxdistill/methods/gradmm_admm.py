"""GRADMM's optimisation: embeddings whose gradient is that of real texts, pulled to readable tokens by ADMM.

Minimise D(x) subject to x being the embeddings of a text that the language model finds likely. With the copy z and the
scaled dual lambda / rho, one outer step is: z from the projection of x + lambda / rho; some steps of Adam on
D(x) + rho / 2 |x - z + lambda / rho|^2; lambda <- lambda + rho (x - z).

Source: GRADMM (Nguyen et al., ICML 2025).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import apply_optimizer
from jaxdistill.core.types import Batch, Key, PyTree, pytree
from jaxdistill.generation.projection import project
from jaxdistill.generation.scorers import Model
from jaxdistill.methods.gradmm_reading import Form, label_parts, word_table
from jaxdistill.models.decoder import Decoder
from jaxdistill.objectives.head_distance import Distance, Target, each_distance, head_distance
from jaxdistill.objectives.head_matching import HeadParts
from jaxdistill.objectives.head_sketch import Sketch


@dataclasses.dataclass(frozen=True)
class ADMM:
    """Settings.

    Attributes:
      outer_steps: projections and updates of the dual.
      inner_steps: of Adam, between them.
      rho: weight of staying close to the text.
      lr: of Adam; its moments are kept over all outer steps.
      clip: largest norm of the gradient in a round's embeddings; 0 for none.
      nearest: tokens that a position may become: those with the highest cosine to its vector.
      candidates: random starts, of which a round takes the one with the lowest distance.
      start_norm: length of each position's vector at the start; 0 for the mean length of the model's embeddings.
      distance: see `objectives.head_distance`.
      match: "joint" matches the mean gradient of a round's texts, "each" that of every text by itself.
      norm_weight: of the squared difference between the mean length of the vectors and `start_norm`.
      likelihood_weight: of the projected text's negative log-likelihood given x, a token.
      freeze_prompt: keep the prompt's vectors; otherwise they move between projections, as in the published code for
        most tasks.
      keep: which outer step's result a round gives: "projected", the text with the lowest distance; "loss", the
        projection of the vectors with the lowest loss, as published.
    """

    outer_steps: int = 30
    inner_steps: int = 50
    rho: float = 0.5
    lr: float = 0.008
    clip: float = 1.0
    nearest: int = 200
    candidates: int = 500
    start_norm: float = 0.0
    distance: Distance = "cos"
    match: Literal["joint", "each"] = "joint"
    norm_weight: float = 0.0
    likelihood_weight: float = 0.0
    freeze_prompt: bool = True
    keep: Literal["projected", "loss"] = "projected"

    def __post_init__(self):
        for field in ("outer_steps", "inner_steps", "nearest", "candidates"):
            if (value := getattr(self, field)) < 1:
                raise UserError(f"admm.{field} is {value}: accepted is 1 or more")
        for field in ("rho", "lr"):
            if not 0.0 < (value := getattr(self, field)) < float("inf"):
                raise UserError(f"admm.{field} is {value}: accepted is a number above 0")
        for field in ("clip", "start_norm", "norm_weight", "likelihood_weight"):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"admm.{field} is {value}: accepted is 0 or more")
        if self.match == "each" and self.distance != "cos":
            raise UserError("admm.match each is for the distance cos")


@pytree
class Given:
    """What a solver reads and does not change.

    Attributes:
      params: of the language model.
      targets: of each class, leading axis c.
      allowed: tokens that texts may be made of.
      prefix: tokens that a text follows on while it is chosen, the lead included.
    """

    params: PyTree
    targets: Target
    allowed: Int[Array, " a"]
    prefix: Int[Array, " p"]


@pytree
class ADMMState:
    """Of rounds of texts, c classes x g rounds x b texts x t positions, the prompt's included.

    Attributes:
      x: embeddings.
      dual: lambda.
      moments: of Adam.
      best_x: those of the lowest score.
      best_ids: texts of the lowest score, without the prompt.
      best_score: see `ADMM.keep`.
      step: outer steps done.
    """

    x: Float[Array, "c g b t d"]
    dual: Float[Array, "c g b t d"]
    moments: PyTree
    best_x: Float[Array, "c g b t d"]
    best_ids: Int[Array, "c g b s"]
    best_score: Float[Array, "c g"]
    step: Int[Array, ""]


class Trace(NamedTuple):
    """Of each outer step, leading axis of steps: means over all rounds.

    Attributes:
      residual: |x - z| of a round.
      distance: of the embeddings.
      text_distance: of the projected text.
    """

    residual: Array
    distance: Array
    text_distance: Array


@dataclasses.dataclass(frozen=True)
class Solver:
    """The functions of a model, a form and settings; static, so that they are compiled once.

    Attributes:
      settings: see there.
      decoder: language model.
      form: of labelled texts; all classes share it.
      sketch: of sketched targets.
    """

    settings: ADMM
    decoder: Decoder
    form: Form
    sketch: Sketch | None = None

    def start(self, given: Given, rounds: int, texts: int, length: int, key: Key) -> ADMMState:
        """The best of random starts.

        Args:
          given: see there.
          rounds: g, of texts that are matched together.
          texts: b, of a round.
          length: positions of a text, the prompt not included.
          key: of the draws.
        """
        return _start(self, given, rounds, texts, length, key)

    def advance(self, given: Given, state: ADMMState, steps: int) -> tuple[ADMMState, Trace]:
        """So many outer steps, under one scan."""
        return _advance(self, given, state, steps)

    def finish(self, given: Given, state: ADMMState) -> tuple[Int[Array, "c g b s"], Float[Array, "c g"]]:
        """The texts, without the prompt, and the distance of each round."""
        return _finish(self, given, state)

    def parts(self, given: Given, x: Float[Array, "c g b t d"]) -> HeadParts:
        """The head's gradients at the last position, leading axes c, g and b."""
        classes, rounds, texts, length, width = x.shape
        count = classes * rounds * texts
        table = word_table(given.params)
        lead = table[jnp.asarray(self.form.lead, jnp.int32)]
        rows = x.reshape(count, length, width)
        rows = jnp.concatenate([jnp.broadcast_to(lead[None], (count, *lead.shape)), rows], axis=1)
        labels = jnp.repeat(jnp.arange(classes), rounds * texts)
        last = jnp.full(count, rows.shape[1] - 1, jnp.int32)
        found = label_parts(self.decoder, given.params, Batch(embeddings=rows), last, labels, self.form)
        return jax.tree.map(lambda y: y.reshape(classes, rounds, texts, -1), found)

    def distances(self, given: Given, x: Float[Array, "c g b t d"]) -> Float[Array, "c g"]:
        """Of each round to its class's target."""
        bias = self.decoder.config.head_bias

        def of_round(target: Target, parts: HeadParts) -> Array:
            if self.settings.match == "each":
                return jnp.mean(each_distance(target, parts, bias=bias, sketch=self.sketch))
            return head_distance(target, parts, self.settings.distance, bias=bias, sketch=self.sketch)

        return jax.vmap(jax.vmap(of_round, (None, 0)))(given.targets, self.parts(given, x))

    def text_distances(self, given: Given, ids: Int[Array, "c g b s"]) -> Float[Array, "c g"]:
        """The same of texts, which the prompt follows."""
        return self.distances(given, self.with_prompt(given, word_table(given.params)[ids]))

    def each_text_distance(self, given: Given, ids: Int[Array, "c g b s"]) -> Float[Array, "c g b"]:
        """Of every text by itself, by the cosine."""
        bias = self.decoder.config.head_bias
        parts = self.parts(given, self.with_prompt(given, word_table(given.params)[ids]))

        def of_class(target: Target, parts: HeadParts) -> Array:
            flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), parts)
            return each_distance(target, flat, bias=bias, sketch=self.sketch)

        return jax.vmap(of_class)(given.targets, parts).reshape(ids.shape[:3])

    def with_prompt(self, given: Given, text: Float[Array, "c g b s d"]) -> Float[Array, "c g b t d"]:
        prompt = word_table(given.params)[jnp.asarray(self.form.prompt, jnp.int32)]
        return jnp.concatenate([text, jnp.broadcast_to(prompt, (*text.shape[:3], *prompt.shape))], axis=3)

    def project(self, given: Given, u: Float[Array, "c g b t d"]) -> Int[Array, "c g b s"]:
        """The likely text nearest to the vectors, prompt left out."""
        text = u[..., : u.shape[3] - len(self.form.prompt), :]
        flat = text.reshape(-1, *text.shape[3:])
        ids = project(
            Model(self.decoder),
            given.params,
            given.prefix,
            flat,
            word_table(given.params),
            given.allowed,
            self.settings.nearest,
            jax.random.key(0),  # nothing is drawn
        )
        return ids.reshape(text.shape[:-1])

    def norm(self, given: Given) -> Float[Array, ""]:
        """Length of a vector at the start."""
        if self.settings.start_norm:
            return jnp.asarray(self.settings.start_norm, jnp.float32)
        return jnp.mean(jnp.linalg.norm(word_table(given.params)[given.allowed], axis=1))


@functools.partial(jax.jit, static_argnames=("solver", "rounds", "texts", "length"))
def _start(solver: Solver, given: Given, rounds: int, texts: int, length: int, key: Key) -> ADMMState:
    classes, width = len(solver.form.labels), word_table(given.params).shape[1]

    def draw(key: Key) -> Float[Array, "c g b t d"]:
        return solver.with_prompt(given, jax.random.normal(key, (classes, rounds, texts, length, width)))

    def best(carry: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], None]:
        x, score = carry
        other = draw(key)
        found = solver.distances(given, other)
        better = (found < score)[:, :, None, None, None]
        return (jnp.where(better, other, x), jnp.minimum(found, score)), None

    keys = jax.random.split(key, solver.settings.candidates)
    first = jnp.zeros((classes, rounds, texts, length + len(solver.form.prompt), width))
    (x, _), _ = jax.lax.scan(best, (first, jnp.full((classes, rounds), jnp.inf)), keys)
    text = x[..., :length, :]
    text = text * (solver.norm(given) / jnp.maximum(jnp.linalg.norm(text, axis=-1, keepdims=True), 1e-12))
    x = solver.with_prompt(given, text)
    return ADMMState(
        x=x,
        dual=jnp.zeros_like(x),
        moments=_adam(solver).init(x),
        best_x=x,
        best_ids=jnp.zeros((classes, rounds, texts, length), jnp.int32),
        best_score=jnp.full((classes, rounds), jnp.inf),
        step=jnp.zeros((), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("solver", "steps"), donate_argnames="state")
def _advance(solver: Solver, given: Given, state: ADMMState, steps: int) -> tuple[ADMMState, Trace]:
    return jax.lax.scan(lambda state, _: _outer_step(solver, given, state), state, length=steps)


@functools.partial(jax.jit, static_argnames="solver")
def _finish(solver: Solver, given: Given, state: ADMMState) -> tuple[Array, Array]:
    if solver.settings.keep == "loss":
        ids = solver.project(given, state.best_x)
        return ids, solver.text_distances(given, ids)
    ids = solver.project(given, state.x + state.dual / solver.settings.rho)
    score = solver.text_distances(given, ids)
    better = score < state.best_score
    return jnp.where(better[:, :, None, None], ids, state.best_ids), jnp.minimum(score, state.best_score)


def _outer_step(solver: Solver, given: Given, state: ADMMState) -> tuple[ADMMState, Trace]:
    settings, rho = solver.settings, solver.settings.rho
    length = state.best_ids.shape[3]
    x = solver.with_prompt(given, state.x[..., :length, :])
    ids = solver.project(given, x + state.dual / rho)
    z = solver.with_prompt(given, word_table(given.params)[ids])
    text_distance = solver.distances(given, z)
    optimizer = _adam(solver)

    def inner(carry: tuple[Array, PyTree], _: Any) -> tuple[tuple[Array, PyTree], tuple[Array, Array]]:
        x, moments = carry
        (_, found), gradient = jax.value_and_grad(_objective, argnums=2, has_aux=True)(
            solver, given, x, z, state.dual, ids
        )
        if settings.freeze_prompt:
            gradient = gradient.at[..., length:, :].set(0.0)
        return apply_optimizer(optimizer, _clipped(gradient, settings.clip), moments, x), found

    (x, moments), (losses, distances) = jax.lax.scan(inner, (x, state.moments), length=settings.inner_steps)
    dual = state.dual + rho * (x - z)
    score = text_distance if settings.keep == "projected" else losses[-1]
    better = score < state.best_score
    rows = better[:, :, None, None]
    state = ADMMState(
        x=x,
        dual=dual,
        moments=moments,
        best_x=jnp.where(rows[..., None], x, state.best_x),
        best_ids=jnp.where(rows, ids, state.best_ids),
        best_score=jnp.minimum(score, state.best_score),
        step=state.step + 1,
    )
    residual = jnp.mean(jnp.sqrt(jnp.sum(jnp.square(x - z), axis=(2, 3, 4))))
    return state, Trace(residual, jnp.mean(distances[-1]), jnp.mean(text_distance))


def _objective(
    solver: Solver, given: Given, x: Array, z: Array, dual: Array, ids: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The sum over rounds, which do not depend on one another; each one's loss and distance."""
    settings = solver.settings
    distance = solver.distances(given, x)
    away = x - z + dual / settings.rho
    loss = distance + settings.rho / 2 * jnp.sum(away * away, axis=(2, 3, 4))
    if settings.norm_weight:
        mean = jnp.mean(jnp.linalg.norm(x, axis=-1), axis=(2, 3))
        loss = loss + settings.norm_weight * (mean - solver.norm(given)) ** 2
    if settings.likelihood_weight:
        loss = loss + settings.likelihood_weight * _negative_likelihood(solver, given, x, ids)
    return jnp.sum(loss), (loss, distance)


def _negative_likelihood(solver: Solver, given: Given, x: Array, ids: Array) -> Float[Array, "c g"]:
    """Of the texts' tokens after the first, given the vectors before them; in nats a token."""
    text = x[..., : ids.shape[3], :]
    rows = text.reshape(-1, *text.shape[3:])
    logits = cast(Array, solver.decoder.apply({"params": given.params}, Batch(embeddings=rows)))
    targets = ids.reshape(-1, ids.shape[3])[:, 1:]
    scores = jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), targets[..., None], axis=2)
    return -jnp.mean(scores.reshape(*ids.shape[:2], -1), axis=2)


def _clipped(gradient: Float[Array, "c g b t d"], most: float) -> Float[Array, "c g b t d"]:
    """By the norm of each round."""
    if not most:
        return gradient
    norm = jnp.sqrt(jnp.sum(gradient * gradient, axis=(2, 3, 4), keepdims=True))
    return gradient * jnp.minimum(1.0, most / jnp.maximum(norm, 1e-12))


def _adam(solver: Solver) -> optax.GradientTransformation:
    return optax.adam(solver.settings.lr)
