"""What does not fit a variant is refused by name, with what was expected and what came."""

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import jlstm as typed
from jlstm import cells as typed_cells

jlstm: Any = typed  # to a type checker, what is wrong on purpose would be an error
cells: Any = typed_cells

T, B, D, H = 5, 4, 2, 3


def ones(*shape):
    return np.ones(shape, np.float32)


def peephole(k=4, n=3):
    P = None if n == 0 else ones(n * H)
    return cells.PeepholeParams(ones(D, k * H), ones(H, k * H), ones(k * H), P)


def standard():
    return jlstm.LSTMParams(ones(D, 4 * H), ones(H, 4 * H), ones(4 * H))


def gru(width=D, H=H):
    return cells.GRUParams(ones(width, 3 * H), ones(H, 3 * H), ones(3 * H), ones(H))


def unroll(cell, params, xs=None, *args, **options):
    xs = ones(T, B, D) if xs is None else xs
    return partial(jlstm.unroll, params, xs, *args, cell=cell, **options)


def stack(params, *args, **options):
    return partial(jlstm.unroll_stack, params, ones(T, B, D), *args, **options)


def lstm_state(*shape):
    return jlstm.LSTMState(ones(*shape), ones(*shape))


REFUSALS = {
    "standard params": (
        unroll(cells.peephole, standard()),
        TypeError,
        "params: expected PeepholeParams, got LSTMParams(W=float32[2, 12], U=float32[3, 12]"
        ", b=float32[12])",
    ),
    "params of four gates": (
        unroll(cells.coupled_forget, peephole(4, 2)),
        ValueError,
        "params: expected PeepholeParams(W=[D, 3H], U=[H, 3H], b=[3H], P=[2H] or None), got "
        "PeepholeParams(W=float32[2, 12], U=float32[3, 12], b=float32[12], P=float32[6])",
    ),
    "peepholes too many": (
        unroll(cells.no_input_gate, peephole(3, 3)),
        ValueError,
        "params: expected PeepholeParams(W=[D, 3H], U=[H, 3H], b=[3H], P=[2H] or None), got "
        "PeepholeParams(W=float32[2, 9], U=float32[3, 9], b=float32[9], P=float32[9])",
    ),
    "no peepholes": (
        unroll(cells.peephole, peephole(4, 0)),
        TypeError,
        "params.P: expected an array of floats, got NoneType None",
    ),
    "params without axes": (
        unroll(cells.elman, cells.ElmanParams(ones(), ones(), ones())),
        ValueError,
        "params: expected ElmanParams(W=[D, H], U=[H, H], b=[H]), got "
        "ElmanParams(W=float32[], U=float32[], b=float32[])",
    ),
    "a projection the wrong way": (
        unroll(
            cells.projected,
            cells.ProjectedParams(ones(D, 12), ones(2, 12), ones(12), ones(2, 3)),
        ),
        ValueError,
        "params: expected ProjectedParams(W=[D, 4H], U=[R, 4H], b=[4H], V=[H, R], P=[3H] or None)"
        ", got ProjectedParams(W=float32[2, 12], U=float32[2, 12], b=float32[12]"
        ", V=float32[2, 3], P=None)",
    ),
    "xs of another D": (
        unroll(cells.gru, gru(), ones(T, B, 7)),
        ValueError,
        "xs: expected shape [T, *B, 2], got float32[5, 4, 7]",
    ),
    "xs without time": (
        unroll(cells.gru, gru(), ones(D)),
        ValueError,
        "xs: expected shape [T, *B, 2], got float32[2]",
    ),
    "another state": (
        unroll(cells.gru, gru(), None, lstm_state(B, H)),
        TypeError,
        "state: expected RNNState(h), got LSTMState(h=float32[4, 3], c=float32[4, 3])",
    ),
    "state of another size": (
        unroll(cells.peephole, peephole(), None, lstm_state(B, 7)),
        ValueError,
        "state.h: expected shape [4, 3] or [3], got float32[4, 7]",
    ),
    "initial state of h as wide as c": (
        unroll(
            cells.projected,
            cells.ProjectedParams(ones(D, 12), ones(2, 12), ones(12), ones(3, 2)),
            initial_state=lstm_state(H),
        ),
        ValueError,
        "initial_state.h: expected shape [4, 2] or [2], got float32[3]",
    ),
    "mask of batch before time": (
        unroll(cells.gru, gru(), mask=np.ones((B, T), bool)),
        ValueError,
        "mask: expected shape [5, 4], got bool[4, 5]",
    ),
    "cell, x of another D": (
        partial(cells.peephole, peephole(), lstm_state(B, H), ones(B, 7)),
        ValueError,
        "x: expected shape [*B, 2], got float32[4, 7]",
    ),
    "cell, state of a tuple": (
        partial(cells.gru, gru(), (ones(B, H),), ones(B, D)),
        TypeError,
        "state: expected RNNState(h), got tuple (float32[4, 3],)",
    ),
    "zero_state of another cell": (
        partial(jlstm.zero_state, gru(), cell=cells.elman),
        TypeError,
        "params: expected ElmanParams, got GRUParams(W=float32[2, 9], U=float32[3, 9]"
        ", b=float32[9], b_n=float32[3])",
    ),
    "stack, cell of one's own": (
        stack((gru(),), cell=lambda params, state, x: (state, x)),
        TypeError,
        "cell: expected a cell of jlstm, got function",
    ),
    "stack, too few cells": (
        stack((gru(), gru(H)), cell=(cells.gru,)),
        ValueError,
        "cell: expected 2 entries, got 1",
    ),
    "stack, layers that do not fit": (
        stack((gru(), gru(7)), cell=cells.gru),
        ValueError,
        "params[1].W: expected shape [3, 3H] after params[0] of 3 features, got float32[7, 9]",
    ),
    "stack, layers of another cell": (
        stack((gru(), gru(H))),
        TypeError,
        "params[0]: expected LSTMParams, got GRUParams",
    ),
    "stack, states of another cell": (
        stack((gru(),), (lstm_state(H),), cell=cells.gru),
        TypeError,
        "states[0]: expected RNNState(h), got LSTMState(h=float32[3], c=float32[3])",
    ),
    "stack, recurrent dropout without c": (
        stack((gru(),), cell=cells.gru, recurrent_dropout=0.5, key=jax.random.key(0)),
        ValueError,
        "recurrent_dropout: expected 0 for a cell with RNNState, got 0.5",
    ),
    "stack, zoneout without c": (
        stack((gru(),), cell=cells.gru, zoneout=0.5),
        ValueError,
        "zoneout.h: expected 0 for a cell with RNNState, got 0.5",
    ),
    "init_stack, too many inits": (
        partial(jlstm.init_stack, jax.random.key(0), D, (H,), init=(jlstm.init, jlstm.init)),
        ValueError,
        "init: expected 1 entries, got 2",
    ),
    "projected_size 0": (
        partial(cells.init_projected, jax.random.key(0), D, H, projected_size=0),
        ValueError,
        "projected_size: expected at least 1, got 0",
    ),
    "peepholes a number": (
        partial(cells.init_no_input_gate, jax.random.key(0), D, H, peepholes=1),
        TypeError,
        "peepholes: expected True or False, got int 1",
    ),
    "an activation of no name": (
        partial(cells.Activation, "swish"),
        ValueError,
        "name: expected one of affine, elu, hard_sigmoid, leaky_relu, relu, scaled_tanh, sigmoid"
        ", softplus, softsign, tanh, thresholded_relu, got 'swish'",
    ),
    "an activation without beta": (
        partial(cells.Activation, "elu", 1.0, 2.0),
        ValueError,
        "beta: expected None for elu, got 2.0",
    ),
    "an activation of a traced alpha": (
        partial(cells.Activation, "elu", ones()),
        TypeError,
        "alpha: expected a float, got float32[]",
    ),
    "options a dict": (
        partial(cells.general, {"clip": 1.0}),
        TypeError,
        "options: expected Options, got dict {'clip': 1.0}",
    ),
    "options.f a function": (
        partial(cells.general, cells.Options(f="sigmoid")),
        TypeError,
        "options.f: expected an Activation, got str 'sigmoid'",
    ),
    "options.clip negative": (
        partial(cells.general, cells.Options(clip=-1.0)),
        ValueError,
        "options.clip: expected a positive bound, got -1.0",
    ),
    "options.clip an array": (
        partial(cells.general, cells.Options(clip=ones())),
        TypeError,
        "options.clip: expected a float or None, got float32[]",
    ),
    "options.coupled a number": (
        partial(cells.general, cells.Options(coupled=1)),
        TypeError,
        "options.coupled: expected True or False, got int 1",
    ),
}


@pytest.mark.parametrize("call, error, message", REFUSALS.values(), ids=REFUSALS)
def test_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()
