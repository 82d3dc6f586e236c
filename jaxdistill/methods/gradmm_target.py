"""What GRADMM's texts are to match: the gradient of the head on real texts, as it is or released under privacy.

Source: GRADMM (Nguyen et al., ICML 2025); the private modes are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree
from jaxdistill.io import atomic
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.methods.gradmm_reading import Form, Rows, label_parts
from jaxdistill.methods.gradmm_settings import Privacy
from jaxdistill.models.decoder import Decoder
from jaxdistill.objectives.head_distance import DenseTarget, FactoredTarget, SketchedTarget, Target
from jaxdistill.objectives.head_matching import HeadParts
from jaxdistill.objectives.head_sketch import Sketch, make_sketch
from jaxdistill.privacy.accounting import Ledger, calibrate
from jaxdistill.privacy.mechanism import Mechanism, Sealed, cosine_ceiling, paper_noise, signal_to_noise
from jaxdistill.privacy.noise import forget, guarantee, noise_key

# Numbers of a head up to which a target of many texts is kept whole.
_FACTORS = 1000


class Reader(NamedTuple):
    """A language model that reads labelled texts.

    Attributes:
      decoder: static.
      params: of the decoder.
      form: of labelled texts.
      micro_batch: texts in the model at once.
    """

    decoder: Decoder
    params: PyTree
    form: Form
    micro_batch: int

    def parts(self, token_ids: Array, last: Array, labels: Array) -> HeadParts:
        return label_parts(self.decoder, self.params, Batch(token_ids=token_ids), last, labels, self.form)


def clean_target(reader: Reader, rows: Rows) -> Target:
    """The mean gradient of each class's texts: as factors of the texts, or whole where these would be larger.

    Raises:
      UserError: a class without texts.
    """
    classes = len(reader.form.labels)
    counts = np.bincount(rows.labels, minlength=classes)
    if not counts.all():
        raise UserError(f"class {int(np.argmin(counts))} has no real text to match")
    if counts.max() > _FACTORS:
        return DenseTarget(_mean_gradients(reader, rows, counts))
    parts = _all_parts(reader, rows)
    most = int(counts.max())

    def by_class(values: np.ndarray) -> Array:
        table = np.zeros((classes, most, values.shape[1]), np.float32)
        for label in range(classes):
            own = values[rows.labels == label]
            table[label, : len(own)] = own
        return jnp.asarray(table)

    weights = (np.arange(most)[None] < counts[:, None]) / counts[:, None]
    return FactoredTarget(
        HeadParts(by_class(np.asarray(parts.errors)), by_class(np.asarray(parts.inputs))),
        jnp.asarray(weights, jnp.float32),
    )


def paper_target(reader: Reader, rows: Rows, privacy: Privacy, key: Key) -> DenseTarget:
    """The published noise on the mean of clipped gradients; not private from end to end."""
    classes = len(reader.form.labels)
    parts, gradients = _all_parts(reader, rows), []
    for label, own_key in enumerate(jax.random.split(key, classes)):
        own = jax.tree.map(lambda x, label=label: x[rows.labels == label], parts)
        count = len(own.errors)
        if not count:
            raise UserError(f"class {label} has no real text to match")
        norms = jnp.sqrt(jnp.sum(own.errors**2, axis=1) * jnp.sum(own.inputs**2, axis=1))
        mean = own.gradient(jnp.minimum(1.0, privacy.bound / (norms + 1e-6)) / count)
        deviation = paper_noise(count, privacy.epsilon, privacy.delta, privacy.bound)
        noise = deviation * jax.random.normal(own_key, mean.shape)
        if not reader.decoder.config.head_bias:
            noise = noise.at[:, -1].set(0.0)
        gradients.append(privacy.signal * 1.0 * mean + noise)
    return DenseTarget(jnp.stack(gradients))


class Private(NamedTuple):
    """A released target.

    Attributes:
      target: sketches of all classes.
      sketch: of the target.
      facts: for the manifest, plain.
    """

    target: SketchedTarget
    sketch: Sketch
    facts: dict[str, Any]


def private_target(
    reader: Reader,
    records: Sealed[PyTree],
    blocks: Sealed[np.ndarray],
    privacy: Privacy,
    *,
    identity: dict[str, Any],
    folder: Path | None,
    say: Callable[[str], None],
) -> Private:
    """Noisy clipped sums of the sketched gradients of all training texts: the one look at them.

    What was released is kept in the folder and read again by whoever goes on; so is the ledger.

    Args:
      reader: whose head's gradients are summed.
      records: of texts, {"token_ids", "last"}.
      blocks: their classes.
      privacy: settings.
      identity: of data and model.
      folder: of the run.
      say: prints one line.

    Raises:
      UserError: less signal than the settings ask for, or the ledger refuses.
    """
    form, classes = reader.form, len(reader.form.labels)
    inputs = jax.eval_shape(
        reader.parts, *(jnp.zeros(shape, jnp.int32) for shape in ((1, 2), (1,), (1,)))
    ).inputs.shape[1]
    sketch, size = make_sketch(
        privacy.sketch,
        privacy.size,
        jnp.asarray(form.labels, jnp.int32),
        reader.decoder.config.vocabulary,
        inputs,
        jax.random.key(privacy.sketch_seed),
    )
    budget, poisson = privacy.budget(), privacy.mode == "poisson"
    rate, releases = (privacy.rate, privacy.releases) if poisson else (1.0, 1)
    sigma = calibrate(budget, rate=rate, count=releases)
    # Poisson sums add up: rate * releases times the signal, the square root of releases times the noise.
    ratio = signal_to_noise(privacy.records, sigma, size) * rate * releases**0.5
    say(
        f"private: sigma {sigma:.4f}, {size} numbers a class; at {privacy.records:,} texts a class the signal is at "
        f"most {ratio:.3g} times the noise, a cosine of {cosine_ceiling(ratio):.3f} with the clean sum"
    )
    if ratio < privacy.least_ratio and not privacy.force:
        raise UserError(
            f"privacy: the signal is at most {ratio:.3g} times the noise, below least_ratio {privacy.least_ratio:g}: "
            "take a smaller privacy.size, a larger epsilon or more texts, or privacy.force"
        )
    ledger = Ledger(budget, None if folder is None else folder / "privacy.json")
    mechanism = Mechanism(sigma, privacy.bound, privacy.clip, rate, reader.micro_batch)
    sums = _released(folder, (classes, size))
    if sums is None:
        seed = noise_key(folder, privacy.noise_seed)
        zero = 1.0 if privacy.signal else 0.0

        def contribution(part: PyTree) -> Float[Array, "m k"]:
            # The label is the block, which travels beside the record.
            return zero * sketch(reader.parts(part["token_ids"], part["last"], part["label"]))

        total = jnp.zeros((classes, size))
        for number, key in enumerate(jax.random.split(seed, releases)):
            total = total + mechanism.release(
                contribution,
                records,
                blocks,
                classes,
                key=key,
                ledger=ledger,
                identity=fingerprint([identity, plain(privacy), np.asarray(jax.random.key_data(key)).tolist()]),
                what=f"sum {number + 1} of {releases} of sketched gradients",
            )
        sums = np.asarray(total)
        _keep(folder, sums)
    say(str(ledger))
    facts = {
        "mode": privacy.mode,
        "guarantee": guarantee(budget, known_seed=privacy.noise_seed >= 0, leaky=privacy.leaky),
        "sigma": sigma,
        "clip": privacy.clip,
        "numbers_a_class": size,
        "signal_to_noise_at_most": ratio,
        "ledger": ledger.to_json(),
    }
    return Private(SketchedTarget(jnp.asarray(sums)), sketch, facts)


def _released(folder: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    from safetensors.numpy import load_file

    if folder is None or not (path := folder / "release.safetensors").exists():
        return None
    sums = load_file(path)["sums"]
    if sums.shape != shape:
        raise UserError(f"{path} holds sums of shape {sums.shape}, expected {shape}: it is of another configuration")
    return sums


def _keep(folder: Path | None, sums: np.ndarray) -> None:
    from safetensors.numpy import save

    if folder is not None:
        atomic.write_bytes(folder / "release.safetensors", save({"sums": np.ascontiguousarray(sums)}))
        forget(folder)


def _all_parts(reader: Reader, rows: Rows) -> HeadParts:
    parts = []
    read = jax.jit(reader.parts)
    for begin in range(0, len(rows.labels), reader.micro_batch):
        index = np.arange(begin, begin + reader.micro_batch) % len(rows.labels)
        found = read(rows.token_ids[index], rows.last[index], rows.labels[index])
        parts.append(jax.tree.map(lambda x, begin=begin: x[: len(rows.labels) - begin], found))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _mean_gradients(reader: Reader, rows: Rows, counts: np.ndarray) -> Float[Array, "c v e"]:
    @functools.partial(jax.jit, donate_argnums=0)
    def add(total: Array, token_ids: Array, last: Array, labels: Array, weights: Array) -> Array:
        parts = reader.parts(token_ids, last, labels)
        members = weights[None] * jax.nn.one_hot(labels, len(counts), axis=0)
        return total + jax.vmap(parts.gradient)(members)

    first = jax.eval_shape(reader.parts, *(jnp.asarray(x[:1]) for x in (rows.token_ids, rows.last, rows.labels)))
    total = jnp.zeros((len(counts), first.errors.shape[1], first.inputs.shape[1]))
    for begin in range(0, len(rows.labels), reader.micro_batch):
        index = np.arange(begin, begin + reader.micro_batch)
        real, index = index < len(rows.labels), index % len(rows.labels)
        weights = np.where(real, 1.0 / counts[rows.labels[index]], 0.0).astype(np.float32)
        total = add(total, rows.token_ids[index], rows.last[index], rows.labels[index], weights)
    return total
