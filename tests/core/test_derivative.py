"""The derivative rule agrees with plain autodiff, and leaves no weight in a loop."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

import jlstm
from jlstm import LSTMParams, LSTMState, cells
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params, temporary_memory
from tests.helpers.unroll_cases import CASES, Inputs, draw_flags, ours
from tests.helpers.variants import FAMILY, draw_carried, draw_like, draw_variant

# The last of these holds all that the others hold one by one; those wait for the slow suite.
ALL_IN_ONE = "reset, mask, reverse, chunk"
ONE_LAYER = ["learned initial state", ALL_IN_ONE]
ONE_BY_ONE = ["plain", "no state", "reset", "mask", "reverse", "chunk"]
T, B, D, H = 6, 5, 3, 7
F32 = jnp.float32
BY_JAX = jlstm.plans.Plan(derivative="plain")
PLAIN = ["full_gate_recurrence", "projected", "layer_norm", "gru"]  # their products are more than z
AFFINE = [name for name in FAMILY if name not in PLAIN]


def loss(params, xs, **options):
    state, hs = jlstm.unroll(params, xs, **options)
    return jnp.sin(hs).sum() + jnp.cos(state[-1]).sum()


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
    "name", [*ONE_LAYER, *(pytest.param(name, marks=pytest.mark.slow) for name in ONE_BY_ONE)]
)
def test_the_rule_is_plain_autodiff(x64, quick_compilation, name):
    case = CASES[name]
    inputs, flags = case.draw()
    rule = jax.jit(partial(transformed, case.ours))(inputs, flags)
    plain_autodiff = partial(case.ours, plan=BY_JAX)
    assert_close(rule, jax.jit(partial(transformed, plain_autodiff))(inputs, flags), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("precompute", [False, True])
def test_the_rule_by_columns_is_plain_autodiff(x64, quick_compilation, precompute):
    case = CASES[ALL_IN_ONE]
    inputs, flags = case.draw()
    by_columns = partial(case.ours, plan=jlstm.plans.Plan(precompute, "columns"))
    rule = jax.jit(partial(transformed, by_columns))(inputs, flags)
    plain_autodiff = partial(case.ours, plan=BY_JAX)
    assert_close(rule, jax.jit(partial(transformed, plain_autodiff))(inputs, flags), 1e-12)


@pytest.mark.slow
def test_a_cell_of_ones_own_takes_plain_autodiff(x64, quick_compilation):
    inputs, flags = CASES["reset"].draw()
    own = partial(ours, cell=lambda *step: jlstm.cell(*step))
    rule = jax.jit(partial(transformed, ours))(inputs, flags)
    assert_close(jax.jit(partial(transformed, own))(inputs, flags), rule, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", AFFINE)
def test_the_rule_of_a_variant_is_plain_autodiff(x64, quick_compilation, name):
    """Learned where sequences begin, with resets, skipped steps and chunks, backwards."""
    params, xs = draw_variant(name), draw_array(2, (3, 4, 2), jnp.float64)
    inputs, flags = Inputs(params, xs, None, draw_carried(name, ())), draw_flags(True, True)
    run = partial(ours, cell=FAMILY[name].cell, reverse=True, chunk=2)
    rule = jax.jit(partial(transformed, run))(inputs, flags)
    plain_autodiff = partial(transformed, partial(run, plan=BY_JAX))
    assert_close(rule, jax.jit(plain_autodiff)(inputs, flags), 1e-12)


@cells.affine(cells.Layout(LSTMParams, ("D 2H", "H 2H", "2H"), LSTMState, ("H", "H")))
def minimal(params, state, z):
    """A cell of one's own in the form of the variants: one gate."""
    f, g = jnp.split(z, 2, axis=-1)
    c_t = jax.nn.sigmoid(f) * (state.c - g) + g
    return LSTMState(jnp.tanh(c_t), c_t)


def test_what_a_cell_of_that_form_closes_over_is_differentiated_too(x64, quick_compilation):
    params, xs = draw_params(0, 2, 3, jnp.float64), draw_array(1, (4, 2), jnp.float64)

    def by_closure(scale):
        @cells.affine(minimal.layout)
        def scaled(params, state, z):
            return minimal.equations(params, state, scale * z)

        return unroll_minimal(params, scaled)

    def by_weights(scale):
        return unroll_minimal(jax.tree.map(lambda p: scale * p, params), minimal)

    def unroll_minimal(params, cell):
        W, U, b = params
        halves = LSTMParams(W[:, :6], U[:, :6], b[:6])
        return jnp.sin(jlstm.unroll(halves, xs, cell=cell)[1]).sum()

    at = jnp.asarray(0.7, jnp.float64)
    came, expected = (jax.jit(jax.value_and_grad(f))(at) for f in (by_closure, by_weights))
    assert_close(came, expected)


@pytest.mark.parametrize(
    "precompute, product, chunk, save",
    [
        (False, "rows", 3, "states"),
        (False, "rows", 2, "z"),
        (False, "joined", None, None),
        (False, "joined", 2, "states"),
        (False, "columns", 2, "z"),
        (True, "rows", None, None),
        (True, "rows", 2, None),
        (True, "columns", 2, "states"),
    ],
)
def test_every_plan_gives_the_same_numbers(
    x64, quick_compilation, precompute, product, chunk, save
):
    inputs, flags = CASES[ALL_IN_ONE].draw()
    plan = jlstm.plans.Plan(precompute, product, save)

    def gradient(**options):
        def number(inputs):
            state, hs = ours(inputs, flags, reverse=True, **options)
            return jnp.sin(hs).sum() + jnp.cos(state.c).sum()

        return jax.jit(jax.value_and_grad(number))(inputs)

    assert_close(gradient(plan=plan, chunk=chunk), gradient(plan=BY_JAX), 1e-12)


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


def weights_in_loops(derivative, init=jlstm.init, cell: Any = jlstm.cell):
    """The sizes of W and U that a scan carries, and of those that a product in it makes."""
    params = draw_like(jax.eval_shape(lambda key: init(key, D, H), jax.random.key(0)), 1, F32)
    xs = draw_array(2, (T, B, D))
    gradient = jax.grad(
        partial(loss, plan=jlstm.plans.Plan(derivative=derivative), chunk=None, cell=cell), (0, 1)
    )
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


@pytest.mark.parametrize("name", FAMILY)
def test_no_loop_carries_or_makes_a_weight_of_an_affine_cell(name):
    carried, made = weights_in_loops("rule", FAMILY[name].init, FAMILY[name].cell)
    assert bool(carried) == bool(made) == (name not in AFFINE)


def test_nor_one_of_a_cell_of_ones_own():
    def init(key, D, H):
        return LSTMParams(*cells.init_gates("fg", key, D, H)[:3])

    assert weights_in_loops("rule", init, minimal) == (set(), set())


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
