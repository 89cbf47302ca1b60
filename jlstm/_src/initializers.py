"""The initializers of `jlstm.initializers`."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_batching import sequential_vmap

from jlstm._src.checks import check_real, check_size
from jlstm._src.dtypes import Array, at_least_float32
from jlstm._src.modules import set_module

Initializer = Callable[..., Array]

GATES = 4


@set_module("jlstm.initializers")
def per_gate(initializer: Initializer) -> Initializer:
    """Per-gate initializer: draws each block `[..., H]` of a packed array `[..., 4H]` separately.

    Blocks of one draw `[H, 4H]` would not be orthogonal, and would have the variance of another
    fan. Separate draws agree with the papers (Saxe et al. 2014 for orthogonal matrices).

    >>> import jax, jax.numpy as jnp
    >>> U = per_gate(jax.nn.initializers.orthogonal())(jax.random.key(0), (3, 12))
    >>> U_f = U[:, 3:6]
    >>> bool(jnp.allclose(U_f @ U_f.T, jnp.eye(3), atol=1e-6))
    True
    """

    draw = one_by_one(initializer)

    def init(key: chex.PRNGKey, shape, dtype=jnp.float32) -> Array:
        *leading, width = shape
        keys, block_shape = jax.random.split(key, GATES), (*leading, width // GATES)
        # JAX has no QR decomposition, which draws orthogonal matrices, below float32.
        blocks = [draw(k, block_shape, at_least_float32(dtype)) for k in keys]
        return jnp.concatenate(blocks, axis=-1).astype(dtype)

    return init


@set_module("jlstm.initializers")
def one_by_one(initializer: Initializer) -> Initializer:
    """Sequential initializer: under `vmap` it draws one array after the other.

    In jaxlib 0.10.2 a batch of QR decompositions, which draw orthogonal matrices, waits in one of
    XLA's threads for work on the same threads. If as many batches run as the CPU has threads, side
    by side or on several devices, they wait forever.

    >>> import jax
    >>> draw = one_by_one(jax.nn.initializers.orthogonal())
    >>> jax.vmap(lambda key: draw(key, (3, 3)))(jax.random.split(jax.random.key(0), 5)).shape
    (5, 3, 3)
    """

    def init(key: chex.PRNGKey, shape, dtype=jnp.float32) -> Array:
        def draw(key):
            return initializer(key, shape, dtype)

        return sequential_vmap(draw)(key) if isinstance(key, Tracer) else draw(key)

    return init


@set_module("jlstm.initializers")
def forget_bias(value: chex.Numeric) -> Initializer:
    """Forget-bias initializer: a packed bias `[4H]`, `value` for the forget gate, zero elsewhere.

    An open forget gate lets gradients reach further back at the start of training
    (Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015).

    >>> import jax
    >>> forget_bias(1.0)(jax.random.key(0), (8,))
    Array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32)
    """

    if not hasattr(value, "dtype"):
        check_real("value", value)

    def init(key: chex.PRNGKey, shape, dtype=jnp.float32) -> Array:
        zero = jnp.zeros((*shape[:-1], shape[-1] // GATES), dtype)
        return jnp.concatenate([zero, zero + jnp.asarray(value, dtype), zero, zero], axis=-1)

    return init


def bias_of(value: Any, bias_init: Initializer | None, default: Any = 1.0) -> Initializer:
    """Returns the initializer of a bias; `value` and `bias_init` exclude each other."""
    if value is not None:
        check_real("forget_bias", value)
    if bias_init is None:
        return forget_bias(default if value is None else value)
    if value is not None:
        raise ValueError("forget_bias: expected None beside bias_init, which draws every bias")
    return bias_init


@set_module("jlstm.initializers")
def chrono_bias(longest_lag: int) -> Initializer:
    """Chrono initializer: a packed bias `[4H]` for time scales from 1 to `longest_lag` steps.

        b_f = log(U(1, T - 1)),   b_i = -b_f,   b_g = b_o = 0,   T = `longest_lag`

    Pass it as `bias_init` to `jlstm.init` (Tallec & Ollivier 2018), or replace a given bias:
    `params._replace(b=chrono_bias(100)(key, params.b.shape, params.b.dtype))`.

    Raises:
      TypeError, ValueError: `longest_lag` is not an int, or below 3, where U(1, T - 1) is empty.

    >>> import jax
    >>> b_i, b_f, b_g, b_o = chrono_bias(100)(jax.random.key(0), (8,)).reshape(4, 2)
    >>> bool((b_i == -b_f).all()), bool((b_f >= 0).all())
    (True, True)
    """
    check_size("longest_lag", longest_lag, least=3)

    def init(key: chex.PRNGKey, shape, dtype=jnp.float32) -> Array:
        gate_shape = (*shape[:-1], shape[-1] // GATES)
        b_f = jnp.log(jax.random.uniform(key, gate_shape, dtype, 1, longest_lag - 1))
        zero = jnp.zeros_like(b_f)
        return jnp.concatenate([-b_f, b_f, zero, zero], axis=-1)

    return init
