"""Our parameters in the layouts of other libraries: for comparing with them and for timing them.

A library is imported where its classes are needed, so that each can be used without the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jlstm
from jlstm.interop.equinox import to_equinox
from jlstm.interop.flax import to_linen
from jlstm.interop.flax import to_nnx as state_of_nnx
from jlstm.interop.haiku import to_haiku
from jlstm.interop.weights import directions_of

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["directions_of", "to_equinox", "to_haiku", "to_linen", "to_nnx", "torch_weights"]


def to_nnx(params: jlstm.LSTMParams) -> nnx.OptimizedLSTMCell:
    """nnx's `OptimizedLSTMCell`: packed as ours, the bias on the recurrent side."""
    from flax import nnx

    D, H, dtype = params.W.shape[0], params.U.shape[0], params.W.dtype
    cell = nnx.OptimizedLSTMCell(D, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    nnx.update(cell, state_of_nnx(params))
    return cell


def torch_weights(layers) -> dict:
    """The parameters of a `torch.nn.LSTM` by name. Our bias is half in each of its two."""
    weights = {}
    for k, layer in enumerate(layers):
        for params, suffix in zip(directions_of(layer), ("", "_reverse"), strict=False):
            weights[f"weight_ih_l{k}{suffix}"] = params.W.T
            weights[f"weight_hh_l{k}{suffix}"] = params.U.T
            weights[f"bias_ih_l{k}{suffix}"] = params.b / 2
            weights[f"bias_hh_l{k}{suffix}"] = params.b / 2
    return weights
