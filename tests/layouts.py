"""Our parameters in the layouts of other libraries: for comparing with them and for timing them.

A library is imported where its classes are needed, so that each can be used without the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

import jlstm

if TYPE_CHECKING:
    import equinox as eqx
    from flax import nnx


def sizes_of(params) -> tuple:
    """D, H, and the dtype."""
    return params.W.shape[0], params.U.shape[0], params.W.dtype


def to_linen(params: jlstm.LSTMParams) -> dict:
    """The parameters of linen's `LSTMCell` and `OptimizedLSTMCell`: eight dense layers."""
    gates = {}
    for name, gate in jlstm.unpack_gates(params).items():
        gates[f"i{name}"] = {"kernel": gate.W.T}
        gates[f"h{name}"] = {"kernel": gate.U.T, "bias": gate.b.ravel()}
    return gates


def to_nnx(params: jlstm.LSTMParams) -> nnx.OptimizedLSTMCell:
    """nnx's `OptimizedLSTMCell`: packed as ours, the bias on the recurrent side."""
    from flax import nnx

    D, H, dtype = sizes_of(params)
    cell = nnx.OptimizedLSTMCell(D, H, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    cell.dense_i.kernel = nnx.Param(jnp.asarray(params.W))
    cell.dense_h.kernel = nnx.Param(jnp.asarray(params.U))
    cell.dense_h.bias = nnx.Param(jnp.asarray(params.b))
    return cell


def to_equinox(params: jlstm.LSTMParams) -> eqx.nn.LSTMCell:
    """equinox's `LSTMCell`: transposed weights."""
    import equinox as eqx

    D, H, dtype = sizes_of(params)
    cell = eqx.nn.LSTMCell(D, H, dtype=dtype, key=jax.random.key(0))
    weights = params.W.T, params.U.T, params.b
    return eqx.tree_at(lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias), cell, weights)


def to_haiku(params: jlstm.LSTMParams) -> dict:
    """What `hk.transform` hands to an LSTM: `w [D + H, 4H]` and `b [4H]`, gates i, g, f, o.

    Its cell adds 1 to the forget gate: what is 1 in its equations is 0 in its parameters.
    """
    both = jnp.concatenate([params.W, params.U])
    i, f, g, o = jnp.split(both, 4, axis=-1)
    b_i, b_f, b_g, b_o = jnp.split(params.b, 4)
    w = jnp.concatenate([i, g, f, o], axis=-1)
    return {"lstm/linear": {"w": w, "b": jnp.concatenate([b_i, b_g, b_f - 1, b_o])}}


def directions_of(entry) -> tuple:
    """One entry of a stack as the directions it has."""
    return tuple(entry) if isinstance(entry, jlstm.Bidirectional) else (entry,)


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
