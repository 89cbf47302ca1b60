"""Chooses how many seeds run together on one device."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

BYTES, MOST = 5 * 2**20, 8
DECOMPOSITIONS = ("cholesky", "eig", "eigh", "lu", "qr", "schur", "svd", "triangular_solve")
SCANS = ("scan", "lstm")  # `unroll` is one operation until it is differentiated


def auto_chunk(fn: Callable[[Any], Any], keys: Any, platform: str) -> int | None:
    """Returns how many seeds save 5 MB together, from one to eight; None means all.

    A gradient saves the stacked outputs of its scans. While these fit into the cache of a CPU,
    seeds that run together share the overhead of each operation; docs/speed.md has measurements. On
    other platforms, which were not measured, all seeds of a device run together.

    A function that decomposes matrices runs seed by seed, since batches of decompositions may wait
    for each other forever; see `jlstm.initializers.one_by_one`.
    """
    if platform != "cpu":
        return None
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), keys)
    jaxpr = jax.make_jaxpr(fn)(one).jaxpr
    if decomposes(jaxpr):
        return 1
    return min(MOST, max(1, BYTES // max(1, handed_out(jaxpr))))


def handed_out(jaxpr: core.Jaxpr) -> int:
    """Counts the bytes of the outputs of all scans; a nested scan counts for one step."""
    scans = (equation for equation in _equations(jaxpr) if equation.primitive.name in SCANS)
    outs: list[Any] = [out.aval for scan in scans for out in scan.outvars]
    return sum(math.prod(out.shape) * out.dtype.itemsize for out in outs)


def decomposes(jaxpr: core.Jaxpr) -> bool:
    """Whether a jaxpr decomposes a matrix that `vmap` would batch."""
    names = (equation.primitive.name for equation in _equations(jaxpr, without="custom_vmap_call"))
    return any(name in DECOMPOSITIONS for name in names)


def _equations(jaxpr: core.Jaxpr, without: str | None = None) -> Iterator[core.JaxprEqn]:
    """Yields all equations of a jaxpr and of the jaxprs in it, such as the bodies of loops."""
    kinds = core.Jaxpr, core.ClosedJaxpr
    for equation in jaxpr.eqns:
        if equation.primitive.name != without:
            yield equation
            params = equation.params
            for value in jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, kinds)):
                if isinstance(value, kinds):
                    inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
                    yield from _equations(inner, without)
