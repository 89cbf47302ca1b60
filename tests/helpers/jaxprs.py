"""A walk through the operations of a traced function."""

from functools import partial

import jax
from jax.extend import core


def equations(f, *args):
    """Every operation that `f(*args)` traces to, those of inner programs included.

    Undifferentiated, a recurrence is the one operation `lstm`; the walk goes on inside of it.
    """
    yield from _walk(jax.make_jaxpr(f)(*args).jaxpr)


def inner(equation):
    """The programs that an operation holds: the body of a scan, for example."""
    if equation.primitive.name == "lstm":
        run = partial(equation.primitive.impl, **equation.params)
        yield jax.make_jaxpr(run)(*(v.aval for v in equation.invars)).jaxpr
    for value in jax.tree.leaves([*equation.params.values()], is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield getattr(value, "jaxpr", value)


def count(name: str, f, *args) -> int:
    """How many operations of a name `f(*args)` traces to."""
    return sum(equation.primitive.name == name for equation in equations(f, *args))


def scan_lengths(f, *args) -> set[int]:
    """The numbers of steps of all scans that `f(*args)` traces to."""
    found = equations(f, *args)
    return {equation.params["length"] for equation in found if equation.primitive.name == "scan"}


def shapes_in_loops(f, *args):
    """The shapes that scans carry or stack up, and those that products inside of scans make."""
    carried, made = set(), set()
    for scan in equations(f, *args):
        if scan.primitive.name == "scan":
            carried |= {var.aval.shape for var in scan.outvars}
            (body,) = inner(scan)
            dots = [e for e in body.eqns if e.primitive.name == "dot_general"]
            made |= {dot.outvars[0].aval.shape for dot in dots}
    return carried, made


def _walk(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for program in inner(equation):
            yield from _walk(program)


def _is_jaxpr(value):
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
