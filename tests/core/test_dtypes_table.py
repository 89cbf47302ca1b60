"""Which dtype comes out of params, xs and state; what is carried and computed in between."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.helpers.jaxprs import equations

T, B, D, H = 3, 2, 2, 3
F64, F32, BF16, F16 = "float64", "float32", "bfloat16", "float16"
DTYPES = (F64, F32, BF16, F16)

# Of params and xs together. The state has no say: what is carried in is cast.
TOGETHER = {frozenset(pair): F32 for pair in itertools.product((F32, BF16, F16), repeat=2)}
PAIRS = list(itertools.product(DTYPES, repeat=2))
TOGETHER |= {frozenset({F64, other}): F64 for other in DTYPES}
TOGETHER |= {frozenset({BF16}): BF16, frozenset({F16}): F16}

pytestmark = pytest.mark.usefixtures("x64")


def draw(params, xs, state) -> Any:
    return draw_params(0, D, H, params), draw_array(1, (T, B, D), xs), draw_state(2, (B, H), state)


@pytest.mark.parametrize("state", (*DTYPES, None))
@pytest.mark.parametrize("xs", DTYPES)
@pytest.mark.parametrize("params", DTYPES)
def test_the_table(params, xs, state):
    together = TOGETHER[frozenset({params, xs})]
    arguments = draw(params, xs, state or F32)
    arguments = arguments if state else arguments[:2]
    (h, c), hs = jax.eval_shape(jlstm.unroll, *arguments)
    assert hs.dtype == h.dtype == together
    assert c.dtype == (F64 if together == F64 else F32)
    if state:
        carried, y = jax.eval_shape(jlstm.cell, arguments[0], arguments[2], arguments[1][0])
        assert y.dtype == together
        assert carried.h.dtype == carried.c.dtype == state


@pytest.mark.parametrize("derivative", ["value", "gradient"])
@pytest.mark.parametrize("params, xs", PAIRS)
def test_gates_and_the_cell_state_are_at_least_float32(params, xs, derivative):
    def loss(params, xs):
        (_, c), hs = jlstm.unroll(params, xs)
        return hs.astype(F32).sum() + c.astype(F32).sum()

    run = loss if derivative == "value" else jax.grad(loss)
    traced = equations(run, *draw(params, xs, F32)[:2])
    gates = [e for e in traced if e.primitive.name in ("tanh", "logistic")]
    assert gates
    assert {str(e.outvars[0].aval.dtype) for e in gates} <= {F32, F64}


@pytest.mark.parametrize("state, xs", PAIRS)
def test_the_cell_can_be_scanned_whatever_the_dtypes(state, xs):
    params, xs, state = draw(BF16, xs, state)

    def step(state, x):
        return jlstm.cell(params, state, x)

    final, _ = jax.eval_shape(lambda: jax.lax.scan(step, state, xs))
    assert [leaf.dtype for leaf in final] == [leaf.dtype for leaf in state]


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_a_thousand_steps_of_a_narrow_dtype_stay_close(dtype):
    key = jax.random.key(0)
    params = jlstm.init(key, 8, 32, dtype=dtype)
    xs = draw_array(1, (1000, 4, 8), dtype)
    exact = jax.tree.map(lambda p: p.astype(F64), params)
    (h, c), hs = jax.jit(jlstm.unroll)(params, xs)
    (exact_h, exact_c), exact_hs = jax.jit(jlstm.unroll)(exact, xs.astype(F64))
    assert hs.dtype == dtype and exact_hs.dtype == F64
    for came, expected in ((hs, exact_hs), (h, exact_h), (c, exact_c)):
        np.testing.assert_allclose(came.astype(F64), expected, rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", ["state", "initial_state"])
def test_a_weakly_typed_state_is_carried_as_a_strong_one(name):
    """A scan traces its body again for a carry whose type is weak at first and strong after."""
    params, xs, _ = draw(F32, F32, F32)

    def run(scale):
        h = jnp.full((H,), scale)
        assert h.weak_type
        options: dict[str, Any] = {name: jlstm.LSTMState(h, h)}
        return jlstm.unroll(params, xs, **options)

    scans = [e for e in equations(run, 0.0) if e.primitive.name == "scan"]
    assert scans
    assert not any(v.aval.weak_type for e in scans for v in e.invars)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(jax.eval_shape(run, 0.0)))


def test_scalars_given_as_rates_compile_once(compilations):
    layers = (draw_params(0, D, H, F32),)
    xs = draw_array(1, (T, B, D), F32)
    run = jax.jit(lambda rate: jlstm.unroll_stack(layers, xs, zoneout=rate)[1])
    run(0.1)
    before = compilations()
    run(0.2)
    assert compilations() == before
