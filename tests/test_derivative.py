"""The derivative rule agrees with plain autodiff, and leaves no weight in a loop."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_close
from cases import CASES, ours
from draws import draw_array, draw_params, temporary_memory
from jax.extend import core

import jlstm

# The last of these holds all that the others hold one by one; those wait for the slow suite.
ONE_LAYER = ["learned initial state", "reset, mask, reverse, chunk"]
ONE_BY_ONE = ["plain", "no state", "reset", "mask", "reverse", "chunk"]
T, B, D, H = 5, 2, 3, 7


def loss(params, xs, **options):
    state, hs = jlstm.unroll(params, xs, **options)
    return jnp.sin(hs).sum() + jnp.cos(state.c).sum()


def transformed(f, inputs, flags):
    """Value, gradient, jvp, both hvps and both jacobians of a case, joined in one tree."""

    def number(inputs):
        return jax.tree.reduce(jnp.add, jax.tree.map(lambda y: jnp.sin(y).sum(), f(inputs, flags)))

    direction = jax.tree.map(lambda leaf: draw_array(9, leaf.shape, leaf.dtype), inputs)
    grad = jax.grad(number)
    return (
        f(inputs, flags),
        grad(inputs),
        jax.jvp(partial(f, flags=flags), (inputs,), (direction,)),
        jax.jvp(grad, (inputs,), (direction,))[1],
        jax.vjp(grad, inputs)[1](direction),
        jax.jacfwd(f)(inputs, flags),
        jax.jacrev(f)(inputs, flags),
    )


@pytest.mark.parametrize(
    "name", ONE_LAYER + [pytest.param(name, marks=pytest.mark.slow) for name in ONE_BY_ONE]
)
def test_the_rule_is_plain_autodiff(x64, quick_compilation, name):
    case = CASES[name]
    inputs, flags = case.draw()
    rule = jax.jit(partial(transformed, case.ours))(inputs, flags)
    plain_autodiff = partial(case.ours, derivative="plain")
    assert_close(rule, jax.jit(partial(transformed, plain_autodiff))(inputs, flags), 1e-12)


def test_a_cell_of_ones_own_takes_plain_autodiff(x64, quick_compilation):
    inputs, flags = CASES["reset"].draw()
    own = partial(ours, cell=lambda *step: jlstm.cell(*step))
    rule = jax.jit(partial(transformed, ours))(inputs, flags)
    assert_close(jax.jit(partial(transformed, own))(inputs, flags), rule, 1e-12)


@pytest.mark.parametrize("hoist", [False, True])
@pytest.mark.parametrize(
    "chunk, keep", [(None, None), (None, "states"), (2, None), (2, "states"), (2, "z")]
)
def test_every_plan_gives_the_same_numbers(x64, quick_compilation, hoist, chunk, keep):
    inputs, flags = CASES["reset, mask, reverse, chunk"].draw()
    plan = jlstm.Plan(hoist=hoist, chunk=chunk, keep=keep)

    def gradient(**options):
        def number(inputs):
            state, hs = ours(inputs, flags, reverse=True, **options)
            return jnp.sin(hs).sum() + jnp.cos(state.c).sum()

        return jax.jit(jax.value_and_grad(number))(inputs)

    assert_close(gradient(plan=plan), gradient(derivative="plain"), 1e-12)


def scans(jaxpr):
    """Every scan in a program, those inside of others included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=is_jaxpr):
            if is_jaxpr(inner):
                yield from scans(getattr(inner, "jaxpr", inner))


def is_jaxpr(value):
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def weights_in_loops(derivative):
    """The sizes of weights that a scan carries, and of those that a product in it makes."""
    params, xs = draw_params(1, D, H), draw_array(2, (T, B, D))
    gradient = jax.grad(partial(loss, derivative=derivative, chunk=None), (0, 1))
    weights = {params.W.shape, params.W.T.shape, params.U.shape, params.U.T.shape}
    carried, made = set(), set()
    for scan in scans(jax.make_jaxpr(gradient)(params, xs).jaxpr):
        carried |= {var.aval.shape for var in scan.outvars} & weights  # else T stands in front
        body = next(
            inner for inner in jax.tree.leaves(scan.params, is_leaf=is_jaxpr) if is_jaxpr(inner)
        )
        dots = [e for e in getattr(body, "jaxpr", body).eqns if e.primitive.name == "dot_general"]
        made |= {dot.outvars[0].aval.shape for dot in dots} & weights
    return carried, made


def test_no_loop_carries_or_makes_a_weight():
    assert weights_in_loops("rule") == (set(), set())


def test_plain_autodiff_does_both():
    carried, made = weights_in_loops("plain")
    assert carried and made


@pytest.mark.parametrize(
    "sizes, megabytes",
    [((100, 256, 32, 64), 35), ((128, 32, 128, 256), 35), ((200, 8, 64, 128), 15)],
)
def test_the_memory_of_a_gradient_is_bounded(sizes, megabytes):
    T, B, D, H = sizes
    params = jax.eval_shape(lambda: draw_params(0, D, H))
    xs = jax.ShapeDtypeStruct((T, B, D), jnp.float32)
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(params, xs).compile()
    assert temporary_memory(compiled) < megabytes * 10**6
