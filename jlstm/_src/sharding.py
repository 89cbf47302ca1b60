"""Meshes with explicit axes, on which the type of an array says how it is sharded.

Products, flattened axes and the derivative rule would each have to say how their results are
sharded. Instead the whole recurrence runs with automatic axes, and its results are given the
shardings that `result_shardings` reads from the arguments.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jlstm._src.cell import Layout, letters_of

try:
    from jax.sharding import AxisType, auto_axes
except (
    ImportError
):  # before jax 0.7
    AxisType = auto_axes = None


def explicit_mesh(tree: Any) -> Any:
    """Returns the mesh with explicit axes on which an array of `tree` lives, or None."""
    if AxisType is None:
        return None
    meshes = (jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree))
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)


def spec_of(array: Any) -> tuple:
    """Returns the mesh axes of each axis of an array: None, a name, or a tuple of names."""
    return tuple(jax.typeof(array).sharding.spec)


def parts_of(mesh: Any, spec: tuple) -> int:
    """Returns the number of parts into which the axes of `spec` cut an array."""
    return math.prod(mesh.shape[name] for name in _names(spec))


def result_shardings(mesh: Any, layout: Layout, params: Any, xs: Any) -> tuple[Any, Any]:
    """Returns the shardings of a state, and of its fields with a time axis in front.

    Time and batch are sharded as those of `xs`, and the units of each field as the columns of the
    parameter that makes them, U first.

    Raises:
      ValueError: one mesh axis would shard both the batch and the units.
    """
    T, *B, _ = spec_of(xs)
    shapes = dict(zip(layout.params._fields, layout.params_shapes, strict=True))
    by_letter: dict[str, Any] = {}
    for field in ("U", *shapes):
        if getattr(params, field) is not None:
            by_letter.setdefault(letters_of(shapes[field])[-1], spec_of(getattr(params, field))[-1])
    units = [by_letter.get(letters_of(shape)[0]) for shape in layout.state_shapes]
    for name in _names(units):
        if name in _names((T, *B)):
            expected = "mesh axes for time and batch other than those for the columns of params"
            raise ValueError(f"xs: expected {expected}, got {name!r} for both")

    def sharding(*spec):
        return NamedSharding(mesh, PartitionSpec(*spec))

    state = layout.state(*(sharding(*B, unit) for unit in units))
    return state, layout.state(*(sharding(T, *B, unit) for unit in units))


def with_auto_axes(function: Callable, mesh: Any, out_shardings: Any) -> Callable:
    """Returns `function` run with automatic axes; its results have the given shardings."""
    if auto_axes is None:
        return function
    explicit = (
        axis
        for axis, t in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if t == AxisType.Explicit
    )
    return auto_axes(function, axes=tuple(explicit), out_sharding=out_shardings)


def _names(spec):
    """Returns the names of mesh axes in a spec."""
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec)
    return [name for entry in entries for name in entry if name is not None]
