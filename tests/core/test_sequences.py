"""`jlstm.unroll` against the float64 NumPy loop: values, and gradients by finite differences.

Shapes and options are static, so that each new combination of them compiles. They are therefore
drawn from a pool in which the choices of each option appear equally often; everything else
(weights, inputs, resets, masks, cotangents, directions) is drawn freely for each case.
"""

from functools import cache
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jlstm
from jlstm import reference
from tests.helpers.comparisons import dot, float64, norm, slope, unit_direction
from tests.helpers.draws import balanced

pytestmark = pytest.mark.usefixtures("x64")

F64, F32, BF16, F16 = jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16

# How far values, and gradients in units of their norm, may lie from the exact ones. The results
# have the dtype of params and xs together, but each gradient has that of what it belongs to.
TOLERANCE = {F64: 1e-12, F32: 3e-6, F16: 5e-3, BF16: 4e-2}
GRADIENT_TOLERANCE = {F64: 1e-8, F32: 1e-5, F16: 1e-2, BF16: 8e-2}


class Dtypes(NamedTuple):
    """Of params, of xs and the states, and the one that they have together."""

    params: Any
    xs: Any
    together: Any


class Setting(NamedTuple):
    """What is static in a case."""

    T: int
    B: tuple[int, ...]
    D: int
    H: int
    state: str | None
    initial_state: str | None
    marks: str
    reverse: bool
    chunk: Any
    states: bool
    dtypes: Dtypes


class Case(NamedTuple):
    """One case; the seed draws weights, inputs, cotangents and directions."""

    setting: Setting
    seed: int
    reset: np.ndarray | None
    mask: np.ndarray | None
    at_skipped_steps: float


F64_ALONE = Dtypes(F64, F64, F64)
CHOICES = {
    "T": (0, 1, 2, 3, 4, 5, 6, 7),
    "B": ((), (1,), (2,), (3,), (2, 3), (1, 2)),
    "D": (1, 2, 3),
    "H": (1, 2, 3, 4),
    "state": (None, "[H]", "[*B, H]"),
    "initial_state": (None, "[H]", "[*B, H]"),
    "marks": ("none", "reset", "mask", "reset and mask", "reset and mask"),
    "reverse": (False, True),
    "chunk": ("auto", None, 1, 2, 3, 5, 8),
    "states": (False, False, True),
    "dtypes": (
        *4 * [F64_ALONE],
        Dtypes(F32, F32, F32),
        Dtypes(F32, F64, F64),
        Dtypes(BF16, BF16, BF16),
        Dtypes(F16, F16, F16),
        Dtypes(BF16, F32, F32),
        Dtypes(F16, BF16, F32),
    ),
}


def pool(size: int) -> list[Setting]:
    return [with_fitting_chunk(Setting(**choice)) for choice in balanced(CHOICES, size)]


def with_fitting_chunk(setting: Setting) -> Setting:
    """A chunk reaches at most one step past the sequence, so that this edge is drawn often."""
    T, chunk = setting.T, setting.chunk
    return setting._replace(chunk=min(chunk, T + 1) if isinstance(chunk, int) else chunk)


@st.composite
def cases(draw, settings: list[Setting]) -> Case:
    setting = draw(st.sampled_from(settings))
    flags = hnp.arrays(bool, (setting.T, *setting.B))
    return Case(
        setting,
        seed=draw(st.integers(0, 2**32 - 1)),
        reset=draw(flags) if "reset" in setting.marks else None,
        mask=draw(flags) if "mask" in setting.marks else None,
        at_skipped_steps=draw(st.sampled_from([0.0, np.nan, np.inf])),
    )


def draw_arrays(case: Case):
    """The inputs `(params, xs, state, initial_state)`, a unit direction in them, cotangents."""
    T, B, D, H, *_ = setting = case.setting
    random = np.random.default_rng(case.seed)
    normal = random.standard_normal

    def normal_state(*shape: int) -> jlstm.LSTMState:
        return jlstm.LSTMState(normal(shape), normal(shape))

    shapes = {"[H]": (H,), "[*B, H]": (*B, H)}
    params = jlstm.LSTMParams(normal((D, 4 * H)), normal((H, 4 * H)), normal(4 * H))
    xs = normal((T, *B, D))
    state = setting.state and normal_state(*shapes[setting.state])
    initial_state = setting.initial_state and normal_state(*shapes[setting.initial_state])

    direction = unit_direction(random, (params, xs, state, initial_state))
    hs = normal_state(T, *B, H) if setting.states else normal((T, *B, H))
    cotangents = normal_state(*B, H), hs

    if case.mask is not None:
        xs[~case.mask] = case.at_skipped_steps
    params = jax.tree.map(lambda a: jnp.asarray(a, setting.dtypes.params), params)
    rest = jax.tree.map(lambda a: jnp.asarray(a, setting.dtypes.xs), (xs, state, initial_state))
    return (params, *rest), direction, cotangents


@cache
def compiled(setting: Setting):
    """The gradient of `dot(outputs, cotangents)`, and the outputs `(final_state, hs)`."""

    def run(inputs, reset, mask, cotangents):
        params, xs, state, initial_state = inputs
        outputs = jlstm.unroll(
            params,
            xs,
            state,
            initial_state=initial_state,
            reset=reset,
            mask=mask,
            reverse=setting.reverse,
            chunk=setting.chunk,
            return_states=setting.states,
        )
        return dot(outputs, cotangents), outputs

    return jax.jit(jax.grad(run, has_aux=True))


def loop(case: Case, inputs):
    """The outputs `(final_state, hs)` of the NumPy loop."""
    params, xs, state, initial_state = inputs
    final_state, hs, histories = reference.unroll(
        params,
        xs,
        state,
        initial_state=initial_state,
        reset=case.reset,
        mask=case.mask,
        reverse=case.setting.reverse,
    )
    return final_state, histories if case.setting.states else hs


def check(case: Case):
    dtypes = case.setting.dtypes
    inputs, direction, cotangents = draw_arrays(case)
    gradient, outputs = compiled(case.setting)(inputs, case.reset, case.mask, cotangents)
    inputs, gradient = float64(inputs), float64(gradient)

    (_, c), hs = outputs
    assert c.dtype == np.promote_types(dtypes.together, F32)
    assert case.setting.states or hs.dtype == dtypes.together
    tolerance = TOLERANCE[dtypes.together]
    expected = jax.tree.leaves(loop(case, inputs))
    for came, wanted in zip(jax.tree.leaves(float64(outputs)), expected, strict=True):
        np.testing.assert_allclose(came, wanted, rtol=tolerance, atol=tolerance)

    def objective(inputs) -> float:
        return dot(loop(case, inputs), cotangents)

    error = abs(dot(gradient, direction) - slope(objective, inputs, direction))
    assert np.isfinite(norm(gradient))
    assert error <= max(GRADIENT_TOLERANCE[dtype] for dtype in dtypes) * norm(gradient)


@settings(max_examples=200)
@given(case=cases(pool(12)))
def test_unroll_is_the_loop(case):
    check(case)


LEFT_OVER = [
    Setting(7, (2,), 2, 3, "[*B, H]", "[H]", "reset and mask", True, chunk, states, F64_ALONE)
    for chunk, states in ((3, True), (5, False))
]


@settings(max_examples=8)
@given(case=cases(LEFT_OVER))
def test_backwards_the_steps_that_fill_no_chunk_run_first(case):
    """One step is left over, or two."""
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@settings(max_examples=500)
@given(data=st.data())
def test_unroll_is_the_loop_in_two_thousand_cases(part, data):
    check(data.draw(cases(pool(256)[part::4])))
