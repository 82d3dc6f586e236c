"""The device mesh, and how arrays lie on it.

One mesh with the axes "data" and "model" is made at the start of a run. Real batches and seeds are cut along "data",
large frozen parameters along "model", everything else is replicated; `jax.jit` does the rest from the shardings of
its arguments. The same calls serve one device, many devices and many hosts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, PyTree

Rules = Sequence[tuple[str, P]]


def make_mesh(devices: int | None = None, model: int = 1, *, backend: str | None = None) -> Mesh:
    """A mesh with the axes ("data", "model") over `devices` devices.

    Args:
      devices: how many devices to use, over all processes; `None` means all there are.
      model: how many of them share one copy of the parameters cut along "model".
      backend: whose devices; `None` means the default one.

    Raises:
      UserError: more devices asked for than exist, a number that `model` does not divide, or a part of the devices
        where there are several processes (some process would own none).
    """
    available = jax.devices(backend)
    wanted = len(available) if devices is None else devices
    if not 1 <= wanted <= len(available):
        raise UserError(
            f"{wanted} mesh devices were asked for, but this run has {len(available)} "
            f"({available[0].platform}); accepted: 1 to {len(available)}"
        )
    if jax.process_count() > 1 and wanted != len(available):
        raise UserError(
            f"{wanted} mesh devices were asked for in a run of {jax.process_count()} processes; "
            f"accepted: all {len(available)} devices"
        )
    if model < 1 or wanted % model:
        raise UserError(f"a model axis of {model} does not divide {wanted} mesh devices; accepted: its divisors")
    return jax.make_mesh(
        (wanted // model, model), ("data", "model"), (AxisType.Auto, AxisType.Auto), devices=available[:wanted]
    )


def pretend_cpu_devices(count: int) -> None:
    """Let this process's CPU pass for `count` devices, on which programs are compiled as for as many real ones.

    Raises:
      UserError: JAX has counted its devices already.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        raise UserError(f"{count} CPU devices must be asked for before anything of JAX touches a device") from None


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis (rows, examples or seeds) cut along "data"; the rest whole."""
    return NamedSharding(mesh, P("data"))


def put(tree: PyTree, sharding: NamedSharding | PyTree) -> PyTree:
    """Lay a tree out on a mesh.

    Every process passes the same whole arrays (batches are pure functions of seed and step, so this needs no
    communication) and uploads only what its own devices hold.

    Args:
      tree: numpy or JAX arrays, PRNG keys included.
      sharding: one for all leaves, or a tree with one for each; keys have a sharding that fits their data.
    """

    def put_leaf(leaf, sharding: NamedSharding):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put_leaf(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), leaf.shape)

    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: put_leaf(leaf, sharding), tree)
    return jax.tree.map(put_leaf, tree, sharding)


def gathered(tree: PyTree) -> PyTree:
    """The tree with every array that is cut over processes whole in host memory; all processes must call this together.

    Args:
      tree: arrays; those that this process can read already stay as they are.
    """

    def gather(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(gather, tree)


def shard_leading(mesh: Mesh, tree: PyTree) -> PyTree:
    """Cut the leading axis of every leaf along "data": a `Batch`, the keys of many seeds.

    Packed rows and the examples in them (`starts`, `labels`, `weights`) are cut each by their own number; `starts`
    keeps counting over all rows, as the program sees one global array.

    Raises:
      UserError: a leading axis is not a multiple of the data axis (`pad_leading` makes it one).
    """
    size = mesh.shape["data"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not leaf.shape or leaf.shape[0] % size:
            raise UserError(
                f"{_name(path) or 'array'} of shape {leaf.shape} cannot be cut over {size} data devices; "
                f"accepted: a leading axis that is a multiple of {size}"
            )
    return put(tree, batch_sharding(mesh))


def shard_batch(mesh: Mesh, batch: Batch) -> Batch:
    """Fill a batch up to a multiple of the data axis and cut it along "data".

    The weighted mean of a loss over the result is that over `batch`: filler examples have weight 0.
    """
    return shard_leading(mesh, pad_leading(batch, mesh.shape["data"]))


def pad_leading(batch: Batch, multiple: int) -> Batch:
    """Fill rows and examples up to a multiple of `multiple`, with zeros and examples of weight 0.

    Args:
      batch: numpy or JAX leaves; filled leaves become numpy.
      multiple: the size of the data axis.

    Returns:
      The batch itself if nothing is missing. Otherwise `weights` is always given, since it tells fillers apart.
    """
    leaves = {name: leaf for name, leaf in vars(batch).items() if leaf is not None}
    if all(leaf.shape[0] % multiple == 0 for leaf in leaves.values()):
        return batch
    # Unpacked, a row is an example.
    examples = next(leaves[k] for k in ("starts", "labels", "token_ids", "embeddings") if k in leaves).shape[0]
    leaves.setdefault("weights", np.ones((examples,), np.float32))
    return Batch(**{name: _fill(np.asarray(leaf), multiple) for name, leaf in leaves.items()})


def _fill(leaf: np.ndarray, multiple: int) -> np.ndarray:
    missing = -leaf.shape[0] % multiple
    return np.concatenate([leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)])


def rule_shardings(mesh: Mesh, params: PyTree, rules: Rules) -> PyTree:
    """Sharding of every parameter, from the first rule whose regular expression is found in its path.

    Args:
      mesh: the mesh.
      params: arrays, or their shapes from `jax.eval_shape`.
      rules: pairs of (regular expression for paths like "layers/0/attention/query/kernel", partition spec).
        Parameters without a rule are replicated.

    Raises:
      UserError: a spec has more axes than the parameter, or a mesh axis does not divide the parameter's.
    """

    def of_leaf(path, leaf) -> NamedSharding:
        name = _name(path)
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), P())
        parts = [_parts(mesh, axis) for axis in spec]
        if len(parts) > len(leaf.shape) or any(n % k for n, k in zip(leaf.shape, parts, strict=False)):
            raise UserError(
                f"sharding rule {spec} does not fit parameter {name} of shape {leaf.shape} on mesh {dict(mesh.shape)}; "
                "accepted: at most as many axes, each divided by its mesh axis"
            )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def _parts(mesh: Mesh, axis: str | tuple[str, ...] | None) -> int:
    """In how many pieces an entry of a partition spec cuts its axis."""
    names = () if axis is None else (axis,) if isinstance(axis, str) else axis
    return int(np.prod([mesh.shape[name] for name in names], dtype=int))


def init_sharded(init: Callable[[Key], PyTree], key: Key, mesh: Mesh, rules: Rules) -> PyTree:
    """Parameters born where they belong: no device ever holds the whole of what `rules` cut.

    Args:
      init: pure function from a key to parameters.
      key: its argument.
      mesh, rules: see `rule_shardings`.
    """
    shardings = rule_shardings(mesh, jax.eval_shape(init, key), rules)
    return jax.jit(init, out_shardings=shardings)(key)


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
