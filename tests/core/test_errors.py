"""Every malformed argument is refused by name, with what was expected and what came.

The functions at the top call jlstm with arguments that fit each other, but for what is given.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer
from jax.extend.core import Primitive

import jlstm as typed

T, B, D, H = 5, 4, 2, 3
FLAX = " (flax's order is (c, h): jlstm.interop.state_from_flax)"
KEY = "key: expected a key from jax.random.key, or uint32[2] from jax.random.PRNGKey"
jlstm: Any = typed  # to a type checker, what is wrong on purpose would be an error

Bidirectional, plans = jlstm.Bidirectional, jlstm.plans
LSTMParams, LSTMState = jlstm.LSTMParams, jlstm.LSTMState
Gate, pack_gates = jlstm.interop.gates.Gate, jlstm.interop.gates.pack_gates
unpack_gates = jlstm.interop.gates.unpack_gates


def ones(*shape, dtype=jnp.float32):
    return np.ones(shape, dtype)


def flags(*shape):
    return np.ones(shape, bool)


def layer(input_size=D, hidden_size=H):
    shapes = (input_size, 4 * hidden_size), (hidden_size, 4 * hidden_size), (4 * hidden_size,)
    return LSTMParams(*(ones(*shape) for shape in shapes))


def state(*shape):
    return LSTMState(ones(*shape), ones(*shape))


def gates(**changed):
    return {name: Gate(ones(H, D), ones(H, H), ones(H, 1)) for name in "ifgo"} | changed


def unroll(params=None, xs=None, *args, **options):
    xs = ones(T, B, D) if xs is None else xs
    return lambda: jlstm.unroll(layer() if params is None else params, xs, *args, **options)


def own(xs=None, *args, **options):
    """`unroll` of a user's cell: a leaky sum over its inputs, unless another is given."""

    def leaky(params, state, x):
        return 0.9 * state + x, x

    xs = ones(T, B, D) if xs is None else xs
    return lambda: jlstm.unroll(None, xs, *args, **{"cell": leaky} | options)


def stack(params=None, xs=None, *args, **options):
    params = (layer(), layer(H, 2)) if params is None else params
    xs = ones(T, B, D) if xs is None else xs
    return lambda: jlstm.unroll_stack(params, xs, *args, **options)


def both(params=None, *args, **options):
    params = (Bidirectional(layer(), layer()), layer(2 * H)) if params is None else params
    return stack(params, None, *args, **options)


def cell(params=None, carried=None, x=None):
    arguments = layer() if params is None else params, carried or state(B, H)
    return lambda: jlstm.cell(*arguments, ones(B, D) if x is None else x)


def init(key: Any = "typed", *sizes, **options):
    key = jax.random.key(0) if isinstance(key, str) else key
    return lambda: jlstm.init(key, *(sizes or (D, H)), **options)


def init_stack(*sizes, key: Any = "typed", **options):
    key = jax.random.key(0) if isinstance(key, str) else key
    return lambda: jlstm.init_stack(key, *sizes, **options)


def key():
    return jax.random.key(0)


REFUSALS: dict[str, tuple[Callable, type, str]] = {
    # unroll: params
    "params a tuple": (
        unroll(tuple(layer())),
        TypeError,
        "params: expected LSTMParams, got tuple (float32[2, 12], float32[3, 12], float32[12])",
    ),
    "params of lists": (
        unroll(LSTMParams([1.0], ones(3, 12), ones(12))),
        TypeError,
        "params.W: expected an array of floats, got list [1.0]",
    ),
    "params of ints": (
        unroll(layer()._replace(b=ones(12, dtype=np.int32))),
        TypeError,
        "params.b: expected an array of floats, got int32[12]",
    ),
    "params that do not fit": (
        unroll(layer()._replace(U=ones(3, 8))),
        ValueError,
        "params: expected LSTMParams(W=[D, 4H], U=[H, 4H], b=[4H])"
        ", got LSTMParams(W=float32[2, 12], U=float32[3, 8], b=float32[12])",
    ),
    "params of many seeds": (
        unroll(jax.tree.map(lambda p: p[None], layer())),
        ValueError,
        "params: expected LSTMParams(W=[D, 4H], U=[H, 4H], b=[4H])"
        ", got LSTMParams(W=float32[1, 2, 12], U=float32[1, 3, 12], b=float32[1, 12])",
    ),
    # unroll: xs
    "xs a list": (
        unroll(None, [[1.0, 2.0]]),
        TypeError,
        "xs: expected an array of floats, got list [[1.0, 2.0]]",
    ),
    "xs of ints": (
        unroll(None, ones(T, B, D, dtype=np.int32)),
        TypeError,
        "xs: expected an array of floats, got int32[5, 4, 2]",
    ),
    "xs without time": (
        unroll(None, ones(D)),
        ValueError,
        "xs: expected shape [T, *B, 2], got float32[2]",
    ),
    "xs of another D": (
        unroll(None, ones(T, B, 7)),
        ValueError,
        "xs: expected shape [T, *B, 2], got float32[5, 4, 7]",
    ),
    # unroll: states
    "state a tuple": (
        unroll(None, None, (ones(H), ones(H))),
        TypeError,
        "state: expected LSTMState(h, c), got tuple (float32[3], float32[3])" + FLAX,
    ),
    "state a list": (
        unroll(None, None, [0.0]),
        TypeError,
        "state: expected LSTMState(h, c), got list [0.0]",
    ),
    "state of another H": (
        unroll(None, None, state(B, 7)),
        ValueError,
        "state.h: expected shape [4, 3] or [3], got float32[4, 7]",
    ),
    "state of another B": (
        unroll(None, None, state(2, H)),
        ValueError,
        "state.h: expected shape [4, 3] or [3], got float32[2, 3]",
    ),
    "state.c alone": (
        unroll(None, None, LSTMState(ones(H), ones(1))),
        ValueError,
        "state.c: expected shape [4, 3] or [3], got float32[1]",
    ),
    "state of numbers": (
        unroll(None, None, LSTMState(0.0, 0.0)),
        TypeError,
        "state.h: expected an array of floats, got float 0.0",
    ),
    "state of ints": (
        unroll(None, None, LSTMState(ones(H), ones(H, dtype=np.int32))),
        TypeError,
        "state.c: expected an array of floats, got int32[3]",
    ),
    "initial_state a tuple": (
        unroll(initial_state=(ones(H), ones(H))),
        TypeError,
        "initial_state: expected LSTMState(h, c), got tuple (float32[3], float32[3])" + FLAX,
    ),
    "initial_state of another B": (
        unroll(initial_state=state(5, H)),
        ValueError,
        "initial_state.h: expected shape [4, 3] or [3], got float32[5, 3]",
    ),
    # unroll: reset and mask
    "reset a list": (
        unroll(reset=[True]),
        TypeError,
        "reset: expected an array of bool, got list [True]",
    ),
    "reset of ints": (
        unroll(reset=ones(T, B, dtype=np.int32)),
        TypeError,
        "reset: expected an array of bool, got int32[5, 4]",
    ),
    "reset without B": (
        unroll(reset=flags(T)),
        ValueError,
        "reset: expected shape [5, 4], got bool[5]",
    ),
    "reset too long": (
        unroll(reset=flags(T + 1, B)),
        ValueError,
        "reset: expected shape [5, 4], got bool[6, 4]",
    ),
    "mask of floats": (
        unroll(mask=ones(T, B)),
        TypeError,
        "mask: expected an array of bool, got float32[5, 4]",
    ),
    "mask of batch before time": (
        unroll(mask=flags(B, T)),
        ValueError,
        "mask: expected shape [5, 4], got bool[4, 5]",
    ),
    "mask with features": (
        unroll(mask=flags(T, B, D)),
        ValueError,
        "mask: expected shape [5, 4], got bool[5, 4, 2]",
    ),
    "mask too short": (
        unroll(mask=flags(T - 1, B)),
        ValueError,
        "mask: expected shape [5, 4], got bool[4, 4]",
    ),
    # unroll: chunk
    "chunk 0": (
        unroll(chunk=0),
        ValueError,
        "chunk: expected at least 1, got 0",
    ),
    "chunk negative": (
        unroll(chunk=-3),
        ValueError,
        "chunk: expected at least 1, got -3",
    ),
    "chunk a float": (
        unroll(chunk=2.0),
        TypeError,
        "chunk: expected an int, got float 2.0",
    ),
    "chunk a bool": (
        unroll(chunk=True),
        TypeError,
        "chunk: expected an int, got bool True",
    ),
    "chunk another word": (
        unroll(chunk="none"),
        ValueError,
        "chunk: expected an int, None or 'auto', got 'none'",
    ),
    # unroll: what must be static
    "reverse a number": (
        unroll(reverse=1),
        TypeError,
        "reverse: expected True or False, got int 1",
    ),
    "states an array": (
        unroll(return_states=ones()),
        TypeError,
        "return_states: expected True or False, got float32[]",
    ),
    "plan a dict": (
        unroll(plan={"precompute": True}),
        TypeError,
        "plan: expected a Plan or None, got dict {'precompute': True}",
    ),
    "plan that precomputes by a number": (
        unroll(plan=plans.Plan(precompute=1)),
        TypeError,
        "plan.precompute: expected True or False, got int 1",
    ),
    "plan with another product": (
        unroll(plan=plans.Plan(product="row")),
        ValueError,
        "plan.product: expected 'rows' or 'joined' or 'columns', got 'row'",
    ),
    "plan that precomputes and joins": (
        unroll(plan=plans.Plan(True, "joined")),
        ValueError,
        "plan.product: expected 'rows' or 'columns' to precompute, got 'joined'",
    ),
    "plan that saves all": (
        unroll(plan=plans.Plan(save=True)),
        ValueError,
        "plan.save: expected 'states' or 'z', got True",
    ),
    "plan with another derivative": (
        unroll(plan=plans.Plan(derivative="auto")),
        ValueError,
        "plan.derivative: expected 'rule' or 'plain', got 'auto'",
    ),
    # unroll of a user's cell
    "own cell not a function": (
        own(None, ones(D), cell="lstm"),
        TypeError,
        "cell: expected a function (params, state, x), got str 'lstm'",
    ),
    "own cell that returns no pair": (
        own(None, ones(B, D), cell=lambda params, state, x: x),
        TypeError,
        "cell: expected a pair (state, y), got float32[4, 2]",
    ),
    "own cell without a state": (
        own(),
        ValueError,
        "state: a cell of your own expects state or initial_state, got neither",
    ),
    "own cell, mask too long": (
        own(None, ones(D), mask=flags(6, B)),
        ValueError,
        "mask: expected shape [T, *B], got bool[6, 4] with xs float32[5, 4, 2]",
    ),
    "own cell, reset of ints": (
        own(None, ones(D), reset=ones(T, dtype=np.int32)),
        TypeError,
        "reset: expected an array of bool, got int32[5]",
    ),
    "own cell, xs of numbers": (
        own([1.0], ones(D)),
        TypeError,
        "xs: expected arrays, got list [1.0]",
    ),
    "own cell, xs without time": (
        own(np.float32(1), ones(D)),
        ValueError,
        "xs: expected one time axis in front, got float32[]",
    ),
    "own cell, xs of two times": (
        own((ones(5), ones(6)), ones(D)),
        ValueError,
        "xs: expected one time axis in front, got tuple (float32[5], float32[6])",
    ),
    "own cell, initial_state of another form": (
        own(None, ones(D), initial_state=(ones(D),)),
        TypeError,
        "initial_state: expected float32[4, 2], got tuple (float32[2],)",
    ),
    # cell
    "cell, x of another D": (
        cell(x=ones(B, 7)),
        ValueError,
        "x: expected shape [*B, 2], got float32[4, 7]",
    ),
    "cell, x a number": (
        cell(x=1.0),
        TypeError,
        "x: expected an array of floats, got float 1.0",
    ),
    "cell, x without axes": (
        cell(x=np.float32(1)),
        ValueError,
        "x: expected shape [*B, 2], got float32[]",
    ),
    "cell, x of ints": (
        cell(x=ones(B, D, dtype=np.int32)),
        TypeError,
        "x: expected an array of floats, got int32[4, 2]",
    ),
    "cell, state a tuple": (
        cell(carried=tuple(state(B, H))),
        TypeError,
        "state: expected LSTMState(h, c), got tuple (float32[4, 3], float32[4, 3])" + FLAX,
    ),
    "cell, state of another H": (
        cell(carried=state(B, 5)),
        ValueError,
        "state.h: expected shape [4, 3] or [3], got float32[4, 5]",
    ),
    "cell, state of another B": (
        cell(carried=state(2, H)),
        ValueError,
        "state.h: expected shape [4, 3] or [3], got float32[2, 3]",
    ),
    "cell, params a tuple": (
        cell(tuple(layer())),
        TypeError,
        "params: expected LSTMParams, got tuple (float32[2, 12], float32[3, 12], float32[12])",
    ),
    # init
    "init, an array that is no key": (
        init(np.zeros(2, np.int32)),
        TypeError,
        f"{KEY}, got int32[2]",
    ),
    "init, a seed": (
        init(0),
        TypeError,
        f"{KEY}, got int 0",
    ),
    "init, many keys": (
        init(jax.random.split(key())),
        ValueError,
        "key: expected one key, got keys of shape [2]",
    ),
    "init, size 0": (
        init("typed", 0, H),
        ValueError,
        "input_size: expected at least 1, got 0",
    ),
    "init, size negative": (
        init("typed", D, -1),
        ValueError,
        "hidden_size: expected at least 1, got -1",
    ),
    "init, size a text": (
        init("typed", D, "3"),
        TypeError,
        "hidden_size: expected an int, got str '3'",
    ),
    "init, size a float": (
        init("typed", D, 3.0),
        TypeError,
        "hidden_size: expected an int, got float 3.0",
    ),
    # init_stack
    "init_stack, one size": (
        init_stack(D, H),
        TypeError,
        "hidden_sizes: expected a tuple with an entry a layer, got int 3",
    ),
    "init_stack, a list": (
        init_stack(D, [H]),
        TypeError,
        "hidden_sizes: expected a tuple with an entry a layer, got list [3]",
    ),
    "init_stack, no layers": (
        init_stack(D, ()),
        ValueError,
        "hidden_sizes: expected one or more entries, got 0",
    ),
    "init_stack, size 0": (
        init_stack(D, (H, 0)),
        ValueError,
        "hidden_sizes[1]: expected at least 1, got 0",
    ),
    "init_stack, size a float": (
        init_stack(D, (2.0,)),
        TypeError,
        "hidden_sizes[0]: expected an int, got float 2.0",
    ),
    "init_stack, input size 0": (
        init_stack(0, (H,)),
        ValueError,
        "input_size: expected at least 1, got 0",
    ),
    "init_stack, a seed": (
        init_stack(D, (H,), key=1),
        TypeError,
        f"{KEY}, got int 1",
    ),
    # zero_state
    "zero_state, params a tuple": (
        lambda: jlstm.zero_state(tuple(layer())),
        TypeError,
        "params[0]: expected LSTMParams, got float32[2, 12]",
    ),
    "zero_state, an int": (
        lambda: jlstm.zero_state(layer(), 5),
        TypeError,
        "batch_shape: expected a tuple of ints, got int 5",
    ),
    "zero_state, floats": (
        lambda: jlstm.zero_state(layer(), (2.0,)),
        TypeError,
        "batch_shape[0]: expected an int, got float 2.0",
    ),
    "zero_state, negative": (
        lambda: jlstm.zero_state(layer(), (2, -1)),
        ValueError,
        "batch_shape[1]: expected at least 0, got -1",
    ),
    # masks
    "length_mask, a list": (
        lambda: jlstm.length_mask([1, 2], 3),
        TypeError,
        "lengths: expected an array of ints, got list [1, 2]",
    ),
    "length_mask, floats": (
        lambda: jlstm.length_mask(ones(2), 3),
        TypeError,
        "lengths: expected an array of ints, got float32[2]",
    ),
    "length_mask, negative": (
        lambda: jlstm.length_mask(np.array([2, -1]), 3),
        ValueError,
        "lengths: expected lengths from 0 to T = 3, got -1 to 2",
    ),
    "length_mask, above T": (
        lambda: jlstm.length_mask(np.array([0, 4]), 3),
        ValueError,
        "lengths: expected lengths from 0 to T = 3, got 0 to 4",
    ),
    "length_mask, T a float": (
        lambda: jlstm.length_mask(np.array([0]), 3.0),
        TypeError,
        "T: expected an int, got float 3.0",
    ),
    "length_mask, T negative": (
        lambda: jlstm.length_mask(np.array([0]), -1),
        ValueError,
        "T: expected at least 0, got -1",
    ),
    "episode_starts, floats": (
        lambda: jlstm.episode_starts(ones(T, B)),
        TypeError,
        "done: expected an array of bool, got float32[5, 4]",
    ),
    "episode_starts, a list": (
        lambda: jlstm.episode_starts([True]),
        TypeError,
        "done: expected an array of bool, got list [True]",
    ),
    "episode_starts, no time": (
        lambda: jlstm.episode_starts(flags()),
        ValueError,
        "done: expected shape [T, *B], got bool[]",
    ),
    "episode_starts, all of the rollout before": (
        lambda: jlstm.episode_starts(flags(T, B), flags(T, B)),
        ValueError,
        "previous_done: expected shape [4], got bool[5, 4]",
    ),
    "episode_starts, previous a bool": (
        lambda: jlstm.episode_starts(flags(T), True),
        TypeError,
        "previous_done: expected an array of bool, got bool True",
    ),
    "select, floats": (
        lambda: jlstm.select(ones(B), state(B, H), state(B, H)),
        TypeError,
        "flags: expected an array of bool, got float32[4]",
    ),
    "select, other shapes": (
        lambda: jlstm.select(flags(B), state(H), state(B, H)),
        ValueError,
        "on_true: expected the shapes of on_false, LSTMState(h=float32[4, 3], c=float32[4, 3])"
        ", got LSTMState(h=float32[3], c=float32[3])",
    ),
    "select, other trees": (
        lambda: jlstm.select(flags(B), ones(B), (ones(B),)),
        ValueError,
        "on_true: expected the shapes of on_false, tuple (float32[4],), got float32[4]",
    ),
    "select, other rows": (
        lambda: jlstm.select(flags(2), ones(B), ones(B)),
        ValueError,
        "flags: expected shape [*B] of float32[4], got bool[2]",
    ),
    # pack_gates, unpack_gates
    "pack_gates, a tuple": (
        lambda: pack_gates(layer()),
        TypeError,
        "gates: expected a mapping from names to gates"
        ", got LSTMParams(W=float32[2, 12], U=float32[3, 12], b=float32[12])",
    ),
    **{
        f"pack_gates, {names}": (
            lambda names=names: pack_gates(dict.fromkeys(names, gates()["i"])),
            ValueError,
            f"gates: expected the names i, f, o, and g or c, got {', '.join(names)}",
        )
        for names in ("ifg", "ifgc", "ifgoc", "ifgx")
    },
    "pack_gates, no triple": (
        lambda: pack_gates(gates(f=(ones(H, D), ones(H, H)))),
        TypeError,
        "gates['f']: expected a tuple of W, U, b, got tuple (float32[3, 2], float32[3, 3])",
    ),
    "pack_gates, ints": (
        lambda: pack_gates(gates(f=Gate(ones(H, D), ones(H, H, dtype=np.int32), ones(H, 1)))),
        TypeError,
        "gates['f'].U: expected an array of floats, got int32[3, 3]",
    ),
    "pack_gates, a row": (
        lambda: pack_gates(gates(g=Gate(ones(H, D), ones(H, H), ones(H)))),
        ValueError,
        "gates['g']: expected Gate(W=[3, 2], U=[3, 3], b=[3, 1])"
        ", got Gate(W=float32[3, 2], U=float32[3, 3], b=float32[3])",
    ),
    "unpack_gates, params a tuple": (
        lambda: unpack_gates(tuple(layer())),
        TypeError,
        "params: expected LSTMParams, got tuple (float32[2, 12], float32[3, 12], float32[12])",
    ),
    **{
        f"unpack_gates, {order!r}": (
            lambda order=order: unpack_gates(layer(), order),
            ValueError,
            f"order: expected the letters i, f, o, and g or c, got {order!r}",
        )
        for order in ("", "ifg", "ifgg", "ifgc", "iffo", "ifgoo", "ifgz", "IFGO")
    },
    "unpack_gates, a tuple": (
        lambda: unpack_gates(layer(), tuple("ifgo")),
        TypeError,
        "order: expected four letters, got tuple ('i', 'f', 'g', 'o')",
    ),
    # unroll_stack: params and xs
    "stack, one layer bare": (
        stack(layer()),
        TypeError,
        "params: expected a tuple with an entry a layer"
        ", got LSTMParams(W=float32[2, 12], U=float32[3, 12], b=float32[12])",
    ),
    "stack, a list": (
        stack([None]),
        TypeError,
        "params: expected a tuple with an entry a layer, got list [None]",
    ),
    "stack, no layers": (
        stack(()),
        ValueError,
        "params: expected one or more entries, got 0",
    ),
    "stack, a layer of another type": (
        stack((layer(), "lstm")),
        TypeError,
        "params[1]: expected LSTMParams, got str 'lstm'",
    ),
    "stack, one direction": (
        both((Bidirectional(layer(), None),)),
        TypeError,
        "params[0].backward: expected LSTMParams, got NoneType None",
    ),
    "stack, layers that do not fit": (
        stack((layer(), layer(7))),
        ValueError,
        "params[1].W: expected shape [3, 4H] after params[0] of 3 features, got float32[7, 12]",
    ),
    "stack, half of two directions": (
        both((Bidirectional(layer(), layer()), layer(H))),
        ValueError,
        "params[1].W: expected shape [6, 4H] after params[0] of 6 features, got float32[3, 12]",
    ),
    "stack, xs that do not fit": (
        stack(None, ones(T, B, 7)),
        ValueError,
        "params[0].W: expected shape [7, 4H] after xs of 7 features, got float32[2, 12]",
    ),
    "stack, xs without time": (
        stack(None, ones(D), zoneout=0.1),
        ValueError,
        "xs: expected shape [T, *B, D], got float32[2]",
    ),
    "stack, xs of ints": (
        stack(None, ones(T, B, D, dtype=np.int32)),
        TypeError,
        "xs: expected an array of floats, got int32[5, 4, 2]",
    ),
    "stack, mask too short": (
        stack(mask=flags(4, B), zoneout=0.1),
        ValueError,
        "mask: expected shape [5, 4], got bool[4, 4]",
    ),
    "stack, reset without B": (
        stack(reset=flags(T), zoneout=0.1),
        ValueError,
        "reset: expected shape [5, 4], got bool[5]",
    ),
    "stack, reset of ints": (
        stack(reset=ones(T, B, dtype=np.int32), recurrent_dropout=0.1, key=key()),
        TypeError,
        "reset: expected an array of bool, got int32[5, 4]",
    ),
    "stack, chunk 0": (
        stack(chunk=0),
        ValueError,
        "chunk: expected at least 1, got 0",
    ),
    # unroll_stack: states
    "stack, states of one layer": (
        stack(None, None, state(B, H)),
        TypeError,
        "states: expected a tuple with an entry a layer"
        ", got LSTMState(h=float32[4, 3], c=float32[4, 3])",
    ),
    "stack, too few states": (
        stack(None, None, (state(B, H),)),
        ValueError,
        "states: expected 2 entries, got 1",
    ),
    "stack, state of the upper layer": (
        stack(None, None, (None, state(B, H))),
        ValueError,
        "states[1].h: expected shape [4, 2] or [2], got float32[4, 3]",
    ),
    "stack, initial_states a list": (
        stack(initial_states=[None, None]),
        TypeError,
        "initial_states: expected a tuple with an entry a layer, got list [None, None]",
    ),
    "stack, initial state of the upper layer": (
        stack(initial_states=(None, (ones(2), ones(2)))),
        TypeError,
        "initial_states[1]: expected LSTMState(h, c), got tuple (float32[2], float32[2])" + FLAX,
    ),
    "stack, two directions in one": (
        stack(None, None, (Bidirectional(None, None), None)),
        TypeError,
        "states[0]: expected LSTMState(h, c), got Bidirectional(forward=None, backward=None)",
    ),
    "stack, one direction for two": (
        both(None, (state(B, H), None)),
        TypeError,
        "states[0]: expected Bidirectional, got LSTMState(h=float32[4, 3], c=float32[4, 3])",
    ),
    "stack, backward state": (
        both(None, (Bidirectional(None, state(B, 7)), None)),
        ValueError,
        "states[0].backward.h: expected shape [4, 3] or [3], got float32[4, 7]",
    ),
    # unroll_stack: noise
    "dropout without a key": (
        stack(dropout=0.5),
        ValueError,
        "key: expected a key to draw dropout from, got None",
    ),
    "recurrent dropout without a key": (
        stack(recurrent_dropout=0.5),
        ValueError,
        "key: expected a key to draw recurrent_dropout from, got None",
    ),
    "dropout 1": (
        stack(dropout=1.0, key=key()),
        ValueError,
        "dropout: expected a rate from 0 to below 1, got 1.0",
    ),
    "dropout negative": (
        stack(dropout=-0.1, key=key()),
        ValueError,
        "dropout: expected a rate from 0 to below 1, got -0.1",
    ),
    "dropout nan": (
        stack(dropout=np.nan, key=key()),
        ValueError,
        "dropout: expected a finite number, got float nan",
    ),
    "dropout True": (
        stack(dropout=True, key=key()),
        TypeError,
        "dropout: expected a number, got bool True",
    ),
    "dropout a word": (
        stack(dropout="0.5", key=key()),
        TypeError,
        "dropout: expected a number, got str '0.5'",
    ),
    "dropout a list": (
        stack(dropout=[0.5], key=key()),
        TypeError,
        "dropout: expected a number, got list [0.5]",
    ),
    "dropout for each layer": (
        stack(dropout=ones(2), key=key()),
        TypeError,
        "dropout: expected a number, got float32[2]",
    ),
    "dropout a known array": (
        stack(dropout=np.float32(2), key=key()),
        ValueError,
        "dropout: expected a rate from 0 to below 1, got 2.0",
    ),
    "recurrent dropout 2": (
        stack(recurrent_dropout=2, key=key()),
        ValueError,
        "recurrent_dropout: expected a rate from 0 to below 1, got 2",
    ),
    "zoneout 1": (
        stack(zoneout=1.0),
        ValueError,
        "zoneout.h: expected a rate from 0 to below 1, got 1.0",
    ),
    "zoneout of c": (
        stack(zoneout=LSTMState(0.1, -1.0)),
        ValueError,
        "zoneout.c: expected a rate from 0 to below 1, got -1.0",
    ),
    "zoneout a tuple": (
        stack(zoneout=(0.1, 0.1)),
        TypeError,
        "zoneout.h: expected a number, got tuple (0.1, 0.1)",
    ),
    "noise, a seed": (
        stack(dropout=0.5, key=0),
        TypeError,
        f"{KEY}, got int 0",
    ),
    "noise, many keys of PRNGKey": (
        stack(dropout=0.5, key=np.zeros((3, 2), np.uint32)),
        ValueError,
        "key: expected one key, got keys of shape [3]",
    ),
    "noise, many keys": (
        stack(dropout=0.5, key=jax.random.split(key())),
        ValueError,
        "key: expected one key, got keys of shape [2]",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_is_refused_by_name_before_anything_is_computed(refusal, monkeypatch):
    call, error, message = REFUSALS[refusal]
    computed, bind = [], Primitive.bind

    def noting(primitive, *args, **params):
        if not any(isinstance(arg, Tracer) for arg in args):
            computed.append(primitive.name)
        return bind(primitive, *args, **params)

    monkeypatch.setattr(Primitive, "bind", noting)
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert str(raised.value) == message
    assert not computed


def test_a_cell_whose_state_changes_its_shape_is_refused():
    def grows(params, state, x):
        return jnp.concatenate([state, state]), x

    with pytest.raises(TypeError, match="^cell: expected a state of one type, got .* and then "):
        jlstm.unroll(None, ones(T, B, D), ones(D), cell=grows)


def test_unknown_values_are_not_refused():
    """Lengths and rates are looked at where they are known, and only there."""

    @jax.jit
    def run(lengths, rate):
        mask = jlstm.length_mask(lengths, T)
        return jlstm.unroll_stack((layer(),), ones(T, B, D), mask=mask, zoneout=rate)

    run(jnp.array([-1, 99, 0, 1]), jnp.float32(0.1))
