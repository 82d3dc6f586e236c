"""Training of an inverter and of its corrector: texts are learned back from their embeddings.

DaLLME-style, clean-room; noise on the embeddings, so that what lies beside them can be inverted too, is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import init_outer, make_update, warmup_schedule
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Key, PyTree
from jaxdistill.evaluation.recipes import decayed
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Run
from jaxdistill.methods.inversion import END, PADDING, START, Models, Texts, guessed, once_corrected
from jaxdistill.methods.loop import Fitted, Wording, fit
from jaxdistill.models.inverter import Guess, Inverter

# Positions that rows are padded to multiples of, and batches of like lengths that are put together.
_BUCKET, _WINDOW = 8, 16
_WORDING = Wording(
    step="step",
    gradient="its gradient",
    remedy="lower training.lr",
    diverged="the loss on dev was not finite in all {count} selections: lower training.lr",
)


@dataclasses.dataclass(frozen=True)
class InverterTraining:
    """AdamW on the likelihood of texts, given their embeddings.

    Attributes:
      updates: of the inverter.
      corrector_updates: of the corrector, in two halves: the first learns from the inverter's guesses, the second from
        the corrector's own; 0 trains none.
      rows: texts of a batch.
      lr: peak learning rate; it falls to 0 along half a cosine wave, in each half of the corrector's training anew.
      warmup: share of the updates.
      weight_decay: decoupled, of matrices.
      clip: largest global norm of the gradient.
      noise: standard deviation added to each number of an embedding, over that of the corpus.
      selections: how often dev is scored; the best parameters are kept.
      dtype: what matrix products run in.
    """

    updates: int = 4000
    corrector_updates: int = 4000
    rows: int = 64
    lr: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    noise: float = 0.1
    selections: int = 4
    dtype: str = "float32"

    def __post_init__(self):
        for field, least in {"updates": 1, "corrector_updates": 0, "rows": 1, "selections": 1}.items():
            if (value := getattr(self, field)) < least:
                raise UserError(f"training.{field} is {value}: accepted is {least} or more")
        if self.corrector_updates == 1:
            raise UserError("training.corrector_updates is 1: accepted are 0, and 2 or more, since it has two halves")
        for field in ("lr", "clip"):
            if not 0.0 < (value := getattr(self, field)) < float("inf"):
                raise UserError(f"training.{field} is {value}: accepted is a number above 0")
        for field in ("weight_decay", "noise"):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"training.{field} is {value}: accepted is a number from 0")
        if not 0.0 <= self.warmup < 1.0:
            raise UserError(f"training.warmup is {self.warmup}: accepted is a share in [0, 1)")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"training.dtype is {self.dtype!r}: accepted are float32, bfloat16")

    def optimizer(self, updates: int) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.scale_by_adam(0.9, 0.999, 1e-8),
            optax.add_decayed_weights(self.weight_decay, lambda params: decayed(params, norms=False)),
            optax.scale_by_learning_rate(warmup_schedule(self.lr, updates, self.warmup, shape="cosine")),
        )


class Pairs(NamedTuple):
    """Texts and what is known of them, on the host.

    Attributes:
      embeddings: of the texts.
      token_ids, lengths: see `methods.inversion.Tokens.encode`.
      guesses: what a corrector is given; `None` for an inverter.
    """

    embeddings: Float[np.ndarray, "n d"]
    token_ids: Int[np.ndarray, "n l"]
    lengths: Int[np.ndarray, " n"]
    guesses: Texts | None = None


def train_inverter(
    settings: InverterTraining,
    inverter: Inverter,
    params: PyTree,
    train: Pairs,
    dev: Pairs,
    *,
    updates: int,
    key: Key,
    run: Run,
) -> Fitted:
    """Train an inverter, or a corrector on pairs with guesses; the same call after an interruption goes on.

    Args:
      settings: see there.
      inverter: the module.
      params: where it begins; copied.
      train, dev: pairs; what does best on dev is kept.
      updates: in all.
      key: order of texts, noise.
      run: checkpoints, writers, stop signal.

    Raises:
      UserError: no texts, one without a token, an embedding that is not finite; the loss was not finite for long.
      Stopped: `run.stop()` said so; a checkpoint is kept.
    """
    for name, pairs in (("training", train), ("dev", dev)):
        if not len(pairs.lengths):
            raise UserError(f"inverter: there are no {name} texts")
        if not pairs.lengths.all():
            raise UserError(f"inverter: {name} text {int(np.argmin(pairs.lengths))} has no token")
        if not np.all(np.isfinite(pairs.embeddings)):
            raise UserError(f"inverter: an embedding of the {name} texts is not finite")
    order_key, step_key = jax.random.split(key)
    inverter = inverter.clone(dtype=jnp.dtype(settings.dtype))
    optimizer = settings.optimizer(updates)
    rows, seed = min(settings.rows, len(train.lengths)), numpy_seed(order_key)
    plan = _Plan(train, rows, seed)
    loss = _loss(inverter)

    def objective(learned: PyTree, state: PyTree, constants: Array, real_batch: dict, key: Key):
        noise = constants[None] * jax.random.normal(key, real_batch["embeddings"].shape)
        found = loss(learned, real_batch | {"embeddings": real_batch["embeddings"] + noise})
        return found, (state, {})

    deviations = jnp.asarray(settings.noise * np.std(train.embeddings, axis=0), jnp.float32)
    read = jax.jit(loss)
    dev_rows = [np.arange(begin, min(begin + rows, len(dev.lengths))) for begin in range(0, len(dev.lengths), rows)]
    dev_batches = [(int(dev.lengths[part].sum() + len(part)), _batch(dev, part)) for part in dev_rows]

    def select(learned: PyTree) -> tuple[float, dict[str, float]]:
        total = sum(count * float(read(learned, batch)) for count, batch in dev_batches)
        mean = total / sum(count for count, _ in dev_batches)
        return (-mean if np.isfinite(mean) else -np.inf), {"dev_loss": mean}

    count = min(settings.selections, updates)
    state = init_outer(jax.tree.map(lambda p: jnp.array(p, jnp.float32), params), optimizer)
    update: Any = jax.jit(make_update(objective, optimizer), donate_argnums=0)
    return fit(
        update,
        state,
        deviations,
        plan,
        updates=updates,
        select=select,
        select_at=tuple(round(updates * (i + 1) / count) for i in range(count)),
        key=step_key,
        run=run,
        place=lambda tree: jax.tree.map(jnp.asarray, tree),
        wording=_WORDING,
    )


def make_guesses(models: Models, pairs: Pairs, rows: int, *, label: str) -> Texts:
    """What a corrector is to correct: first guesses, or, of pairs that have guesses, these corrected once.

    Args:
      models: with a corrector where guesses are to be corrected.
      pairs: of texts.
      rows: texts at once.
      label: of the progress line.
    """
    total, found = len(pairs.lengths), []
    progress = Progress(label, total)
    try:
        for begin in range(0, total, rows):
            index = np.arange(begin, begin + rows) % total
            targets = jnp.asarray(pairs.embeddings[index], jnp.float32)
            if pairs.guesses is None:
                made = guessed(models, targets)
            else:
                own = jax.tree.map(lambda x, index=index: jnp.asarray(x[index]), pairs.guesses)
                made = once_corrected(models, targets, own)
            real = min(rows, total - begin)
            found.append(jax.tree.map(lambda x, real=real: np.asarray(x)[:real], made))
            progress.update(begin + real)
    finally:
        progress.close()
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


class _Plan:
    """The batch of each step: texts of like lengths together, in an order of each epoch's own."""

    def __init__(self, pairs: Pairs, rows: int, seed: int):
        self._pairs, self._rows, self._seed = pairs, rows, seed
        self._each = max(1, len(pairs.lengths) // rows)
        self._epoch, self._order = -1, np.zeros((0, rows), np.int64)

    def __call__(self, step: int) -> dict[str, Any]:
        epoch, place = divmod(step, self._each)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(len(self._pairs.lengths))[: self._each * self._rows]
            window = _WINDOW * self._rows
            parts = [order[begin : begin + window] for begin in range(0, len(order), window)]
            parts = [part[np.argsort(self._pairs.lengths[part], kind="stable")] for part in parts]
            self._epoch, self._order = epoch, rng.permutation(np.concatenate(parts).reshape(self._each, self._rows))
        return _batch(self._pairs, self._order[place])


def _batch(pairs: Pairs, rows: Int[np.ndarray, " r"]) -> dict[str, Any]:
    """What the loss reads of some pairs, cut to a length that holds them all."""
    lengths = pairs.lengths[rows]
    width = -(-(int(lengths.max()) + 1) // _BUCKET) * _BUCKET
    texts = np.full((len(rows), width), PADDING, np.int32)
    own = pairs.token_ids[rows][:, :width]
    texts[:, : own.shape[1]] = own
    places = np.arange(width)
    texts = np.where(places < lengths[:, None], texts, PADDING)
    made: dict[str, Any] = {
        "embeddings": pairs.embeddings[rows].astype(np.float32),
        "inputs": np.concatenate([np.full((len(rows), 1), START, np.int32), texts[:, :-1]], axis=1),
        "targets": np.where(places == lengths[:, None], END, texts).astype(np.int32),
        "weights": ((places <= lengths[:, None]) / float((lengths + 1).sum())).astype(np.float32),
    }
    if pairs.guesses is not None:
        guesses = pairs.guesses
        mask = np.arange(guesses.token_ids.shape[1]) < np.asarray(guesses.lengths)[rows][:, None]
        made["guess"] = Guess(guesses.token_ids[rows], mask, guesses.embeddings[rows])
    return made


def _loss(inverter: Inverter) -> Callable[[PyTree, dict[str, Any]], Float[Array, ""]]:
    """Mean cross-entropy over the tokens of a batch, end tokens included."""

    def loss(params: PyTree, batch: dict[str, Any]) -> Float[Array, ""]:
        logits: Any = inverter.apply({"params": params}, batch["embeddings"], batch["inputs"], batch.get("guess"))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch["targets"])
        return jnp.sum(batch["weights"] * losses)

    return loss
