"""What another library cannot hold, or jlstm cannot express, is refused by name."""

import re
from typing import Any, NamedTuple

import equinox
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import jlstm
from jlstm import Bidirectional, LSTMParams
from jlstm.interop.cudnn import from_cudnn, state_from_cudnn, state_to_cudnn, to_cudnn
from jlstm.interop.equinox import from_equinox, to_equinox
from jlstm.interop.flax import from_linen, from_nnx, to_linen, to_nnx
from jlstm.interop.haiku import from_haiku, state_to_haiku, to_haiku
from jlstm.interop.keras import from_keras, to_keras
from jlstm.interop.torch import from_torch, state_from_torch, state_to_torch, to_torch
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.peers.conversions import keras_layer
from tests.peers.keras_on_jax import keras

D, H = 2, 3


class Peephole(NamedTuple):
    """A cell that no other library but ONNX has."""

    W: Any
    U: Any
    b: Any
    p: Any


def params(input_size=D, hidden_size=H) -> LSTMParams:
    return draw_params(0, input_size, hidden_size)


def projected(**options) -> Any:
    init = jlstm.cells.init_projected
    return init(jax.random.key(0), D, H, projected_size=2, forget_bias=0.5, **options)


PEEPHOLE = Peephole(*params(), np.ones((3, H)))
BOTH = Bidirectional(params(), params())
INT8 = {k: torch.ones(12, D if "ih" in k else H, dtype=torch.int8) for k in ("ih", "hh")}


def cell(make: Any, **options) -> Any:
    """A cell of nnx."""
    return make(D, H, rngs=nnx.Rngs(0), **options)


def keras_lstm(**options) -> Any:
    return keras.layers.LSTM(H, **options)


def linen_gru() -> Any:
    zeros = jnp.zeros(())
    return {name: {"kernel": zeros} for name in ("ir", "iz", "in", "hr", "hz", "hn")}


REFUSED: dict[str, tuple] = {
    # torch
    "torch GRU": (
        lambda: from_torch(torch.nn.GRU(D, H)),
        "weight_ih_l0: expected four gates, W [D, 4H] U [H, 4H], got W [2, 9] U [3, 9], as of a "
        "GRU",
    ),
    "torch RNN": (
        lambda: from_torch(torch.nn.RNNCell(D, H)),
        "weight_ih: expected four gates, W [D, 4H] U [H, 4H], got W [2, 3] U [3, 3], as of an RNN "
        "without gates",
    ),
    "torch, no LSTM": (
        lambda: from_torch(torch.nn.Linear(2, 3)),
        "prefix: expected weight_ih_l0 or weight_ih behind ''; weight, bias",
    ),
    "torch, elsewhere": (
        lambda: from_torch(torch.nn.Sequential(torch.nn.LSTM(2, 3), torch.nn.Linear(2, 3)), "a."),
        "prefix: expected weight_ih_l0 or weight_ih behind 'a.'; one is at '0.'",
    ),
    "torch, one missing": (
        lambda: from_torch({"weight_ih": np.ones((12, 2)), "bias_ih": np.ones(12)}),
        "expected bias_hh, weight_hh, which is not there",
    ),
    "torch, one too many": (
        lambda: from_torch(to_torch(params()) | {"weight_ch": torch.ones(3)}),
        "weight_ch: not of a standard LSTM",
    ),
    "torch, int8": (
        lambda: from_torch({f"weight_{k}": v for k, v in INT8.items()}),
        "weight_ih: expected an array of floats, got a tensor int8[12, 2]",
    ),
    "torch, an array": (
        lambda: from_torch(np.ones(2)),
        "module: expected a module or a state dict, got float64[2]",
    ),
    "torch, peephole": (
        lambda: to_torch((PEEPHOLE,)),
        "params[0]: expected LSTMParams or ProjectedParams for torch.nn.LSTM, got "
        "Peephole(W=float32[2, 12], U=float32[3, 12], b=float32[12], p=float64[3, 3])",
    ),
    "torch, projected with peepholes": (
        lambda: to_torch((projected(peepholes=True),)),
        "params: expected P=None for torch.nn.LSTM, got float32[9]",
    ),
    "torch, projected and not": (
        lambda: to_torch((projected(), params())),
        "params[1]: expected ProjectedParams of D = 2, H = 3, R = 2, since torch.nn.LSTM has one",
    ),
    "torch, a projection of another size": (
        lambda: from_torch(to_torch((projected(),)) | {"weight_hr_l0": torch.ones(2, 4)}),
        "weight_ih_l0: expected ProjectedParams(W=[D, 4H], U=[R, 4H], b=[4H], V=[H, R], "
        "P=[3H] or None)",
    ),
    "torch, no stack": (
        lambda: to_torch(BOTH),
        "params: expected a tuple with an entry a layer for torch.nn.LSTM, got Bidirectional(",
    ),
    "torch, several sizes": (
        lambda: to_torch((params(), params(H, 4))),
        "params[1]: expected LSTMParams of D = 3, H = 3, since torch.nn.LSTM has one",
    ),
    "torch, several directions": (
        lambda: to_torch((BOTH, params(2 * H))),
        "params[1]: expected both directions as in the first layer, since torch.nn.LSTM has one "
        "kind, got LSTMParams",
    ),
    "torch, a bias left out": (
        lambda: to_torch(params(), bias=False),
        "bias: expected True for biases that are not zero, got False",
    ),
    # flax
    "linen GRU": (
        lambda: from_linen(linen_gru()),
        "params: expected the layers of an LSTM, got ir, iz, in, hr, hz, hn",
    ),
    "linen, an array": (
        lambda: from_linen({"cell": np.ones(2)}),
        "params.cell: expected arrays by name, got float64[2]",
    ),
    "linen, uneven gates": (
        lambda: from_linen(to_linen(params()) | {"ii": {"kernel": np.ones((D, 4))}}),
        "params: expected one shape for the kernels of ['ii', 'if', 'ig', 'io'], got [2, 4], "
        "[2, 3], [2, 3], [2, 3]",
    ),
    "linen, activation_fn": (
        lambda: from_linen(
            to_linen(params()), nn.RNN(nn.OptimizedLSTMCell(H, activation_fn=nn.relu))
        ),
        "activation_fn: expected tanh, got relu",
    ),
    "linen, gate_fn": (
        lambda: from_linen(to_linen(params()), nn.LSTMCell(H, gate_fn=nn.hard_sigmoid)),
        "gate_fn: expected sigmoid, got hard_sigmoid",
    ),
    "linen, ConvLSTM": (
        lambda: from_linen({}, nn.ConvLSTMCell(H, (3,))),
        "module: expected an LSTM of linen, got ConvLSTMCell",
    ),
    "linen, merge_fn": (
        lambda: from_linen(
            to_linen(BOTH),
            nn.Bidirectional(
                nn.RNN(nn.LSTMCell(H)), nn.RNN(nn.LSTMCell(H)), merge_fn=lambda a, b: a + b
            ),
        ),
        "merge_fn: expected flax's own, got <lambda>",
    ),
    "nnx GRU": (
        lambda: from_nnx(cell(nnx.GRUCell)),
        "module: expected an LSTM of nnx, got GRUCell",
    ),
    "nnx, gate_fn": (
        lambda: from_nnx(nnx.RNN(cell(nnx.OptimizedLSTMCell, gate_fn=nnx.relu))),
        "gate_fn: expected sigmoid, got relu",
    ),
    "nnx, merge_fn": (
        lambda: from_nnx(
            nnx.Bidirectional(
                nnx.RNN(cell(nnx.LSTMCell)),
                nnx.RNN(cell(nnx.LSTMCell)),
                merge_fn=lambda a, b: a + b,
            )
        ),
        "merge_fn: expected flax's own, got <lambda>",
    ),
    "flax, peephole": (
        lambda: to_linen(PEEPHOLE),  # pyright: ignore[reportArgumentType]
        "params: expected LSTMParams for flax's LSTMCell, got Peephole(",
    ),
    "nnx, a stack": (
        lambda: to_nnx((params(),)),  # pyright: ignore[reportArgumentType]
        "params: expected LSTMParams for flax's OptimizedLSTMCell, got tuple (LSTMParams(",
    ),
    # equinox
    "equinox GRU": (
        lambda: from_equinox(equinox.nn.GRUCell(D, H, key=jax.random.key(0))),
        "cell: expected equinox.nn.LSTMCell, got GRUCell",
    ),
    "equinox, peephole": (
        lambda: to_equinox(PEEPHOLE),  # pyright: ignore[reportArgumentType]
        "params: expected LSTMParams for equinox.nn.LSTMCell, got Peephole(",
    ),
    "equinox, a bias left out": (
        lambda: to_equinox(params(), bias=False),
        "bias: expected True for biases that are not zero, got False",
    ),
    # haiku
    "haiku, elsewhere": (
        lambda: from_haiku(to_haiku(params(), "model/~/lstm")),
        "name: expected one of model/~/lstm, got 'lstm'",
    ),
    "haiku, no mapping": (
        lambda: from_haiku([1]),  # pyright: ignore[reportArgumentType]
        "params: expected arrays by module, got list [1]",
    ),
    "haiku, a linear layer": (
        lambda: from_haiku({"lstm/linear": {"w": np.ones((3, 12)), "b": np.ones(12)}}),
        "lstm/linear: expected w [D + H, 4H] and b [4H] of an LSTM, got w [3, 12] b [12]",
    ),
    "haiku, no bias": (
        lambda: from_haiku({"lstm/linear": {"w": np.ones((5, 12))}}),
        "lstm/linear: expected w and b, got w",
    ),
    "haiku, peephole": (
        lambda: to_haiku(PEEPHOLE),  # pyright: ignore[reportArgumentType]
        "params: expected LSTMParams for haiku.LSTM, got Peephole(",
    ),
    # Keras
    "Keras, recurrent_activation": (
        lambda: from_keras(keras_lstm(recurrent_activation="hard_sigmoid")),
        "recurrent_activation: expected 'sigmoid', got 'hard_sigmoid'",
    ),
    "Keras, activation": (
        lambda: from_keras(keras_lstm(activation="relu")),
        "activation: expected 'tanh', got 'relu'",
    ),
    "Keras, merge_mode": (
        lambda: from_keras(keras.layers.Bidirectional(keras_lstm(), merge_mode="sum")),
        "merge_mode: expected 'concat', got 'sum'",
    ),
    "Keras GRU": (
        lambda: from_keras(keras.layers.GRU(H)),
        "layer: expected an LSTM of Keras, got GRUCell",
    ),
    "Keras, not built": (
        lambda: from_keras(keras_lstm(name="top")),
        "layer 'top': expected kernel, recurrent_kernel and bias, got 0 arrays; is it built yet?",
    ),
    "Keras, int8": (
        lambda: from_keras([np.ones((2, 12), np.int8), np.ones((3, 12)), np.ones(12)]),
        "layer[0]: expected an array of floats, got int8[2, 12]",
    ),
    "Keras, a bias of another size": (
        lambda: from_keras([np.ones((2, 12)), np.ones((3, 12)), np.ones(9)]),
        "layer: expected LSTMParams(W=[D, 4H], U=[H, 4H], b=[4H]), got LSTMParams(",
    ),
    "Keras, peephole": (
        lambda: to_keras(PEEPHOLE),  # pyright: ignore[reportArgumentType]
        "params: expected LSTMParams for keras.layers.LSTM, got Peephole(",
    ),
    "Keras, a bias left out": (
        lambda: to_keras(params(), bias=False),
        "bias: expected True for biases that are not zero, got False",
    ),
    # cuDNN
    "cuDNN, too short": (
        lambda: from_cudnn(np.ones(83), D, H),
        "weights: expected shape [84] for these sizes, got [83]",
    ),
    "cuDNN, half a layer": (
        lambda: from_cudnn(np.ones(84), D, H, 0),
        "num_layers: expected at least 1, got 0",
    ),
    "cuDNN, several sizes": (
        lambda: to_cudnn((params(), params(H, 4))),
        "params[1]: expected LSTMParams of D = 3, H = 3, since jax.experimental.rnn",
    ),
    "cuDNN, no layer": (
        lambda: to_cudnn(()),
        "params: expected a tuple with an entry a layer for jax.experimental.rnn, got tuple ()",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    convert, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError)) as refusal:
        convert()
    assert re.sub(r"^: ", "", str(refusal.value)).startswith(message)


# --- what a table has no row for


def test_a_module_around_an_lstm_and_a_prefix():
    model = torch.nn.Sequential(torch.nn.Linear(5, D), torch.nn.LSTM(D, H, bidirectional=True))
    again = to_torch(from_torch(model, "1."), "1.")
    kept = {name: tensor for name, tensor in model.state_dict().items() if "weight" in name}
    assert set(model.state_dict()) - set(again) == {"0.weight", "0.bias"}
    assert all(torch.equal(again[name], kept[name]) for name in kept if name in again)


def test_parameters_are_copies():
    lstm = torch.nn.LSTM(D, H)
    (before,) = from_torch(lstm)
    kept = before.W.copy()
    with torch.no_grad():
        lstm.get_parameter("weight_ih_l0").zero_()
    np.testing.assert_array_equal(before.W, kept)
    to_torch((before,))["weight_ih_l0"].zero_()
    np.testing.assert_array_equal(before.W, kept)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_torch_keeps_dtypes_without_the_64_bits_of_jax(dtype):
    lstm = torch.nn.LSTM(D, H, dtype=getattr(torch, dtype))
    (one,) = from_torch(lstm)
    assert {p.dtype.name for p in one} == {dtype}
    again = to_torch((one,))
    assert {str(tensor.dtype) for tensor in again.values()} == {f"torch.{dtype}"}
    assert torch.equal(again["weight_hh_l0"], lstm.get_parameter("weight_hh_l0"))
    np.testing.assert_array_equal(from_torch(again)[0].b, one.b)


def test_haiku_rounds_its_forget_bias_once():
    one = params(3, 50)
    once = from_haiku(to_haiku(one))
    difference = np.abs(np.asarray(one.b) - once.b)
    assert 0 < difference.max() <= 2**-24 * (1 + np.abs(np.asarray(one.b)).max())
    others = np.delete(difference.reshape(4, 50), 1, axis=0)
    assert not others.any()
    twice = from_haiku(to_haiku(once))
    np.testing.assert_array_equal(once.b, twice.b)


def test_haiku_s_own_parameters_fit():
    transformed = hk.transform(lambda x, s: hk.LSTM(H, name="deep")(x, s))
    x, state = np.ones(D, np.float32), state_to_haiku(draw_state(0, (H,)))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        weights = transformed.init(jax.random.key(0), x, state)
        h, _ = transformed.apply(weights, None, x, state)
    one = from_haiku(weights, "deep")
    _, ours = jlstm.cell(one, jlstm.LSTMState(*state), x)
    np.testing.assert_allclose(ours, h, rtol=1e-6, atol=1e-6)
    assert jax.tree.map(np.shape, to_haiku(one, "deep")) == jax.tree.map(np.shape, dict(weights))


def test_keras_layers_take_what_comes_and_draw_what_we_read():
    layer = keras_layer("Bidirectional")
    drawn = from_keras(layer)
    assert isinstance(drawn, Bidirectional)
    _, b_f, *_ = np.split(drawn.forward.b, 4)
    assert (b_f == 1).all()  # unit_forget_bias is in the weights
    D, H = drawn.forward.W.shape[0], drawn.forward.U.shape[0]
    both = Bidirectional(draw_params(1, D, H), draw_params(2, D, H))
    layer.set_weights(to_keras(both))
    for ours, theirs in zip(jax.tree.leaves(both), layer.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs.value)


def test_linen_checks_the_module_that_it_is_given():
    both = nn.Bidirectional(nn.RNN(nn.LSTMCell(H)), nn.RNN(nn.LSTMCell(H)))
    again = from_linen({"params": to_linen(BOTH)}, both)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(BOTH), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_come_back(bidirectional):
    one = draw_state(0, (5, H)), draw_state(1, (5, H))
    states = (Bidirectional(*one),) if bidirectional else one
    for there, back in ((state_to_torch, state_from_torch), (state_to_cudnn, state_from_cudnn)):
        again = back(there(states), bidirectional=bidirectional)
        assert jax.tree.structure(again) == jax.tree.structure(states)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(states), strict=True):
            np.testing.assert_array_equal(a, b)


def test_conversions_are_functions_to_differentiate_through():
    def loss(weights):
        return (from_cudnn(weights, D, H)[0].b * 3).sum() + (from_cudnn(weights, D, H)[0].W).sum()

    gradient = jax.jit(jax.grad(loss))(draw_array(0, (84,)))
    assert gradient.sum() == 3 * 24 + 24
