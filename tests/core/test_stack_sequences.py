"""`jlstm.unroll_stack` against the float64 NumPy loop: values and gradients.

Layers of different sizes, in one direction or both, over ragged and packed sequences. As in
test_sequences.py, what is static comes from a pool and all else is drawn freely.
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

F64, F32 = jnp.float64, jnp.float32
TOLERANCE = {F64: 1e-12, F32: 3e-6}
GRADIENT_TOLERANCE = {F64: 1e-8, F32: 1e-5}

ONE, BOTH = "one direction", "both directions"


class Setting(NamedTuple):
    """What is static in a case; `layers` are pairs of H and the directions."""

    T: int
    B: tuple[int, ...]
    D: int
    layers: tuple[tuple[int, str], ...]
    states: str | None
    initial_states: str | None
    marks: str
    chunk: Any
    dtype: Any


class Case(NamedTuple):
    """One case; the seed draws weights, inputs, cotangents and directions."""

    setting: Setting
    seed: int
    reset: np.ndarray | None
    mask: np.ndarray | None
    lengths: np.ndarray | None
    at_skipped_steps: float


CHOICES = {
    "T": (0, 1, 2, 3, 4, 5, 6, 7),
    "B": ((), (1,), (2,), (3,), (2, 2)),
    "D": (1, 2, 3),
    "layers": (
        ((3, ONE),),
        ((2, BOTH),),
        ((2, ONE), (2, ONE)),
        ((3, BOTH), (3, BOTH)),
        ((2, ONE), (4, ONE), (1, ONE)),
        ((1, BOTH), (3, BOTH), (2, BOTH)),
        ((2, ONE), (2, ONE), (2, ONE)),
        ((2, BOTH), (3, ONE)),
    ),
    "states": (None, "[H]", "[*B, H]"),
    "initial_states": (None, "[H]", "[*B, H]"),
    "marks": ("none", "ragged", "packed", "ragged and packed", "packed with holes"),
    "chunk": ("auto", None, 1, 2, 3),
    "dtype": (F64, F64, F64, F32),
}


def pool(size: int) -> list[Setting]:
    return [Setting(**choice) for choice in balanced(CHOICES, size)]


@st.composite
def cases(draw, settings: list[Setting]) -> Case:
    setting = draw(st.sampled_from(settings))
    T, B = setting.T, setting.B
    flags = hnp.arrays(bool, (T, *B))
    lengths = None
    mask = draw(flags) if "holes" in setting.marks else None
    if "ragged" in setting.marks:
        lengths = draw(hnp.arrays(np.int32, B, elements=st.integers(0, T)))
        mask = np.arange(T).reshape(T, *(1 for _ in B)) < lengths
    return Case(
        setting,
        seed=draw(st.integers(0, 2**32 - 1)),
        reset=draw(flags) if "packed" in setting.marks else None,
        mask=mask,
        lengths=lengths,
        at_skipped_steps=draw(st.sampled_from([0.0, np.nan, np.inf])),
    )


def draw_arrays(case: Case):
    """The inputs `(layers, xs, states, initial_states)`, a unit direction, and cotangents."""
    T, B, D, layers, *_ = setting = case.setting
    random = np.random.default_rng(case.seed)
    normal = random.standard_normal

    def draw_layers(draw_one):
        """One entry a layer, `draw_one(D, H)` for each direction of it."""
        entries, input_size = [], D
        for H, directions in layers:
            forward, backward = draw_one(input_size, H), draw_one(input_size, H)
            entry = forward if directions == ONE else jlstm.Bidirectional(forward, backward)
            entries.append(entry)
            input_size = H if directions == ONE else 2 * H
        return tuple(entries)

    def draw_params(D: int, H: int) -> jlstm.LSTMParams:
        return jlstm.LSTMParams(normal((D, 4 * H)), normal((H, 4 * H)), normal(4 * H))

    def draw_states(shape: str | None):
        leading = {"[H]": (), "[*B, H]": B}
        return shape and draw_layers(
            lambda _, H: jlstm.LSTMState(normal((*leading[shape], H)), normal((*leading[shape], H)))
        )

    params, xs = draw_layers(draw_params), normal((T, *B, D))
    inputs = params, xs, draw_states(setting.states), draw_states(setting.initial_states)
    direction = unit_direction(random, inputs)
    H, directions = layers[-1]
    ys = normal((T, *B, H if directions == ONE else 2 * H))
    cotangents = draw_states("[*B, H]"), ys

    if case.mask is not None:
        xs[~case.mask] = case.at_skipped_steps
    return jax.tree.map(lambda a: jnp.asarray(a, setting.dtype), inputs), direction, cotangents


@cache
def compiled(setting: Setting):
    """The gradient of `dot(outputs, cotangents)`, and the outputs `(states, ys)`."""

    def run(inputs, reset, mask, cotangents):
        params, xs, states, initial_states = inputs
        outputs = jlstm.unroll_stack(
            params,
            xs,
            states,
            initial_states=initial_states,
            reset=reset,
            mask=mask,
            chunk=setting.chunk,
        )
        return dot(outputs, cotangents), outputs

    return jax.jit(jax.grad(run, has_aux=True))


def loop(case: Case, inputs):
    """The outputs `(states, ys)` of the NumPy loop."""
    layers, xs, states, initial_states = inputs
    return reference.unroll_stack(
        layers, xs, states, initial_states=initial_states, reset=case.reset, mask=case.mask
    )


def check(case: Case):
    setting = case.setting
    inputs, direction, cotangents = draw_arrays(case)
    mask = case.mask if case.lengths is None else jlstm.length_mask(case.lengths, setting.T)
    gradient, outputs = compiled(setting)(inputs, case.reset, mask, cotangents)
    inputs, gradient = float64(inputs), float64(gradient)

    assert outputs[1].dtype == setting.dtype
    tolerance = TOLERANCE[setting.dtype]
    expected = jax.tree.leaves(loop(case, inputs))
    for came, wanted in zip(jax.tree.leaves(float64(outputs)), expected, strict=True):
        np.testing.assert_allclose(came, wanted, rtol=tolerance, atol=tolerance)

    def objective(inputs) -> float:
        return dot(loop(case, inputs), cotangents)

    error = abs(dot(gradient, direction) - slope(objective, inputs, direction))
    assert np.isfinite(norm(gradient))
    assert error <= GRADIENT_TOLERANCE[setting.dtype] * norm(gradient)


@pytest.mark.thorough
@settings(max_examples=200)
@given(case=cases(pool(8)))
def test_unroll_stack_is_the_loop(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@settings(max_examples=500)
@given(data=st.data())
def test_unroll_stack_is_the_loop_in_two_thousand_cases(part, data):
    check(data.draw(cases(pool(128)[part::4])))
