"""Parameters and state of an LSTM: two NamedTuples of arrays, and how to make them.

Gates are packed in the order i, f, g, o: input gate, forget gate, candidate, output gate.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm import initializers
from jlstm.checks import check_floats, check_key, check_shape, check_size, describe
from jlstm.dtypes import Array, Key, Numeric, common_dtype
from jlstm.initializers import Initializer
from jlstm.layout import Layout, check_input, check_state, sizes_of, state_like, zeros_like

GATE_ORDER = "ifgo"


class LSTMParams(NamedTuple):
    """The weights, four gate blocks i, f, g, o side by side.

    W: `[D, 4H]`, from the input.
    U: `[H, 4H]`, from the hidden state.
    b: `[4H]`, the bias.
    """

    W: Array
    U: Array
    b: Array


class LSTMState(NamedTuple):
    """What is carried from step to step.

    h: `[*B, H]`, the hidden state, which is also the output.
    c: `[*B, H]`, the cell state.
    """

    h: Array
    c: Array


class Gate(NamedTuple):
    """One gate's matrices as they stand in the equations for column vectors, `W x + U h + b`.

    W: `[H, D]`, from the input.
    U: `[H, H]`, from the hidden state.
    b: `[H, 1]`, the bias.
    """

    W: Array
    U: Array
    b: Array


def init(
    key: Key,
    input_size: int,
    hidden_size: int,
    *,
    kernel_init: Initializer = jax.nn.initializers.lecun_normal(),
    recurrent_init: Initializer = jax.nn.initializers.orthogonal(),
    forget_bias: Numeric = 1.0,
    bias_init: Initializer | None = None,
    dtype=jnp.float32,
) -> LSTMParams:
    """Draws the parameters of one LSTM, each gate's block on its own.

    Args:
      key: a typed key, `jax.random.key(seed)`.
      input_size: D.
      hidden_size: H.
      kernel_init: draws each `[D, H]` block of W; any of `jax.nn.initializers`.
      recurrent_init: draws each `[H, H]` block of U.
      forget_bias: the forget gate's bias at the start; the other biases are zero.
      bias_init: draws all of b `[4H]` in place of that, `jlstm.initializers.chrono_bias(T)` say.
      dtype: of every parameter.

    Returns:
      `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`.

    Raises:
      TypeError: `key` is not a typed key, or a size is not an int.
      ValueError: a size is not positive.

    Many seeds: `jax.vmap(init, (0, None, None))(keys, input_size, hidden_size)`.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> jax.tree.map(lambda p: p.shape, params)
    LSTMParams(W=(2, 12), U=(3, 12), b=(12,))
    """
    check_key(key)
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    bias_init = bias_init or initializers.forget_bias(forget_bias)
    key_W, key_U, key_b = jax.random.split(key, 3)
    return LSTMParams(
        W=initializers.per_gate(kernel_init)(key_W, (input_size, 4 * hidden_size), dtype),
        U=initializers.per_gate(recurrent_init)(key_U, (hidden_size, 4 * hidden_size), dtype),
        b=bias_init(key_b, (4 * hidden_size,), dtype),
    )


def zero_state(params: Any, batch_shape: tuple[int, ...] = (), *, cell: Any = None) -> Any:
    """The state of zeros, `LSTMState(h [*B, H], c [*B, H])`.

    h has the dtype of the parameters; c is at least float32.

    Args:
      params: `LSTMParams`, or those of `cell`.
      batch_shape: `B`.
      cell: a variant of `jlstm.cells`, whose state it is; None is the standard cell.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> jlstm.zero_state(params, (5,)).h.shape
    (5, 3)
    """
    layout = getattr(cell, "layout", LSTM)
    sizes = sizes_of("params", params, layout)
    check_shape("batch_shape", batch_shape)
    return zeros_like(state_like(layout, sizes, batch_shape, common_dtype(params)))


def pack_gates(gates: Mapping[str, Gate]) -> LSTMParams:
    """Packs four named gates into one set of parameters.

    Args:
      gates: the matrices by name, `(W [H, D], U [H, H], b [H, 1])` each: "i", "f", "o", and the
        candidate as "g" or "c". The order of the mapping has no meaning.

    Raises:
      TypeError: what is not a mapping of triples of float arrays.
      ValueError: the names are not those of the four gates, or the sizes do not fit each other.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> again = jlstm.pack_gates(jlstm.unpack_gates(params, "fioc"))
    >>> bool((again.W == params.W).all())
    True
    """
    check_gates(gates)
    named = {"g" if name == "c" else name: gate for name, gate in gates.items()}
    if set(named) != set(GATE_ORDER) or len(named) != len(gates):
        expected = "i, f, o, and g or c"
        raise ValueError(f"gates: expected the names {expected}, got {', '.join(map(str, gates))}")
    columns = [Gate(*named[name]) for name in GATE_ORDER]
    return LSTMParams(
        W=jnp.concatenate([jnp.asarray(gate.W).T for gate in columns], axis=-1),
        U=jnp.concatenate([jnp.asarray(gate.U).T for gate in columns], axis=-1),
        b=jnp.concatenate([jnp.asarray(gate.b)[:, 0] for gate in columns], axis=-1),
    )


def unpack_gates(params: LSTMParams, order: str = GATE_ORDER) -> dict[str, Gate]:
    """The four gates of `params` by name, in the order asked for; the inverse of `pack_gates`.

    Args:
      params: one set of parameters.
      order: four letters, "i", "f", "o", and "g" or "c" for the candidate, such as the notebook's
        "fioc".

    Raises:
      TypeError, ValueError: `params` is malformed, or `order` does not name the four gates.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> {name: gate.W.shape for name, gate in jlstm.unpack_gates(params, "fioc").items()}
    {'f': (3, 2), 'i': (3, 2), 'o': (3, 2), 'c': (3, 2)}
    """
    check_params("params", params)
    if not isinstance(order, str):
        raise TypeError(f"order: expected four letters, got {describe(order)}")
    places = [GATE_ORDER.find(name.replace("c", "g")) for name in order]
    if sorted(places) != [0, 1, 2, 3]:
        raise ValueError(f"order: expected the letters i, f, o, and g or c, got {order!r}")
    W, U, b = (jnp.split(block, 4, axis=-1) for block in params)
    return {
        name: Gate(W[k].T, U[k].T, b[k][:, None]) for name, k in zip(order, places, strict=True)
    }


LSTM = Layout(LSTMParams, ("D 4H", "H 4H", "4H"), LSTMState, ("H", "H"))


def check_params(name: str, params: LSTMParams) -> None:
    """Refuses parameters whose sizes do not fit each other."""
    sizes_of(name, params, LSTM)


def check_gates(gates: Mapping[str, Gate]) -> None:
    """Refuses gates whose matrices do not fit each other, or those of the first gate."""
    if not isinstance(gates, Mapping):
        raise TypeError(f"gates: expected a mapping from names to gates, got {describe(gates)}")
    H: Any = None
    D: Any = None
    for name, gate in gates.items():
        if not isinstance(gate, tuple) or len(gate) != 3:
            raise TypeError(f"gates[{name!r}]: expected a tuple of W, U, b, got {describe(gate)}")
        for field, array in zip(Gate._fields, gate, strict=True):
            check_floats(f"gates[{name!r}].{field}", array)
        if H is None:
            (H, D) = gate[0].shape if gate[0].ndim == 2 else ("H", "D")
        if [array.shape for array in gate] != [(H, D), (H, H), (H, 1)]:
            expected = f"(W=[{H}, {D}], U=[{H}, {H}], b=[{H}, 1])"
            raise ValueError(f"gates[{name!r}]: expected Gate{expected}, got {describe(gate)}")


def check_step(params: LSTMParams, state: LSTMState, x: Array) -> None:
    """Refuses arguments of a cell that do not fit each other."""
    sizes = sizes_of("params", params, LSTM)
    check_input("x", x, sizes)
    check_state("state", state, LSTM, sizes, x.shape[:-1])
