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

    What a gradient keeps is what its scans hand out, a step behind the other. While it stays in
    the processor's cache, seeds that run together share the overhead of each operation; beyond,
    they wait for memory. Milliseconds for gradients of S seeds on two virtual devices, a core
    each, float32, jax 0.10.2, by the number of seeds together:

        S    B   T   D  H   kept by one      1     2     4     8
        64   16  50  8  32     1.4 MB     10.9  10.3   9.8  10.6
        256  32  50  2  16     1.4 MB     50.8  50.0  47.8  54.8
        16   32  64  16 64     7.0 MB     16.8  21.1  23.0  42.1

    Seeds whose matrices are decomposed, as for Lyapunov exponents, run one by one: batches of
    decompositions may wait for each other forever, as `jlstm.initializers.one_by_one` tells.

    Other platforms than a CPU, on which nothing was measured, run all of their share.
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
