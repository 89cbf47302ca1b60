"""flax: the LSTMCell and the OptimizedLSTMCell of linen and of nnx, RNN and Bidirectional.

    linen, and nnx's LSTMCell              jlstm
    ii, if, ig, io: kernel [D, H]          the four blocks of W [D, 4H]
    hi, hf, hg, ho: kernel [H, H]          the four blocks of U [H, 4H]
    hi, hf, hg, ho: bias [H]               the four blocks of b [4H]

    nnx's OptimizedLSTMCell                jlstm
    dense_i: kernel [D, 4H]                W
    dense_h: kernel [H, 4H], bias [4H]     U, b

    carry (c, h)                           LSTMState(h, c), the other way round

nnx spells "if" as "if_". RNN puts "cell" before these names, Bidirectional "forward_rnn" and
"backward_rnn". flax runs on through the padding behind `seq_lengths`, where jlstm gives zeros.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jlstm._src.checks import describe
from jlstm._src.lstm import GATE_ORDER, LSTMParams, LSTMState
from jlstm._src.stack import Bidirectional
from jlstm.interop.weights import as_array, check_lstm, first_few, lstm_params, numpy_of

Layer = LSTMParams | Bidirectional


# --- linen


def from_linen(params: Mapping, module: Any = None) -> Layer:
    """The parameters of an LSTM of linen.

    Args:
      params: those of an LSTMCell, an OptimizedLSTMCell, an RNN or a Bidirectional, from `init` of
        linen, with "params" around them or without.
      module: the module that they belong to, whose activations are then checked.

    Returns:
      `LSTMParams`, or `Bidirectional` of two.

    Raises:
      TypeError: these are no arrays by name.
      ValueError: the names or the sizes are not those of an LSTM, or the module has another
        activation.

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
    """The parameters of linen's LSTMCell and OptimizedLSTMCell, or of a Bidirectional of RNNs.

    Those of an RNN are `{"cell": to_linen(params)}`.

    Args:
      params: `LSTMParams`, or `Bidirectional` of two.

    Raises:
      TypeError, ValueError: parameters that flax has no place for.

    >>> import jax, jlstm
    >>> list(to_linen(jlstm.init(jax.random.key(0), 2, 3)))
    ['ii', 'if', 'ig', 'io', 'hi', 'hf', 'hg', 'ho']
    """
    return _in_cells(params, _eight_layers)


def _eight_layers(params: LSTMParams) -> dict[str, Any]:
    check_lstm("flax's LSTMCell", params)
    W, U, b = (numpy_of(array).split(array, 4, axis=-1) for array in params)
    inputs = {f"i{gate}": {"kernel": W[k]} for k, gate in enumerate(GATE_ORDER)}
    return inputs | {
        f"h{gate}": {"kernel": U[k], "bias": b[k]} for k, gate in enumerate(GATE_ORDER)
    }


# --- nnx


def from_nnx(module: Any) -> Layer:
    """The parameters of an LSTM of nnx.

    Args:
      module: `nnx.LSTMCell`, `nnx.OptimizedLSTMCell`, `nnx.RNN` or `nnx.Bidirectional` around them,
        or an `nnx.State` of one of these, such as its gradient.

    Returns:
      `LSTMParams`, or `Bidirectional` of two.

    Raises:
      ValueError: the names or the sizes are not those of an LSTM, or the module has another
        activation, or another way of merging the directions than side by side.

    >>> from flax import nnx
    >>> from_nnx(nnx.LSTMCell(2, 3, rngs=nnx.Rngs(0))).W.shape
    (2, 12)
    """
    from flax import nnx

    if isinstance(module, nnx.State):
        state = module
    else:
        _check_module("nnx", module)
        state = nnx.state(module, nnx.Param)
    return _from_tree("module", nnx.to_pure_dict(state))


def to_nnx(params: Layer, *, optimized: bool = True) -> Any:
    """An `nnx.State` of these parameters, for `nnx.update(module, state)`.

    Args:
      params: `LSTMParams`, for an OptimizedLSTMCell, such as the `cell` of an RNN; or
        `Bidirectional` of two, for an `nnx.Bidirectional` of RNNs.
      optimized: False for an LSTMCell in its place.

    Raises:
      TypeError, ValueError: parameters that flax has no place for.

    >>> import jax, jlstm
    >>> from flax import nnx
    >>> cell = nnx.OptimizedLSTMCell(2, 3, rngs=nnx.Rngs(0))
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> nnx.update(cell, to_nnx(params))
    >>> bool((from_nnx(cell).W == params.W).all())
    True
    """
    from flax import nnx

    tree = _in_cells(params, _two_layers if optimized else _eight_nnx_layers)
    return nnx.State(jax.tree.map(nnx.Param, tree))


def _eight_nnx_layers(params: LSTMParams) -> dict[str, Any]:
    return {"if_" if name == "if" else name: v for name, v in _eight_layers(params).items()}


def _two_layers(params: LSTMParams) -> dict[str, Any]:
    check_lstm("flax's OptimizedLSTMCell", params)
    return {"dense_i": {"kernel": params.W}, "dense_h": {"kernel": params.U, "bias": params.b}}


# --- both


def _in_cells(params: Any, layout: Any) -> dict[str, Any]:
    if not isinstance(params, Bidirectional):
        return layout(params)
    both = zip(("forward_rnn", "backward_rnn"), params, strict=True)
    return {name: {"cell": layout(one)} for name, one in both}


def _from_tree(source: str, tree: Any) -> Layer:
    """`LSTMParams` of arrays by name, whatever stands around them."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"{source}: expected arrays by name, got {describe(tree)}")
    for around in ("params", "cell"):
        if set(tree) == {around}:
            return _from_tree(f"{source}.{around}", tree[around])
    if set(tree) == {"forward_rnn", "backward_rnn"}:
        forward, backward = (
            _from_tree(f"{source}.{name}", tree[name]) for name in ("forward_rnn", "backward_rnn")
        )
        return Bidirectional(forward, backward)
    if set(tree) == {"dense_i", "dense_h"}:
        _check_leaves(source, tree, {"dense_i": ("kernel",), "dense_h": ("kernel", "bias")})
        W, U, b = (
            as_array(f"{source}.{name}.{leaf}", tree[name][leaf])
            for name, leaf in (("dense_i", "kernel"), ("dense_h", "kernel"), ("dense_h", "bias"))
        )
        return lstm_params(source, W, U, b)
    tree = {name.removesuffix("_"): leaves for name, leaves in tree.items()}
    expected = {f"i{gate}": ("kernel",) for gate in GATE_ORDER}
    expected |= {f"h{gate}": ("kernel", "bias") for gate in GATE_ORDER}
    _check_leaves(source, tree, expected)
    kinds = ("i", "kernel"), ("h", "kernel"), ("h", "bias")
    W, U, b = (_gates(source, tree, side, leaf) for side, leaf in kinds)
    return lstm_params(source, W, U, b)


def _gates(source: str, tree: Mapping, side: str, leaf: str) -> Any:
    """The four blocks of one kind, side by side."""
    names = [side + gate for gate in GATE_ORDER]
    blocks = [as_array(f"{source}.{name}.{leaf}", tree[name][leaf]) for name in names]
    if len({block.shape for block in blocks}) > 1:
        came = first_few(str(list(block.shape)) for block in blocks)
        raise ValueError(f"{source}: expected one shape for the {leaf}s of {names}, got {came}")
    return numpy_of(*blocks).concatenate(blocks, axis=-1)


def _check_leaves(source: str, tree: Mapping, expected: Mapping) -> None:
    came = {name: set(part) if isinstance(part, Mapping) else set() for name, part in tree.items()}
    if came != {name: set(leaves) for name, leaves in expected.items()}:
        raise ValueError(f"{source}: expected the layers of an LSTM, got {first_few(tree)}")


def _check_module(library: str, module: Any) -> None:
    """Refuses what the arrays do not show: other activations, other ways to merge."""
    if hasattr(module, "forward_rnn"):
        standard = inspect.signature(type(module).__init__).parameters["merge_fn"].default
        if module.merge_fn is not standard:
            raise ValueError(f"merge_fn: expected flax's own, got {_name(module.merge_fn)}")
        _check_module(library, module.forward_rnn)
        _check_module(library, module.backward_rnn)
        return
    cell = getattr(module, "cell", module)
    if type(cell).__name__ not in ("LSTMCell", "OptimizedLSTMCell"):
        raise TypeError(f"module: expected an LSTM of {library}, got {type(cell).__name__}")
    for field, (name, functions) in _ACTIVATIONS.items():
        if getattr(cell, field) not in functions:
            raise ValueError(f"{field}: expected {name}, got {_name(getattr(cell, field))}")


_ACTIVATIONS = {
    "gate_fn": ("sigmoid", (jax.nn.sigmoid, jax.lax.logistic)),
    "activation_fn": ("tanh", (jnp.tanh, jax.nn.tanh, jax.lax.tanh)),
}


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)


def state_from_flax(carry: tuple) -> LSTMState | Bidirectional:
    """`LSTMState(h, c)` from the carry `(c, h)` of flax, `Bidirectional` from a pair of carries.

    >>> state_from_flax(("c", "h"))
    LSTMState(h='h', c='c')
    """
    first, second = carry
    if isinstance(first, tuple):
        return Bidirectional(state_from_flax(first), state_from_flax(second))
    return LSTMState(h=second, c=first)


def state_to_flax(state: LSTMState | Bidirectional) -> tuple:
    """The carry `(c, h)` of flax from `LSTMState(h, c)`, a pair of carries from `Bidirectional`."""
    if isinstance(state, Bidirectional):
        return state_to_flax(state.forward), state_to_flax(state.backward)
    return state.c, state.h
