"""The trained model: a stack of LSTMs, or of another cell, and a linear readout."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell
from jlstm._src.dtypes import Array
from jlstm._src.initializers import chrono_bias
from jlstm._src.initializers import forget_bias as constant_bias
from jlstm._src.lstm import init, lstm
from jlstm._src.noise import drop
from jlstm._src.stack import Bidirectional, Init, init_stack
from jlstm._src.unroll_stack import unroll_stack


class Model(NamedTuple):
    """The parameters of a stack and its readout.

    layers: a stack, from `jlstm.init_stack`.
    W, b: the readout `[H, O]` of the last layer, `[2H, O]` for both directions, and its bias `[O]`.
    """

    layers: tuple[Any, ...]
    W: Array
    b: Array


def init_model(
    key: chex.PRNGKey,
    input_size: int,
    hidden_sizes: tuple[int, ...],
    output_size: int,
    *,
    forget_bias: chex.Numeric = 1.0,
    chrono: chex.Numeric = False,
    longest_lag: int = 3,
    init: Init = init,
    bidirectional: bool = False,
) -> Model:
    """Draws the parameters; the bias of the readout is zero.

    Args:
      key, input_size, hidden_sizes, output_size: a key, D, each layer's H, and O.
      forget_bias: the bias of every layer's forget gate.
      chrono: whether `jlstm.initializers.chrono_bias(longest_lag)` draws the biases of forget and
        input gates instead; may be traced, so that one compiled program has both.
      longest_lag: the longest lag for `chrono`, in steps.
      init: `jlstm.init` or the init of a variant, which receives the biases of all four gates as
        `bias_init` and uses those of its own gates; see the docstrings of coupled gates and GRU.
      bidirectional: whether every layer runs in both directions.

    >>> import jax
    >>> model = init_model(jax.random.key(0), 2, (3,), 1)
    >>> model.W.shape, model.b.shape
    ((3, 1), (1,))
    """
    stack_key, readout_key = jax.random.split(key)
    constant, spread = constant_bias(forget_bias), chrono_bias(longest_lag)

    def bias_init(key, *like):
        return jnp.where(chrono, spread(key, *like), constant(key, *like))

    options: Any = {"init": init, "bias_init": bias_init, "bidirectional": bidirectional}
    layers: Any = init_stack(stack_key, input_size, hidden_sizes, **options)
    directions = layers[-1] if bidirectional else layers[-1:]
    width = sum(layer.U.shape[0] for layer in directions)  # a projected h is smaller than H
    W = jax.nn.initializers.lecun_normal()(readout_key, (width, output_size))
    return Model(layers, W, jnp.zeros(output_size, W.dtype))


def apply_model(
    model: Model,
    xs: Array,
    mask: Array | None = None,
    *,
    answers: str = "every",
    dropout: chex.Numeric = 0.0,
    key: chex.PRNGKey | None = None,
    cell: Cell = lstm,
) -> Array:
    """Computes the outputs `[T, B, O]`, or `[B, O]` of the last step of each sequence.

        ys = drop(hs) W + b,   hs = unroll_stack(layers, xs)

    Args:
      model: the parameters, from `init_model`.
      xs, mask: `[T, B, D]`, and bool `[T, B]`, False after the end of a sequence.
      answers: "every" step, or the "last", which is the first step for the backward direction.
      dropout, key: the rate between layers and before the readout (Zaremba et al. 2014), and a key
        for the masks; without a key there is no dropout.
      cell: the cell of every layer.

    >>> import jax
    >>> model = init_model(jax.random.key(0), 2, (3,), 1)
    >>> apply_model(model, jax.numpy.ones((10, 5, 2)), answers="last").shape
    (5, 1)
    """
    options: Any = {} if key is None else {"dropout": dropout, "key": key}
    states, hs = unroll_stack(model.layers, xs, mask=mask, cell=cell, **options)
    if answers == "last":
        # A skipped step holds the state, so the final h belongs to the last step of the sequence.
        both = states[-1] if isinstance(states[-1], Bidirectional) else states[-1:]
        hs = jnp.concatenate([state.h for state in both], axis=-1)
    if key is not None:
        hs = drop(jax.random.fold_in(key, len(model.layers)), dropout, hs)
    return read_out(model, hs)


def read_out(model: Model, hs: Array) -> Array:
    """Computes the outputs of the readout, `hs W + b`."""
    ys = jnp.matmul(hs, model.W)
    return ys + jnp.broadcast_to(model.b, ys.shape)
