"""Each kind of LSTM that other libraries have: how to convert its weights, and how to run it.

All run on the same ragged batch, `xs [T, B, D]` and the lengths of its rows, and give the final
states and the outputs `[T, B, H]` in our layout, zero past each length.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from jax.experimental import rnn

import jlstm
from jlstm import Bidirectional, LSTMState
from jlstm.cells import ProjectedParams
from jlstm.interop import cudnn
from jlstm.interop.equinox import (
    from_equinox,
    state_from_equinox,
    state_to_equinox,
    to_equinox,
)
from jlstm.interop.flax import (
    from_linen,
    from_nnx,
    state_from_flax,
    state_to_flax,
    to_linen,
    to_nnx,
)
from jlstm.interop.haiku import from_haiku, state_from_haiku, state_to_haiku, to_haiku
from jlstm.interop.keras import from_keras, state_from_keras, state_to_keras, to_keras
from jlstm.interop.torch import from_torch, state_from_torch, state_to_torch, to_torch
from tests.helpers.draws import draw_array, draw_params
from tests.peers.keras_on_jax import keras

T, B, D, H, R = 6, 5, 3, 4, 2
LENGTHS = np.array([6, 1, 4, 5, 2])
MASK = np.arange(T)[:, None] < LENGTHS


class Kind(NamedTuple):
    """One kind of LSTM of another library.

    form: what it is in jlstm: "one", "both" directions, or a "stack" of such.
    out: from our parameters to its own, a pytree of arrays.
    back: the other way round.
    evaluate: `(weights, xs, states, cotangents) -> (states, hs), gradients`, run by that library;
      the gradients are those of its own weights, of xs and of our states.
    bias: whether there is one.
    whole: whether we keep all that it has; two biases come back as one, for example.
    rounds: whether numbers come back to the bit only if they have been there before.
    """

    form: str
    out: Callable
    back: Callable
    evaluate: Callable
    bias: bool = True
    whole: bool = True
    rounds: bool = False


def draw(form: str, bias: bool):
    """Our parameters, and our states for a batch."""
    make = {
        "one": lambda: _layer(0, D, 1),
        "both": lambda: _layer(0, D, 2),
        "stack of one": lambda: (_layer(0, D, 1),),
        "stack": lambda: (_layer(0, D, 1), _layer(5, H, 1)),
        "stack of both": lambda: (_layer(0, D, 2), _layer(5, 2 * H, 2)),
        "projected stack": lambda: (_projected(0, D, 2), _projected(5, 2 * R, 2)),
    }[form]

    def each(f, params):
        return jax.tree.map(f, params, is_leaf=lambda node: hasattr(node, "U"))

    def draw_state(one):
        h, c = draw_array(1, (B, one.U.shape[0])), draw_array(2, (B, one.b.shape[0] // 4))
        return LSTMState(h, c)

    params = make()
    params = jax.tree.map(lambda p: p / 2, params)  # the size of weights that were trained
    if not bias:
        params = each(lambda one: one._replace(b=jnp.zeros_like(one.b)), params)
    return params, each(draw_state, params)


def _layer(seed, input_size, directions):
    drawn = [draw_params(seed + k, input_size, H) for k in range(directions)]
    return drawn[0] if directions == 1 else Bidirectional(*drawn)


def _projected(seed, input_size, directions):
    drawn = [draw_params(seed + k, input_size, H) for k in range(directions)]
    return Bidirectional(
        *(ProjectedParams(W, U[:R], b, draw_array(seed, (H, R))) for W, U, b in drawn)
    )


def ours(form: str, back: Callable, weights, xs, states):
    """jlstm on the other library's weights."""
    params = back(weights)
    if form.startswith("stack"):
        return jlstm.unroll_stack(params, xs, states, mask=MASK)
    if form == "projected stack":
        cell = jlstm.cells.projected
        return jlstm.unroll_stack(params, xs, states, mask=MASK, cell=cell)
    (final,), hs = jlstm.unroll_stack((params,), xs, (states,), mask=MASK)
    return final, hs


def with_gradients(run: Callable) -> Callable:
    """`(weights, xs, states, cotangents) -> values, gradients` of `run(weights, xs, states)`."""

    @jax.jit
    def compiled(weights, xs, states, cotangents):
        values, pullback = jax.vjp(run, weights, xs, states)
        return values, pullback(cotangents)

    return compiled


def _by_jax(run: Callable) -> Callable:
    """`evaluate` of a library that is written in JAX, under the promotion rules it counts on."""
    compiled = with_gradients(run)

    def evaluate(weights, xs, states, cotangents):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return compiled(weights, xs, states, cotangents)

    return evaluate


def _steps(step: Callable, state, xs):
    """A loop of single steps; `step(state, x) -> (state, h)` of any library, in our layout."""
    hs = []
    for x, mask in zip(xs, MASK, strict=True):
        mask = np.broadcast_to(mask[:, None], (B, H))
        new = step(state, x)
        state = LSTMState(*(jnp.where(mask, a, b) for a, b in zip(new, state, strict=True)))
        hs.append(jnp.where(mask, new.h, 0))
    return state, jnp.stack(hs)


def _zero_padding(hs):
    return jnp.where(MASK[..., None], hs, 0)


# --- torch


def _torch(weights, xs, states, cotangents, *, make, batch_first=False):
    """`torch.nn.LSTM`, loaded strictly, on a packed sequence."""
    lstm = make(batch_first=batch_first)
    lstm.load_state_dict({k: torch.tensor(np.array(v)) for k, v in weights.items()}, strict=True)
    h, c = state_to_torch(states)
    inputs = torch.tensor(np.array(xs), requires_grad=True)
    for leaf in (h, c):
        leaf.requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        inputs.swapaxes(0, 1) if batch_first else inputs,
        torch.tensor(LENGTHS),
        enforce_sorted=False,
        batch_first=batch_first,
    )
    ys, carried = lstm(packed, (h, c))
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=T)
    both = lstm.bidirectional
    final_cotangents, y_cotangents = cotangents
    torch.autograd.backward(
        (ys, *carried), (torch.tensor(np.array(y_cotangents)), *state_to_torch(final_cotangents))
    )
    back = partial(state_from_torch, bidirectional=both)
    gradients = {name: _numpy(p.grad) for name, p in lstm.named_parameters()}
    carried_gradients = back((h.grad, c.grad))
    return (back(carried), _numpy(ys)), (gradients, _numpy(inputs.grad), carried_gradients)


def _torch_cell(weights, xs, state, cotangents, *, make):
    """`torch.nn.LSTMCell`, step by step."""
    cell = make()
    cell.load_state_dict({k: torch.tensor(np.array(v)) for k, v in weights.items()}, strict=True)
    inputs, *carried = (torch.tensor(np.array(a), requires_grad=True) for a in (xs, *state))
    h, c = carried
    ys = []
    for t in range(T):
        mask = torch.tensor(MASK[t])[:, None]
        new_h, new_c = cell(inputs[t], (h, c))
        h, c = torch.where(mask, new_h, h), torch.where(mask, new_c, c)
        ys.append(torch.where(mask, new_h, 0.0))
    ys = torch.stack(ys)
    (h_bar, c_bar), y_bar = jax.tree.map(lambda a: torch.tensor(np.array(a)), cotangents)
    torch.autograd.backward((h, c, ys), (h_bar, c_bar, y_bar))
    gradients = {name: _numpy(p.grad) for name, p in cell.named_parameters()}
    final, state_bar = (LSTMState(*map(_numpy, s)) for s in ((h, c), [a.grad for a in carried]))
    return (final, _numpy(ys)), (gradients, _numpy(inputs.grad), state_bar)


def _numpy(tensor):
    return tensor.detach().numpy()


def _arrays(state_dict):
    return jax.tree.map(lambda tensor: jnp.asarray(_numpy(tensor)), state_dict)


def torch_kind(form, depth=1, bidirectional=False, bias=True, batch_first=False, proj_size=0):
    options: dict[str, Any] = {"bidirectional": bidirectional, "bias": bias, "proj_size": proj_size}
    make = partial(torch.nn.LSTM, D, H, depth, **options)
    evaluate = partial(_torch, make=make, batch_first=batch_first)
    out = partial(to_torch, bias=bias)
    return Kind(form, lambda params: _arrays(out(params)), from_torch, evaluate, bias, not bias)


def torch_cell_kind(bias):
    evaluate = partial(_torch_cell, make=partial(torch.nn.LSTMCell, D, H, bias=bias))
    out = partial(to_torch, bias=bias)
    return Kind(
        "one", lambda params: _arrays(out(params)), from_torch, evaluate, bias, bias is False
    )


# --- flax


def _linen(cell, weights, xs, state):
    module = nn.RNN(cell(H), time_major=True)
    carry, hs = module.apply(
        {"params": {"cell": weights}},
        xs,
        initial_carry=state_to_flax(state),
        seq_lengths=LENGTHS,
        return_carry=True,
    )
    return state_from_flax(carry), _zero_padding(hs)


def _linen_both(cell, weights, xs, states):
    def one() -> Any:
        return nn.RNN(cell(H))

    carries, hs = nn.Bidirectional(one(), one(), time_major=True).apply(
        {"params": weights},
        xs,
        initial_carry=state_to_flax(states),
        seq_lengths=LENGTHS,
        return_carry=True,
    )
    return state_from_flax(carries), _zero_padding(hs)


def _nnx_module(cell, both) -> Any:
    def one():
        return nnx.RNN(cell(D, H, rngs=nnx.Rngs(0)))

    return nnx.Bidirectional(one(), one()) if both else one()


def _nnx(cell, both, weights, xs, state):
    module = _nnx_module(cell, both)
    nnx.update(module if both else module.cell, weights)
    carry, hs = module(
        xs,
        initial_carry=state_to_flax(state),
        time_major=True,
        seq_lengths=jnp.asarray(LENGTHS),
        return_carry=True,
    )
    return state_from_flax(carry), _zero_padding(hs)


def nnx_kind(cell, both):
    out = partial(to_nnx, optimized=cell is nnx.OptimizedLSTMCell)
    return Kind("both" if both else "one", out, from_nnx, _by_jax(partial(_nnx, cell, both)))


# --- equinox and haiku


def _equinox(weights, xs, state):
    def step(state, x):
        return state_from_equinox(jax.vmap(weights)(x, state_to_equinox(state)))

    return _steps(step, state, xs)


def _haiku(weights, xs, state):
    def run(xs, state):
        core = hk.LSTM(H)
        return _steps(lambda s, x: state_from_haiku(core(x, state_to_haiku(s))[1]), state, xs)

    return hk.without_apply_rng(hk.transform(run)).apply(weights, xs, state)


# --- Keras


def keras_layer(kind, **options):
    """A layer that is built, and returns everything."""
    options |= {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    weights = {"use_bias": options.pop("use_bias", True), "recurrent_initializer": "zeros"}
    if kind == "RNN":
        layer = keras.layers.RNN(keras.layers.LSTMCell(H, **weights), **options)
    else:
        layer = keras.layers.LSTM(H, **weights, **options)
    if kind == "Bidirectional":
        layer = keras.layers.Bidirectional(layer)
    layer.build((None, T, D))
    return layer


def _keras(kind, use_bias, weights, xs, state):
    layer = keras_layer(kind, use_bias=use_bias)
    (hs, *carried), *_ = layer.stateless_call(
        weights,
        layer.non_trainable_variables,
        jnp.swapaxes(xs, 0, 1),
        initial_state=state_to_keras(state),
        mask=MASK.T,
    )
    return state_from_keras(carried), jnp.swapaxes(hs, 0, 1)


def keras_kind(kind, bias=True):
    form = "both" if kind == "Bidirectional" else "one"
    out = partial(to_keras, bias=bias)
    return Kind(form, out, from_keras, _by_jax(partial(_keras, kind, bias)), bias)


# --- cuDNN


def _cudnn(depth, bidirectional, weights, xs, states):
    h, c = cudnn.state_to_cudnn(states)
    sizes = {"input_size": D, "hidden_size": H, "num_layers": depth, "bidirectional": bidirectional}
    parts = rnn.unpack_lstm_weights(weights, **sizes)
    ys, h, c = rnn.lstm_ref(
        xs.swapaxes(0, 1), h, c, *parts, seq_lengths=jnp.asarray(LENGTHS), dropout=0.0, **sizes
    )
    final = cudnn.state_from_cudnn((h, c), bidirectional=bidirectional)
    return final, ys.swapaxes(0, 1)


def cudnn_kind(form, depth=1, bidirectional=False):
    back = partial(
        cudnn.from_cudnn,
        input_size=D,
        hidden_size=H,
        num_layers=depth,
        bidirectional=bidirectional,
    )
    evaluate = _by_jax(partial(_cudnn, depth, bidirectional))
    return Kind(form, cudnn.to_cudnn, back, evaluate, whole=False)


# --- the table

TABLE = {
    "torch LSTMCell": {"biases": torch_cell_kind(True), "no bias": torch_cell_kind(False)},
    "torch LSTM": {
        "one layer": torch_kind("stack of one"),
        "two layers": torch_kind("stack", 2),
        "both directions": torch_kind("stack of both", 2, True),
        "no bias": torch_kind("stack of both", 2, True, bias=False),
        "batch_first": torch_kind("stack", 2, batch_first=True),
        "proj_size": torch_kind("projected stack", 2, True, proj_size=R),
    },
    "linen LSTMCell": {
        "in RNN": Kind("one", to_linen, from_linen, _by_jax(partial(_linen, nn.LSTMCell))),
        "in Bidirectional": Kind(
            "both", to_linen, from_linen, _by_jax(partial(_linen_both, nn.LSTMCell))
        ),
    },
    "linen OptimizedLSTMCell": {
        "in RNN": Kind("one", to_linen, from_linen, _by_jax(partial(_linen, nn.OptimizedLSTMCell))),
        "in Bidirectional": Kind(
            "both", to_linen, from_linen, _by_jax(partial(_linen_both, nn.OptimizedLSTMCell))
        ),
    },
    "nnx LSTMCell": {
        "in RNN": nnx_kind(nnx.LSTMCell, False),
        "in Bidirectional": nnx_kind(nnx.LSTMCell, True),
    },
    "nnx OptimizedLSTMCell": {
        "in RNN": nnx_kind(nnx.OptimizedLSTMCell, False),
        "in Bidirectional": nnx_kind(nnx.OptimizedLSTMCell, True),
    },
    "equinox LSTMCell": {
        "bias": Kind("one", to_equinox, from_equinox, _by_jax(_equinox)),
        "no bias": Kind(
            "one", partial(to_equinox, bias=False), from_equinox, _by_jax(_equinox), False
        ),
    },
    "haiku LSTM": {
        "1 added to f": Kind(
            "one", to_haiku, from_haiku, _by_jax(_haiku), whole=False, rounds=True
        ),
    },
    "Keras LSTM": {
        "bias": keras_kind("LSTM"),
        "no bias": keras_kind("LSTM", bias=False),
        "RNN of LSTMCell": keras_kind("RNN"),
        "Bidirectional": keras_kind("Bidirectional"),
        "Bidirectional, no bias": keras_kind("Bidirectional", bias=False),
    },
    "cuDNN": {
        "one layer": cudnn_kind("stack of one"),
        "two layers": cudnn_kind("stack", 2),
        "both directions": cudnn_kind("stack of both", 2, True),
    },
}
