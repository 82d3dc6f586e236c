"""Clusters whose centres are wanted: k-means with restarts, on the sphere or around members, by class or over all.

The clustering of DaLLME-style distillation, after Tao et al., "Textual Dataset Distillation via Language Model
Embedding", Findings of EMNLP 2024. That work publishes neither code nor variant: everything beyond embed, cluster and
invert is ours.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, pytree
from jaxdistill.coresets.clusters import check_count, plus_plus

VARIANTS = ("euclidean", "spherical", "medoids")
RESTART_AXES = ("vmap", "map")
# Norms of a normalised space differ from 1 by rounding alone.
_UNIT = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """K clusters of n examples.

    Attributes:
      centres: of the clusters.
      assigned: the nearest centre of each example, ties to the first.
      medoids: the member nearest to each centre, ties to the first; where a cluster is empty (there are fewer distinct
        examples than clusters), the example nearest to it.
      sizes: members of each cluster.
      inertia: sum of the squared distances of all examples to their centres.
      history: inertia of the start and after each step of Lloyd's.
    """

    centres: Float32[np.ndarray, "k d"]
    assigned: Int32[np.ndarray, " n"]
    medoids: Int32[np.ndarray, " k"]
    sizes: Int32[np.ndarray, " k"]
    inertia: float
    history: Float32[np.ndarray, " t"]

    @property
    def shares(self) -> Float32[np.ndarray, " k"]:
        """Members of each cluster over all examples."""
        return (self.sizes / self.sizes.sum()).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledClusters:
    """Clusters of labelled examples, m of them.

    Attributes:
      clusters: of all examples. Made class by class, those of class 0 come first, K of each class, and inertia and
        history are sums over classes (one that is done keeps its last inertia).
      labels: p(class | cluster), one-hot where clusters were made class by class.
      shares: members of a cluster over the examples it was made of: those of its class, or all.
    """

    clusters: Clustering
    labels: Float32[np.ndarray, "m c"]
    shares: Float32[np.ndarray, " m"]


class _Blocks(NamedTuple):
    """Features cut in b blocks of m rows, and which rows are no padding."""

    features: Float[Array, "b m d"]
    present: Bool[Array, "b m"]


@pytree
class _State:
    """Clusters on the way: centres and those of the next step, the nearest centre of each row, centres tried, inertia
    of each of them, and whether the last ones were worth their while."""

    centres: Float[Array, "k d"]
    following: Float[Array, "k d"]
    assigned: Int[Array, " n"]
    steps: Int[Array, ""]
    history: Float[Array, " t"]
    improves: Bool[Array, ""]


def _sweep(blocks: _Blocks, centres: Float[Array, "k d"]) -> tuple[Array, Array, Array, Array]:
    """Nearest centres [n], squared distances to them [n], sums [k, d] and sizes [k] of the clusters, in one pass.

    Sums are matrix products with one-hot rows, which have the same bits each time also where scattered additions do
    not.
    """
    lengths = jnp.sum(centres * centres, axis=1)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def read(total: tuple[Array, Array], block: _Blocks) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        x, present = block
        nearest = jnp.argmin(lengths[None] - 2 * product(x, centres.T), axis=1).astype(jnp.int32)
        gap = x - centres[nearest]
        seen = present.astype(x.dtype)
        members = jax.nn.one_hot(nearest, len(centres), dtype=x.dtype) * seen[:, None]
        sums, sizes = total
        return (sums + product(members.T, x), sizes + jnp.sum(members, axis=0)), (nearest, jnp.sum(gap**2, 1) * seen)

    empty = (jnp.zeros_like(centres), jnp.zeros_like(lengths))
    (sums, sizes), (assigned, gaps) = jax.lax.scan(read, empty, blocks)
    return assigned.reshape(-1), gaps.reshape(-1), sums, sizes


def _nearest_members(
    blocks: _Blocks, points: Float[Array, "k d"], assigned: Int[Array, " n"]
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """The member of each cluster nearest to the cluster's point, ties to the first; False where there is none."""
    count, number = len(points), len(assigned)

    def read(_: None, block: tuple[_Blocks, Int[Array, " m"]]) -> tuple[None, Float[Array, " m"]]:
        (x, present), own = block
        return None, jnp.where(present, jnp.sum((x - points[own]) ** 2, axis=1), jnp.inf)

    _, gaps = jax.lax.scan(read, None, (blocks, assigned.reshape(blocks.present.shape)))
    gaps = gaps.reshape(-1)
    least = jax.ops.segment_min(gaps, assigned, num_segments=count)
    places = jnp.where((gaps == least[assigned]) & jnp.isfinite(gaps), jnp.arange(number), number)
    first = jax.ops.segment_min(places, assigned, num_segments=count)
    return jnp.minimum(first, number - 1).astype(jnp.int32), first < number


def _lloyd(
    blocks: _Blocks, key: Key, tolerance: Float[Array, ""], count: int, variant: str, iterations: int
) -> tuple[_State, Array, Array]:
    """One run from one start, with the nearest members of its centres and whether there are."""
    flat = blocks.features.reshape(-1, blocks.features.shape[-1])

    def updated(centres: Float[Array, "k d"], assigned: Array, gaps: Array, sums: Array, sizes: Array) -> Array:
        """The centres of the next step."""
        new = sums / jnp.maximum(sizes, 1.0)[:, None]
        if variant == "spherical":
            norms = jnp.linalg.norm(new, axis=1, keepdims=True)
            # Members that cancel have no mean direction: any centre is as good as the last one.
            new = jnp.where(norms > 1e-6, new / jnp.maximum(norms, 1e-6), centres)
        if variant == "medoids":
            new = flat[_nearest_members(blocks, new, assigned)[0]]
        empty = sizes == 0
        _, farthest = jax.lax.top_k(gaps, count)
        return jnp.where(empty[:, None], flat[farthest[jnp.maximum(jnp.cumsum(empty) - 1, 0)]], new)

    def step(state: _State) -> _State:
        centres = state.following
        assigned, gaps, sums, sizes = _sweep(blocks, centres)
        inertia, before = jnp.sum(gaps), state.history[state.steps]
        # As long as a cluster is empty, its next centre makes things better yet.
        improves = (inertia > 0) & ((before - inertia >= tolerance * before) | jnp.any(sizes == 0))
        steps = state.steps + 1
        history = state.history.at[steps].set(inertia)
        following = updated(centres, assigned, gaps, sums, sizes)
        return _State(centres, following, assigned, steps, history, improves)

    start = plus_plus(flat, count, key, blocks.present.reshape(-1))
    # Entry 0 is what the start is compared with, and cut off in the end.
    history = jnp.full(iterations + 2, jnp.nan, flat.dtype).at[0].set(jnp.finfo(flat.dtype).max)
    unassigned = jnp.zeros(len(flat), jnp.int32)
    first = _State(start, start, unassigned, jnp.zeros((), jnp.int32), history, jnp.asarray(True))
    found = jax.lax.while_loop(lambda state: state.improves & (state.steps <= iterations), step, first)
    return found, *_nearest_members(blocks, found.centres, found.assigned)


@functools.partial(jax.jit, static_argnames=("count", "variant", "iterations", "axis"))
def _best(
    blocks: _Blocks,
    keys: Key,
    tolerance: Float[Array, ""],
    *,
    count: int,
    variant: str,
    iterations: int,
    axis: str,
) -> tuple[_State, Array, Array]:
    """The run of least inertia, the first of several."""

    def run(key: Key) -> tuple[_State, Array, Array]:
        return _lloyd(blocks, key, tolerance, count, variant, iterations)

    runs = jax.vmap(run)(keys) if axis == "vmap" else jax.lax.map(run, keys)
    found = runs[0]
    best = jnp.argmin(found.history[jnp.arange(len(keys)), found.steps])
    return jax.tree.map(lambda leaf: leaf[best], runs)


def cluster(
    features: Float[np.ndarray, "n d"] | Float[Array, "n d"],
    count: int,
    key: Key,
    *,
    variant: str = "euclidean",
    restarts: int = 10,
    iterations: int = 100,
    tolerance: float = 1e-4,
    rows: int = 4096,
    axis: str = "vmap",
) -> Clustering:
    """Lloyd's k-means from several k-means++ starts (Arthur and Vassilvitskii 2007), the one of least inertia.

    Inertia never rises from step to step but for rounding. A cluster that is empty starts again at the vector farthest
    from its centre. A step costs 4 n k d operations a restart. Programs are compiled for n rounded up, to a power of
    two below `rows` and to a multiple of it above, so groups of like size share one.

    Args:
      features: of n examples, computed with as float32.
      count: clusters k.
      key: of all starts; the same key gives the same clusters (for the same `rows`).
      variant: "euclidean" has means for centres; "spherical" means scaled to length 1, for vectors of length 1;
        "medoids" the members nearest to the means, which among members have the least sum of squared distances.
      restarts: starts.
      iterations: steps at most.
      tolerance: a run ends when a step lowers the inertia by less than this share of it and no cluster is empty.
      rows: examples whose distances to all centres are in memory at once.
      axis: "vmap" runs all restarts at once, "map" one after another, with as much less memory and but for rounding the
        same result.

    Raises:
      UserError: fewer examples than clusters, features that are not finite, for "spherical" not of length 1, or a
        setting out of range.
    """
    features = np.asarray(features, np.float32)
    _check(features, count, variant, restarts, iterations, tolerance, rows, axis)
    blocks = _blocks(features, rows)
    keys, share = jax.random.split(key, restarts), jnp.asarray(tolerance, jnp.float32)
    best = _best(blocks, keys, share, count=count, variant=variant, iterations=iterations, axis=axis)
    found, medoids, there = jax.device_get(best)
    medoids = np.array(medoids)
    for k in np.flatnonzero(~there):
        medoids[k] = np.argmin(np.sum((features - found.centres[k]) ** 2, axis=1))
    history = found.history[1 : found.steps + 1]
    assigned = found.assigned[: len(features)]
    sizes = np.bincount(assigned, minlength=count).astype(np.int32)
    return Clustering(found.centres, assigned, medoids, sizes, float(history[-1]), history)


def cluster_by_class(
    features: Float[np.ndarray, "n d"] | Float[Array, "n d"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    count: int,
    key: Key,
    **options,
) -> LabelledClusters:
    """`count` clusters inside each class.

    Args:
      features: of n examples.
      labels: class of each.
      classes: c.
      count: clusters of a class.
      key: that of class i is `fold_in(key, i)`.
      **options: of `cluster`.

    Raises:
      UserError: a label that is no class, a class of fewer examples than clusters, or see `cluster`.
    """
    features = np.asarray(features, np.float32)
    _check_labels(labels, classes)
    members = [np.flatnonzero(labels == i) for i in range(classes)]
    for i, mine in enumerate(members):
        if len(mine) < count:
            raise UserError(f"class {i} has {len(mine)} examples: too few for {count} clusters")
    parts = [cluster(features[mine], count, jax.random.fold_in(key, i), **options) for i, mine in enumerate(members)]
    assigned = np.zeros(len(features), np.int32)
    for i, (mine, part) in enumerate(zip(members, parts, strict=True)):
        assigned[mine] = part.assigned + i * count
    longest = max(len(part.history) for part in parts)
    merged = Clustering(
        centres=np.concatenate([part.centres for part in parts]),
        assigned=assigned,
        medoids=np.concatenate([m[part.medoids] for m, part in zip(members, parts, strict=True)]).astype(np.int32),
        sizes=np.concatenate([part.sizes for part in parts]),
        inertia=sum(part.inertia for part in parts),
        history=np.sum([np.pad(part.history, (0, longest - len(part.history)), "edge") for part in parts], axis=0),
    )
    one_hot = np.repeat(np.eye(classes, dtype=np.float32), count, axis=0)
    return LabelledClusters(merged, one_hot, np.concatenate([part.shares for part in parts]))


def cluster_globally(
    features: Float[np.ndarray, "n d"] | Float[Array, "n d"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    count: int,
    key: Key,
    **options,
) -> LabelledClusters:
    """`classes * count` clusters of all examples, labelled by their members: p(c | k) = n_ck / n_k.

    A cluster without members (there are fewer distinct examples than clusters) has the label of its medoid.

    Args:
      features, labels, classes, **options: see `cluster_by_class`.
      count: clusters for each class there is.
      key: of the starts.

    Raises:
      UserError: a label that is no class, or see `cluster`.
    """
    features = np.asarray(features, np.float32)
    _check_labels(labels, classes)
    found = cluster(features, classes * count, key, **options)
    counts = np.zeros((classes * count, classes), np.float32)
    np.add.at(counts, (found.assigned, labels), 1.0)
    empty = np.flatnonzero(found.sizes == 0)
    counts[empty, labels[found.medoids[empty]]] = 1.0
    return LabelledClusters(found, counts / counts.sum(axis=1, keepdims=True), found.shares)


def _blocks(features: Float32[np.ndarray, "n d"], rows: int) -> _Blocks:
    number, width = features.shape
    rows = min(rows, 1 << (number - 1).bit_length())
    whole = -(-number // rows) * rows
    padded = np.zeros((whole, width), np.float32)
    padded[:number] = features
    return _Blocks(
        jnp.asarray(padded.reshape(-1, rows, width)), jnp.asarray((np.arange(whole) < number).reshape(-1, rows))
    )


def _check(
    features: Float32[np.ndarray, "n d"],
    count: int,
    variant: str,
    restarts: int,
    iterations: int,
    tolerance: float,
    rows: int,
    axis: str,
) -> None:
    check_count(count, len(features))
    for name, value, accepted in (("variant", variant, VARIANTS), ("axis", axis, RESTART_AXES)):
        if value not in accepted:
            raise UserError(f"clusters: {name} {value!r} is unknown; accepted are {', '.join(accepted)}")
    for name, number in (("restarts", restarts), ("iterations", iterations), ("rows", rows)):
        if number < 1:
            raise UserError(f"clusters: {name} is {number}; expected at least 1")
    if not 0.0 <= tolerance < 1.0:
        raise UserError(f"clusters: tolerance is {tolerance}; expected a share of the inertia, from 0 and below 1")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(f"clusters: the features of example {int(np.argmin(finite))} are not finite")
    if variant == "spherical":
        norms = np.linalg.norm(features, axis=1)
        wrong = np.flatnonzero(np.abs(norms - 1.0) > _UNIT)
        if len(wrong):
            raise UserError(
                f"clusters: the features of example {wrong[0]} have length {norms[wrong[0]]:.4g}; "
                "spherical clusters are for vectors of length 1"
            )


def _check_labels(labels: Int[np.ndarray, " n"], classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UserError(f"clusters: label {labels[wrong[0]]} of example {wrong[0]}; there are {classes} classes")
