"""How many seeds run together on one device, if nobody says."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

BYTES, MOST = 6 * 2**20, 8
DECOMPOSITIONS = ("cholesky", "eig", "eigh", "lu", "qr", "schur", "svd", "triangular_solve")
SCANS = ("scan", "lstm")  # an `unroll` that is not differentiated is one operation


def auto_chunk(fn: Callable[[Any], Any], keys: Any, platform: str) -> int | None:
    """As many seeds as keep 6 MB between them, at least one and at most eight; None is all.

    A gradient saves what its scans stack over time. While that stays in the processor's cache,
    seeds that run together share the overhead of each operation; beyond, they wait for memory. The
    guide to speed, docs/speed.md, has the measurements.

    Seeds whose matrices are decomposed, as for Lyapunov exponents, run one by one, since batches of
    decompositions may wait for each other forever; see `jlstm.initializers.one_by_one`.

    Platforms other than a CPU were not measured; there, all seeds of a share run together.
    """
    if platform != "cpu":
        return None
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), keys)
    jaxpr = jax.make_jaxpr(fn)(one).jaxpr
    if decomposes(jaxpr):
        return 1
    kept = handed_out(jaxpr)
    return min(MOST, max(1, BYTES // max(1, kept)))


def handed_out(jaxpr: core.Jaxpr) -> int:
    """The bytes of what all scans in a program hand out; of those inside of others, in one step."""
    scans = [equation for equation in jaxpr.eqns if equation.primitive.name in SCANS]
    outs: list[Any] = [out.aval for scan in scans for out in scan.outvars]
    own = sum(math.prod(out.shape) * out.dtype.itemsize for out in outs)
    return own + sum(handed_out(inner) for equation in jaxpr.eqns for inner in _inner(equation))


def decomposes(jaxpr: core.Jaxpr) -> bool:
    """Whether a program decomposes a matrix, which `vmap` would make a batch of."""
    return any(
        equation.primitive.name in DECOMPOSITIONS or any(map(decomposes, _inner(equation)))
        for equation in jaxpr.eqns
        if equation.primitive.name != "custom_vmap_call"
    )


def _inner(equation) -> Iterator[core.Jaxpr]:
    """The programs in an equation: the body of a loop, what is differentiated or compiled."""
    for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield getattr(value, "jaxpr", value)


def _is_jaxpr(value):
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
