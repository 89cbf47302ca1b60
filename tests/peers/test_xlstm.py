"""The sLSTM of the package `xlstm`, by its plain forward function, on the same weights.

The package keeps the state as `[4, B, NH]`, y, c, n and m, and the recurrent weights of each of its
N heads apart. Its forget gate is logistic.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from xlstm.blocks.slstm.src.vanilla import slstm_forward, slstm_pointwise_function_registry

import jlstm
from jlstm import cells
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, draw_params

T, B, D, H = 7, 3, 2, 4
unroll: Any = jlstm.unroll

pytestmark = pytest.mark.usefixtures("x64")


def theirs(heads, xs, state):
    """All states, of N heads: weights `[N, …, 4H]`, the state `[4, B, NH]`."""
    W, U, b = heads
    N = len(W)
    gates = torch.einsum("tbd,ndgh->tbgnh", xs, W.reshape(N, D, 4, H)).reshape(T, B, -1)
    bias = b.reshape(N, 4, H).transpose(0, 1).reshape(-1)
    function = slstm_pointwise_function_registry["slstm"]
    return slstm_forward(gates, state, U.transpose(1, 2), bias, function)[0]


@pytest.mark.parametrize("N", [1, 2])
@pytest.mark.parametrize("fresh", [True, False], ids=["from zeros", "from a state"])
def test_states_and_gradients_of_heads(N, fresh):
    params = [draw_params(k, D, H, jnp.float64) for k in range(N)]
    heads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    xs = draw_array(1, (T, B, D), jnp.float64)
    state = jnp.zeros((4, B, N * H)) if fresh else draw_array(2, (4, B, N * H), jnp.float64)
    state = state.at[2].set(jnp.abs(state[2]))
    weights = draw_array(3, (4, T, B, N * H), jnp.float64)

    def ours(heads, xs, state):
        def one(head, state):
            start = cells.SLSTMState(*state)
            return unroll(head, xs, start, cell=cells.slstm, return_states=True)[1]

        apart = state.reshape(4, B, N, H)
        return jnp.stack(jax.vmap(one, (0, 2), -2)(heads, apart)).reshape(4, T, B, N * H)

    inputs = heads, xs, state
    values, pull = jax.vjp(ours, *inputs)
    tensors = jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), inputs)
    expected = theirs(*tensors)[:, 1:]
    (expected * torch.tensor(np.array(weights))).sum().backward()
    assert_close(values, jnp.asarray(expected.detach().numpy()), 1e-14)
    gradients = jax.tree.map(lambda tensor: jnp.asarray(tensor.grad.numpy()), tensors)
    came = pull(weights)
    if fresh:  # their derivative by a state of zeros is bounded as their gates are
        came, gradients = came[:2], gradients[:2]
    assert_close(came, gradients, 1e-13)


def test_parameters_are_drawn_as_theirs():
    from xlstm import sLSTMLayer, sLSTMLayerConfig

    layer = sLSTMLayer(sLSTMLayerConfig(embedding_dim=8, num_heads=1, backend="vanilla"))
    layer.reset_parameters()
    W, U, b = cells.init_slstm(jax.random.key(0), 8, 8)
    np.testing.assert_allclose(b.reshape(4, 8), layer.slstm_cell.bias[0].detach(), rtol=1e-6)
    assert not U.any() and not layer.slstm_cell.recurrent_kernel[0].detach().any()
    drawn = torch.cat([getattr(layer, f"{gate}gate").weight.flatten() for gate in "ifzo"])
    np.testing.assert_allclose(np.std(W), drawn.std().item(), rtol=0.2)
