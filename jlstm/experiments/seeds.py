"""Maps a function over hundreds of seeds, in chunks, on all devices."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import chex
import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jlstm._src.checks import check, check_arrays, check_chunk, describe, is_legacy_key
from jlstm._src.sharding import with_auto_axes
from jlstm.experiments.chunks import auto_chunk


def over_seeds(
    fn: Callable[[Any], Any],
    keys: chex.ArrayTree,
    *,
    chunk: int | None | Literal["auto"] = "auto",
    devices: Sequence[Any] | None = None,
) -> Any:
    """Maps a pure function over seeds as `jax.vmap` does, on all devices and in little memory.

        out[s] = fn(keys[s])   for s = 0 … S - 1

    Every device runs an equal share of the seeds, chunk by chunk. If S is not a multiple of the
    number of slots, the last seed is repeated as padding and its extra results are discarded.
    Results equal those of `vmap` up to rounding. Outside a `jit`, every call compiles a program.

    Args:
      fn: a pure function of one seed's slice of `keys`. Arrays it closes over go to every device.
      keys: a pytree of arrays `[S, …]`: keys, settings, parameters, data.
      chunk: how many seeds a device runs together; memory grows with it. None is the whole share.
        "auto" is the number that fits the cache of a CPU, and None on other platforms.
      devices: where to run. None is `jax.local_devices()`, or the current device inside a
        `shard_map`. For devices of several processes, such as `jax.devices()` after
        `jax.distributed.initialize`, each process makes the same call and receives all results.

    Returns:
      The results of `fn`, each array with S in front, on the devices that computed it; use
      `jax.device_get` to combine it with arrays on one device.

    Raises:
      TypeError, ValueError: an argument is malformed; raised before anything is computed.

    >>> import jax, jlstm
    >>> keys = jax.random.split(jax.random.key(0), 5)
    >>> params = over_seeds(lambda key: jlstm.init(key, 2, 3), keys, chunk=2)
    >>> params.W.shape
    (5, 2, 12)
    """
    S = _check_leading_axis(keys)
    check_chunk(chunk)
    mesh = _mesh_of(devices)
    devices_used = 1 if mesh is None else mesh.size
    if S == 0:
        return jax.vmap(fn)(keys)
    if chunk == "auto":
        chunk = auto_chunk(fn, keys, jax.default_backend())
    share = math.ceil(S / devices_used)
    chunks = math.ceil(share / (chunk or share))
    length = math.ceil(share / chunks)  # equal chunks need little padding
    slots = np.minimum(np.arange(devices_used * chunks * length), S - 1)

    def run_share(keys):
        """Runs the share of one device, `[chunks * length, …]`."""
        if chunks == 1:
            return jax.vmap(fn)(keys)
        # The axis of a batch of one would cost memory and time.
        return jax.lax.map(fn, keys, batch_size=length if length > 1 else None)

    def run(keys):
        if len(slots) > S:
            keys = jax.tree.map(lambda leaf: leaf[slots], keys)
        run_all = run_share
        if mesh is not None:
            # Without check_vma, since a scan in fn may start from a constant, which does not vary.
            shared = PartitionSpec(mesh.axis_names)
            specs: Any = {"in_specs": shared, "out_specs": shared, "check_vma": False}
            own = mesh if isinstance(mesh, Mesh) else None  # None is the mesh in context
            run_all = jax.shard_map(run_share, mesh=own, **specs)
        out = jax.tree.map(lambda leaf: leaf[:S], run_all(keys))
        if isinstance(mesh, Mesh) and mesh.is_multi_process:
            out = jax.lax.with_sharding_constraint(out, NamedSharding(mesh, PartitionSpec()))
        return out

    if isinstance(mesh, AbstractMesh):
        run = with_auto_axes(run, mesh, NamedSharding(mesh, _spec(S, mesh)))
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(keys))
    if isinstance(mesh, Mesh) and not mesh.is_multi_process and not traced:
        keys = jax.device_put(keys, NamedSharding(mesh, _spec(S, mesh)))
    return jax.jit(run)(keys)


def _mesh_of(devices):
    """Returns the mesh of `devices`, or the mesh in context; None inside a `shard_map`."""
    context = jax.sharding.get_abstract_mesh()
    if devices is not None:
        right = isinstance(devices, Sequence) and all(isinstance(d, jax.Device) for d in devices)
        check(right, "devices", "devices of jax.devices()", devices, TypeError)
        if not devices or len(set(devices)) < len(devices):
            raise ValueError(f"devices: expected one or more, each once, got {list(devices)}")
        if not context.empty:
            expected = "None inside jax.set_mesh, whose devices share the seeds"
            raise ValueError(f"devices: expected {expected}, got {len(devices)} devices")
        return Mesh(np.array(devices), "seeds")
    if context.manual_axes:
        return None
    return Mesh(np.array(jax.local_devices()), "seeds") if context.empty else context


def _spec(S, mesh):
    """Returns the spec of an array of all seeds: sharded if S divides evenly, else replicated."""
    return PartitionSpec(None if S % mesh.size else mesh.axis_names)


def _check_leading_axis(keys: Any) -> int:
    """Checks that all arrays of a tree have the same leading axis; returns its length."""
    check_arrays("keys", keys)
    leaves = jax.tree.leaves(keys)
    if any(is_legacy_key(leaf) and leaf.ndim == 1 for leaf in leaves):
        raise ValueError(f"keys: expected keys of several seeds, got one key {describe(keys)}")
    lengths = {leaf.shape[:1] for leaf in leaves}
    check(len(lengths) == 1 and () not in lengths, "keys", "one leading axis", keys)
    return leaves[0].shape[0]
