"""The derivative rule leaves no weight in a loop, bounds its memory, and sees closures."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jlstm
from jlstm import LSTMParams, LSTMState, cells
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_like, draw_params, temporary_memory
from tests.helpers.jaxprs import shapes_in_loops
from tests.helpers.oracle import CELLS

T, B, D, H = 6, 5, 3, 7
F32 = jnp.float32
PLAIN = ["full_gate_recurrence", "projected", "layer_norm", "gru"]  # their products are more than z
AFFINE = [name for name in CELLS if name not in PLAIN]


def loss(params, xs, **options):
    state, hs = jlstm.unroll(params, xs, **options)
    return jnp.sin(hs).sum() + jnp.cos(state[-1]).sum()


@cells.affine(cells.Layout(LSTMParams, ("D 2H", "H 2H", "2H"), LSTMState, ("H", "H")))
def minimal(params, state, z):
    """A cell of one's own in the form of the variants: one gate."""
    f, g = jnp.split(z, 2, axis=-1)
    c_t = jax.nn.sigmoid(f) * (state.c - g) + g
    return LSTMState(jnp.tanh(c_t), c_t)


def test_what_a_cell_of_that_form_closes_over_is_differentiated_too(x64):
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


def weights_in_loops(derivative, init=jlstm.init, cell: Any = jlstm.cell):
    """The sizes of W and U that a scan carries, and of those that a product in it makes."""
    params = draw_like(jax.eval_shape(lambda key: init(key, D, H), jax.random.key(0)), 1, F32)
    xs = draw_array(2, (T, B, D))
    gradient = jax.grad(
        partial(loss, plan=jlstm.plans.Plan(derivative=derivative), chunk=None, cell=cell), (0, 1)
    )
    weights = {params.W.shape, params.W.T.shape, params.U.shape, params.U.T.shape}
    return [shapes & weights for shapes in shapes_in_loops(gradient, params, xs)]


def test_plain_autodiff_does_both():
    carried, made = weights_in_loops("plain")
    assert carried and made


@pytest.mark.parametrize("name", CELLS)
def test_no_loop_carries_or_makes_a_weight_of_an_affine_cell(name):
    carried, made = weights_in_loops("rule", CELLS[name].init, CELLS[name].cell)
    assert bool(carried) == bool(made) == (name not in AFFINE)


def test_nor_one_of_a_cell_of_ones_own():
    def init(key, D, H):
        return LSTMParams(*cells.init_gates("fg", key, D, H)[:3])

    assert weights_in_loops("rule", init, minimal) == [set(), set()]


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
