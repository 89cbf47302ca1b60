"""Junk for an argument of a public function raises an error that names it, or runs.

Each call is a valid one in which one argument is replaced. `pytest -m slow` takes every pair.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jlstm
from jlstm import cells, gradients, initializers, plans
from jlstm.interop import gates

KEY = jax.random.key(0)
PARAMS = jlstm.LSTMParams(*(np.full(s, 0.1, np.float32) for s in ((2, 12), (3, 12), (12,))))
STATE = jlstm.LSTMState(*(np.zeros((4, 3), np.float32) for _ in "hc"))
XS = np.linspace(-1, 1, 48, dtype=np.float32).reshape(6, 4, 2)
ROW = XS[:, 0]
FLAGS = np.zeros((6, 4), bool)
STACK = (PARAMS, PARAMS._replace(W=np.full((3, 12), 0.1, np.float32)))


def squares(state, hs):
    return (hs**2).sum()


def squared_error(h, target):
    return ((h - target) ** 2).sum()


class Call(NamedTuple):
    """A valid call by keyword."""

    function: Callable
    arguments: dict[str, Any]


def call(function, *arguments, **options):
    bound = inspect.signature(function).bind(*arguments, **options)
    return Call(function, dict(bound.arguments))


GATE = gates.Gate(np.ones((3, 2)), np.ones((3, 3)), np.ones(3))
CALLS = [
    call(jlstm.init, KEY, 2, 3, forget_bias=1.0, dtype=jnp.float32),
    call(jlstm.zero_state, PARAMS, (4,)),
    call(jlstm.cell, PARAMS, STATE, XS[0]),
    call(jlstm.unroll, PARAMS, XS, STATE, initial_state=STATE, reset=FLAGS, mask=FLAGS, chunk=2),
    call(jlstm.unroll, PARAMS, XS, reverse=True, return_states=True, plan=plans.Plan()),
    call(jlstm.length_mask, np.array([1, 2]), 6),
    call(jlstm.episode_starts, FLAGS, previous_done=FLAGS[0]),
    call(jlstm.select, FLAGS[0], STATE, STATE),
    call(jlstm.init_stack, KEY, 2, (3, 3), bidirectional=False),
    call(jlstm.step_stack, STACK, (STATE, STATE), XS[0]),
    call(jlstm.unroll_stack, STACK, XS, dropout=0.1, zoneout=0.1, recurrent_dropout=0.1, key=KEY),
    call(plans.plan_for, 4, 2, 3, gates=4, platform="cpu"),
    call(plans.chunk_for, 6, 4, 2, 3, gates=4, platform="cpu"),
    call(initializers.chrono_bias, 10),
    call(initializers.forget_bias, 1.0),
    call(cells.init_gru, KEY, 2, 3),
    call(cells.init_peephole, KEY, 2, 3),
    call(cells.init_projected, KEY, 2, 3, projected_size=2),
    call(cells.init_gates, "ifgo", KEY, 2, 3),
    call(gates.pack_gates, {name: GATE for name in "ifgo"}),
    call(gates.unpack_gates, PARAMS, "ifgo"),
    call(gradients.gradient_flow, squares, PARAMS, ROW),
    call(gradients.state_jacobians, PARAMS, ROW),
    call(gradients.lyapunov_spectrum, PARAMS, ROW, k=2, warmup=1),
    call(gradients.truncation_study, squares, PARAMS, ROW, longest=3),
    call(gradients.input_sensitivity, PARAMS, ROW),
    call(gradients.memory_horizon, PARAMS, ROW, fraction=0.1),
    call(gradients.rtrl_gradient, squared_error, PARAMS, ROW, np.zeros((6, 3), np.float32)),
    call(gradients.fixed_points, PARAMS, ROW[0], STATE),
    call(gradients.leading_eigenvalue, lambda p: (p**2).sum(), np.ones(3, np.float32), key=KEY),
    call(gradients.hessian_trace, lambda p: (p**2).sum(), np.ones(3, np.float32), key=KEY),
]
# Arguments that your own function is or receives: an error in it is its own, and names nothing.
YOURS = {"loss", "step_loss", "targets", "params of leading_eigenvalue", "params of hessian_trace"}

JUNK: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "10**30": 10**30,
    "1.5": 1.5,
    "nan": float("nan"),
    "text": "x",
    "bytes": b"x",
    "an empty list": [],
    "a dict": {"a": 1},
    "an empty tuple": (),
    "an object": object(),
    "a scalar": np.array(3.0, np.float32),
    "an int array": np.ones((2, 3), int),
    "a float array": np.ones((2, 3), np.float32),
    "no elements": np.ones((0, 3), np.float32),
    "strings": np.array(["x"]),
    "complex": np.ones(3, complex),
    "objects": np.array([object()]),
    "a key": jax.random.key(1),
    "keys": jax.random.split(jax.random.key(1), 3),
    "a function": lambda *_: 0,
    "a class": int,
    "params": PARAMS,
    "a state": STATE,
    "no steps": XS[:0],
    "ints in place of xs": XS.astype(int),
    "nested": [[[1]]],
    "long": "x" * 10_000,
}


def names(call_):
    return f"{call_.function.__module__}.{call_.function.__name__}"


def check(at, name, junk):
    function, arguments = CALLS[at]
    given = {**arguments, name: JUNK[junk]}
    bound = inspect.signature(function).bind_partial()
    bound.arguments.update(given)
    try:
        function(*bound.args, **bound.kwargs)
    except (TypeError, ValueError) as error:
        text = str(error)
        if not {name, f"{name} of {function.__name__}"} & YOURS:
            assert "\n" not in text and len(text) < 500, text
            # Where two arguments do not fit, the other one may be named; starts are states.
            known = "|".join([*arguments, "state"])
            assert re.match(rf"({known})\b.*: ", text), f"no argument is named: {text}"


PAIRS = [(at, name) for at, one in enumerate(CALLS) for name in one.arguments]


@given(st.sampled_from(PAIRS), st.sampled_from(sorted(JUNK)))
@settings(max_examples=200, deadline=None)
def test_junk_is_refused_by_name_or_runs(pair, junk):
    check(pair[0], pair[1], junk)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(len(CALLS)), ids=[names(one) for one in CALLS])
def test_every_junk_for_every_argument(at):
    wrong = []
    for name in CALLS[at].arguments:
        for junk in JUNK:
            try:
                check(at, name, junk)
            except Exception as error:
                wrong.append(f"{name}={junk}: {type(error).__name__}: {str(error)[:150]}")
    assert not wrong, "\n".join(wrong)
