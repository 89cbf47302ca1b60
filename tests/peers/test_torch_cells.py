"""torch's `proj_size` and GRU on the same weights; layer normalisation by torch's own.

`proj_size` adds weight_hr (R, H), which maps the output of a step to what the next one sees. The
GRU of torch has blocks r, z, n with z our update gate u, and a bias on the recurrent side, of which
only that of n is not one with the other. haste's LSTM with layer normalisation runs on a GPU alone,
so its published equations stand here, put together of `torch.nn.functional.layer_norm`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import jlstm
from tests.helpers.comparisons import assert_close, values_and_gradients
from tests.helpers.draws import draw_array, draw_carried, draw_like, draw_weights
from tests.helpers.oracle import CELLS

T, B, D, H, R = 5, 3, 2, 3, 2
unroll: Any = jlstm.unroll

pytestmark = pytest.mark.usefixtures("x64")


def projected(params, xs, state):
    lstm = torch.nn.LSTM(D, H, proj_size=R, dtype=torch.float64)
    W, U, b, V, _ = params
    weights = {
        "weight_ih_l0": W.T,
        "weight_hh_l0": U.T,
        "bias_ih_l0": b,
        "bias_hh_l0": torch.zeros_like(b),
        "weight_hr_l0": V.T,
    }
    carried = tuple(leaf[None] for leaf in state)
    hs, (h, c) = torch.func.functional_call(lstm, weights, (xs, carried))
    return jlstm.LSTMState(h[0], c[0]), hs


def gru(params, xs, state):
    network = torch.nn.GRU(D, H, dtype=torch.float64)
    W, U, b, b_n = params
    weights = {
        "weight_ih_l0": W.T,
        "weight_hh_l0": U.T,
        "bias_ih_l0": b,
        "bias_hh_l0": torch.cat([torch.zeros(2 * H, dtype=torch.float64), b_n]),
    }
    hs, h = torch.func.functional_call(network, weights, (xs, state.h[None]))
    return jlstm.cells.RNNState(h[0]), hs


def layer_norm(params, xs, state):
    W, U, b, gain_x, gain_h, gain_c, bias_c = params
    h, c = state
    normal = torch.nn.functional.layer_norm
    hs = []
    for x in xs:
        z = normal(x @ W, (4 * H,), gain_x) + normal(h @ U, (4 * H,), gain_h) + b
        i, f, g, o = z.chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * normal(c, (H,), gain_c, bias_c).tanh()
        hs.append(h)
    return jlstm.LSTMState(h, c), torch.stack(hs)


@pytest.mark.parametrize("theirs", [projected, gru, layer_norm])
def test_values_and_gradients(theirs):
    name = theirs.__name__
    params = draw_weights(name)
    if name == "projected":
        params = params._replace(P=None)
    inputs = params, draw_array(9, (T, B, D), jnp.float64), draw_carried(name, (B,))
    ours = partial(unroll, cell=CELLS[name].cell)
    cotangents = draw_like(jax.eval_shape(ours, *inputs), 7)
    values, gradients = values_and_gradients(ours, inputs, cotangents)

    tensors = jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), inputs)
    their_values = theirs(*tensors)
    pairs = zip(jax.tree.leaves(their_values), jax.tree.leaves(cotangents), strict=True)
    torch.stack([(y * torch.tensor(np.array(w))).sum() for y, w in pairs]).sum().backward()
    assert_close(values, to_jax(their_values))
    assert_close(gradients, to_jax(jax.tree.map(lambda tensor: tensor.grad, tensors)))


def to_jax(tree):
    return jax.tree.map(lambda tensor: jnp.asarray(tensor.detach().numpy()), tree)
