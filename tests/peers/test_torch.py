"""`torch.nn.LSTM` on the same weights: layers, directions, and packed sequences.

Gates i, f, g, o and (h, c) as ours; weights are transposed; there are two biases, which are summed,
so that both have the gradient of ours. States of all layers and directions are stacked. Packed
sequences give outputs of zero past their length as ours do, and the final state of the last step
inside it; a sequence of length 0 is refused, where ours ends in what came in.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jlstm
from jlstm.interop.torch import from_torch
from tests.helpers.comparisons import assert_close, values_and_gradients
from tests.helpers.draws import draw_array, draw_stack
from tests.peers.layouts import directions_of, torch_weights

T, B, D, H, L = 6, 5, 3, 4, 2

pytestmark = pytest.mark.usefixtures("x64")


def to_torch(tree):
    """The same tree of float64 tensors, which collect gradients."""
    return jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), tree)


def to_jax(tree):
    return jax.tree.map(lambda tensor: jnp.asarray(tensor.detach().numpy()), tree)


def torch_lstm(layers, xs, states, lengths=None):
    """`torch.nn.LSTM` on tensors in our layout, packed where there are lengths."""
    bidirectional = isinstance(layers[0], jlstm.Bidirectional)
    lstm = torch.nn.LSTM(D, H, len(layers), bidirectional=bidirectional, dtype=torch.float64)
    carried = [state for entry in states for state in directions_of(entry)]
    carried = tuple(torch.stack(leaf) for leaf in zip(*carried, strict=True))
    if lengths is not None:
        lengths = torch.tensor(lengths)
        xs = torch.nn.utils.rnn.pack_padded_sequence(xs, lengths, enforce_sorted=False)
    ys, (h, c) = torch.func.functional_call(lstm, torch_weights(layers), (xs, carried))
    if lengths is not None:
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=T)
    finals = list(map(jlstm.LSTMState, h, c))
    if bidirectional:
        finals = map(jlstm.Bidirectional, finals[::2], finals[1::2])
    return tuple(finals), ys


def draw(bidirectional: bool, batch_shape: tuple[int, ...] = (B,)):
    """`L` layers of the same size, a sequence, and states to carry in."""
    layers, states = draw_stack(bidirectional, L, D, H, batch_shape)
    return layers, draw_array(0, (T, *batch_shape, D), jnp.float64), states


def assert_same_as_torch(inputs, lengths=None):
    """Values, and gradients of everything for random cotangents."""
    mask = None if lengths is None else jlstm.length_mask(lengths, T)

    def ours(layers, xs, states):
        return jlstm.unroll_stack(layers, xs, states, mask=mask)

    shapes, structure = jax.tree.flatten(jax.eval_shape(ours, *inputs))
    cotangents = [draw_array(seed, y.shape, y.dtype) for seed, y in enumerate(shapes)]
    values, gradients = values_and_gradients(ours, inputs, structure.unflatten(cotangents))

    tensors = to_torch(inputs)
    their_values = torch_lstm(*tensors, lengths=lengths)
    pairs = zip(jax.tree.leaves(their_values), cotangents, strict=True)
    torch.stack([(y * torch.tensor(np.array(w))).sum() for y, w in pairs]).sum().backward()
    their_gradients = jax.tree.map(lambda tensor: tensor.grad, tensors)
    assert_close(values, to_jax(their_values))
    assert_close(gradients, to_jax(their_gradients))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers(bidirectional):
    assert_same_as_torch(draw(bidirectional))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_single_sequence(bidirectional):
    assert_same_as_torch(draw(bidirectional, batch_shape=()))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [[6, 1, 4, 5, 2], [2, 3, 1, 2, 3]])
def test_packed_sequences(bidirectional, lengths):
    assert_same_as_torch(draw(bidirectional), np.array(lengths))


def test_a_sequence_of_length_zero_is_refused_there_and_held_here():
    layers, xs, states = draw(bidirectional=True)
    lengths = np.array([6, 0, 4, 5, 2])
    with pytest.raises(RuntimeError, match="greater than 0"):
        torch_lstm(*to_torch((layers, xs, states)), lengths=lengths)
    mask = jlstm.length_mask(lengths, T)
    finals, ys = jlstm.unroll_stack(layers, xs, states, mask=mask)
    second_row = jax.tree.map(lambda a: a[1], (finals, states))
    assert_close(*second_row, tolerance=0)
    assert not np.asarray(ys)[:, 1].any()


@pytest.mark.parametrize("way", ["new", "old", "spectral"])
@pytest.mark.parametrize("weight", ["weight_hh_l0", "weight_ih_l0"])
def test_normalised_weights_are_named(way, weight):
    from torch.nn import utils

    normalise = {
        "new": utils.parametrizations.weight_norm,
        "old": utils.weight_norm,
        "spectral": utils.spectral_norm,
    }[way]
    module = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(2, 3)})
    with warnings.catch_warnings(action="ignore"):  # the old way is deprecated
        normalise(module["lstm"], weight)
    message = rf"lstm\.(parametrizations\.)?{weight}\S+: of a normalised weight; first call torch's"
    with pytest.raises(ValueError, match=message):
        from_torch(module, "lstm.")


def test_a_compiled_module_is_the_module():
    module = torch.nn.LSTM(2, 3)
    with warnings.catch_warnings(action="ignore"):  # torch's own
        compiled: Any = torch.compile(module)
    for ours, theirs in zip(from_torch(compiled)[0], from_torch(module)[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="behind ''; one is at '_orig_mod.'"):
        from_torch(compiled.state_dict())
