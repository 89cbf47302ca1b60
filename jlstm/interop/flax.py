"""Converts flax's LSTMCell and OptimizedLSTMCell, of linen and nnx, in RNN and Bidirectional.

    linen, and nnx's LSTMCell        nnx's OptimizedLSTMCell    jlstm
    ii, if, ig, io: kernel [D, H]    dense_i: kernel [D, 4H]    W [D, 4H]
    hi, hf, hg, ho: kernel [H, H]    dense_h: kernel [H, 4H]    U [H, 4H]
    hi, hf, hg, ho: bias [H]         dense_h: bias [4H]         b [4H]
    carry (c, h)                     carry (c, h)               LSTMState(h, c), in the other order

nnx spells "if" as "if_". RNN puts "cell" before these names, Bidirectional "forward_rnn" and
"backward_rnn". flax runs on the padding after `seq_lengths`, where jlstm returns zeros.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jlstm._src.checks import check
from jlstm._src.lstm import LSTMParams, LSTMState
from jlstm._src.stack import Bidirectional
from jlstm.interop.weights import as_array, check_lstm, first_few, lstm_params, numpy_of

Layer = LSTMParams | Bidirectional
_DIRECTIONS = "forward_rnn", "backward_rnn"
_FUSED = ["dense_i"], ["dense_h"]  # the names of the layers of x and of h
_SPLIT = ["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"]
_ACTIVATIONS = {
    "gate_fn": ("sigmoid", (jax.nn.sigmoid, jax.lax.logistic)),
    "activation_fn": ("tanh", (jnp.tanh, jax.nn.tanh, jax.lax.tanh)),
}


def from_linen(params: Mapping, module: Any = None) -> Layer:
    """Converts an LSTM of linen to `LSTMParams`, or a Bidirectional to `Bidirectional` of two.

    Args:
      params: the parameters from linen's `init`, with or without "params" around them.
      module: the module of these parameters; if given, its activations are checked.

    Raises:
      TypeError, ValueError: `params` do not fit an LSTM, or `module` computes something else.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> again = from_linen({"params": {"cell": to_linen(params)}})
    >>> bool((again.W == params.W).all())
    True
    """
    if module is not None:
        _check_module("linen", module)
    return _from_tree("params", params)


def to_linen(params: Layer) -> dict[str, Any]:
    """Converts `LSTMParams` for linen's LSTM cells, `Bidirectional` for a Bidirectional of RNNs.

    The parameters of an RNN are `{"cell": to_linen(params)}`.

    Raises:
      TypeError, ValueError: flax cannot hold these parameters.

    >>> import jax, jlstm
    >>> list(to_linen(jlstm.init(jax.random.key(0), 2, 3)))
    ['ii', 'if', 'ig', 'io', 'hi', 'hf', 'hg', 'ho']
    """
    return _to_tree(params, "LSTMCell", _SPLIT)


def from_nnx(module: Any) -> Layer:
    """Converts an LSTM of nnx to `LSTMParams`, or a Bidirectional to `Bidirectional` of two.

    Args:
      module: a cell, `nnx.RNN` or `nnx.Bidirectional`, or its `nnx.State`, such as a gradient.

    Raises:
      TypeError, ValueError: as `from_linen`.

    >>> from flax import nnx
    >>> from_nnx(nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0))).W.shape
    (2, 12)
    """
    from flax import nnx

    if not isinstance(module, nnx.State):
        _check_module("nnx", module)
        module = nnx.state(module, nnx.Param)
    return _from_tree("module", nnx.to_pure_dict(module))


def to_nnx(params: Layer, *, optimized: bool = True) -> Any:
    """Converts to an `nnx.State`, for `nnx.update(module, state)`.

    Args:
      params: as for `to_linen`.
      optimized: True for an OptimizedLSTMCell, False for an LSTMCell.

    Raises:
      TypeError, ValueError: flax cannot hold these parameters.

    >>> import jax, jlstm
    >>> from flax import nnx
    >>> cell = nnx.OptimizedLSTMCell(2, 3, rngs=nnx.Rngs(0))
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> nnx.update(cell, to_nnx(params))
    >>> bool((from_nnx(cell).W == params.W).all())
    True
    """
    from flax import nnx

    names = _FUSED if optimized else (["ii", "if_", "ig", "io"], _SPLIT[1])
    cell = "OptimizedLSTMCell" if optimized else "LSTMCell"
    return nnx.State(jax.tree.map(nnx.Param, _to_tree(params, cell, names)))


def _to_tree(params: Any, cell: str, names: tuple[list[str], list[str]]) -> dict[str, Any]:
    if isinstance(params, Bidirectional):
        both = zip(_DIRECTIONS, params, strict=True)
        return {name: {"cell": _to_tree(one, cell, names)} for name, one in both}
    check_lstm(f"flax's {cell}", params)
    inputs, hidden = names
    W, U, b = (numpy_of(array).split(array, len(inputs), axis=-1) for array in params)
    tree = {name: {"kernel": w} for name, w in zip(inputs, W, strict=True)}
    return tree | {n: {"kernel": u, "bias": b} for n, u, b in zip(hidden, U, b, strict=True)}


def _from_tree(source: str, tree: Any) -> Layer:
    """Joins the arrays of an LSTM, inside "params", "cell" or the names of directions."""
    check(isinstance(tree, Mapping), source, "arrays by name", tree, TypeError)
    for around in ("params", "cell"):
        if set(tree) == {around}:
            return _from_tree(f"{source}.{around}", tree[around])
    if set(tree) == {*_DIRECTIONS}:
        return Bidirectional(*(_from_tree(f"{source}.{name}", tree[name]) for name in _DIRECTIONS))
    tree = {name.removesuffix("_"): leaves for name, leaves in tree.items()}
    inputs, hidden = _FUSED if set(tree) == {"dense_i", "dense_h"} else _SPLIT
    expected = dict.fromkeys(inputs, {"kernel"}) | dict.fromkeys(hidden, {"kernel", "bias"})
    found = {name: set(part) if isinstance(part, Mapping) else set() for name, part in tree.items()}
    if found != expected:
        raise ValueError(f"{source}: expected the layers of an LSTM, got {first_few(tree)}")
    arrays = []
    for names, leaf in ((inputs, "kernel"), (hidden, "kernel"), (hidden, "bias")):
        blocks = [as_array(f"{source}.{name}.{leaf}", tree[name][leaf]) for name in names]
        if len({block.shape for block in blocks}) > 1:
            got = first_few(str(list(block.shape)) for block in blocks)
            raise ValueError(f"{source}: expected one shape for the {leaf}s of {names}, got {got}")
        arrays.append(numpy_of(*blocks).concatenate(blocks, axis=-1))
    return lstm_params(source, *arrays)


def _check_module(library: str, module: Any) -> None:
    if hasattr(module, "forward_rnn"):
        standard = inspect.signature(type(module).__init__).parameters["merge_fn"].default
        if (got := module.merge_fn) is not standard:
            raise ValueError(f"merge_fn: expected flax's own, got {getattr(got, '__name__', got)}")
        _check_module(library, module.forward_rnn)
        return _check_module(library, module.backward_rnn)
    cell = getattr(module, "cell", module)
    if type(cell).__name__ not in ("LSTMCell", "OptimizedLSTMCell"):
        raise TypeError(f"module: expected an LSTM of {library}, got {type(cell).__name__}")
    for field, (name, functions) in _ACTIVATIONS.items():
        if (got := getattr(cell, field)) not in functions:
            raise ValueError(f"{field}: expected {name}, got {getattr(got, '__name__', got)}")


def state_from_flax(carry: tuple) -> LSTMState | Bidirectional:
    """Converts flax's carry `(c, h)` to `LSTMState(h, c)`, a pair of carries to `Bidirectional`.

    >>> state_from_flax(("c", "h"))
    LSTMState(h='h', c='c')
    """
    c, h = carry
    return Bidirectional(*map(state_from_flax, carry)) if isinstance(c, tuple) else LSTMState(h, c)


def state_to_flax(state: LSTMState | Bidirectional) -> tuple:
    """Converts `LSTMState(h, c)` to flax's carry `(c, h)`, `Bidirectional` to a pair of carries."""
    both = isinstance(state, Bidirectional)
    return tuple(map(state_to_flax, state)) if both else (state.c, state.h)
