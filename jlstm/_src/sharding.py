"""Meshes with explicit axes, on which the type of an array includes its sharding.

There each product would have to declare the sharding of its result. Instead each device runs the
recurrence on its share of the batch, and the gradient of the weights is summed once, after the
loop. If other axes are sharded, too, the whole recurrence runs with automatic axes, and
`result_shardings` reads the shardings of its results.
"""

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jlstm._src.cell import Layout, axes_of, shapes_of


def explicit_mesh(tree: Any) -> Any:
    """Returns the first mesh with explicit axes that holds an array of `tree`, or None."""
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree))
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def spec_of(array: Any) -> tuple:
    """Returns the mesh axes of each axis of an array: None, a name, or a tuple of names."""
    return tuple(jax.typeof(array).sharding.spec)


def parts_of(mesh: Any, spec: tuple) -> int:
    """Returns the number of parts into which the axes of `spec` cut an array."""
    return math.prod(mesh.shape[name] for name in _names(spec))


def result_shardings(mesh: Any, layout: Layout, params: Any, xs: Any) -> tuple[Any, Any]:
    """Returns the shardings of a state, and of its fields with a time axis in front.

    Time and batch are sharded as in `xs`, and the units of each field as the columns of the
    parameter that makes them, U first. One mesh axis for both raises `ValueError`.
    """
    T, *B, _ = spec_of(xs)
    shapes = shapes_of(layout)
    by_letter: dict[str, Any] = {}
    for field in ("U", *shapes):
        if getattr(params, field) is not None:
            _, letter = axes_of(shapes[field])[-1]
            by_letter.setdefault(letter, spec_of(getattr(params, field))[-1])
    units = [by_letter.get(axes_of(shape)[0][1]) for shape in layout.state_shapes]
    for name in _names(units):
        if name in _names((T, *B)):
            expected = "mesh axes for time and batch other than those for the columns of params"
            raise ValueError(f"xs: expected {expected}, got {name!r} for both")

    state = layout.state(*(_sharding(mesh, (*B, unit)) for unit in units))
    return state, layout.state(*(_sharding(mesh, (T, *B, unit)) for unit in units))


def batch_alone_is_sharded(params: Any, xs: Any) -> bool:
    """Whether no axis is sharded except those of the batch."""
    time, *_, features = spec_of(xs)
    others = [name for leaf in jax.tree.leaves(params) for name in spec_of(leaf)]
    return not any([time, features, *others])


def by_shares(function: Callable, mesh: Any, out_shardings: Any, in_specs: Any) -> Callable:
    """Returns a function that each device runs on its share of the arguments."""
    out_specs = jax.tree.map(lambda sharding: sharding.spec, out_shardings)
    run = jax.shard_map(function, mesh=mesh, in_specs=(in_specs,), out_specs=out_specs)

    def share(arguments):
        shardings = type(arguments)(*(_sharding(mesh, spec) for spec in in_specs))
        return run(jax.sharding.reshard(arguments, shardings))

    return share


def with_auto_axes(function: Callable, mesh: Any, out_shardings: Any) -> Callable:
    """Returns a function that runs `function` with automatic axes and shards its results."""
    explicit = mesh.explicit_axes
    return auto_axes(function, axes=explicit, out_sharding=out_shardings) if explicit else function


def on_any_mesh(sequence: str, axes_behind: int, result: Any) -> Callable[[Callable], Callable]:
    """Decorator that lets a function take arrays on a mesh with explicit axes.

    The results have the sharding of the argument `sequence [T, *B, …]`, whose last `axes_behind`
    axes follow `*B`. `result` names the leading axes of each result, "TB", "B", or "" for a
    replicated one: one string for all results, or a tree of strings.
    """

    def decorate(function):
        @wraps(function)
        def run(*args, **options):
            leaves, form = jax.tree.flatten((args, options))
            places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
            arrays = [leaves[k] for k in places]
            mesh = explicit_mesh(arrays)
            if mesh is None:
                return function(*args, **options)
            given = inspect.signature(function).bind(*args, **options).arguments[sequence]
            time, *batch = spec_of(given)[: given.ndim - axes_behind]
            specs = {"": (), "B": tuple(batch), "TB": (time, *batch)}
            shardings = jax.tree.map(lambda axes: _sharding(mesh, specs[axes]), result)

            def on_auto_axes(arrays):
                for k, array in zip(places, arrays, strict=True):
                    leaves[k] = array
                args, options = jax.tree.unflatten(form, leaves)
                return function(*args, **options)

            return with_auto_axes(on_auto_axes, mesh, shardings)(arrays)

        return run

    return decorate


def _sharding(mesh, spec):
    return NamedSharding(mesh, PartitionSpec(*spec))


def _names(spec):
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec)
    return [name for entry in entries for name in entry if name is not None]
