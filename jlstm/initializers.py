"""Initializers that `jax.nn.initializers` lacks.

They have the signature of `jax.nn.initializers`, `(key, shape, dtype) -> array`, and can be used
in their place. A packed shape is `[..., 4H]`: four gate blocks of `[..., H]` side by side.

>>> import jax, jlstm
>>> bias = jlstm.initializers.chrono_bias(100)
>>> params = jlstm.init(jax.random.key(0), 2, 3, bias_init=bias)
>>> params.b.shape
(12,)
"""

from jlstm._src.initializers import chrono_bias, forget_bias, one_by_one, per_gate

__all__ = ["chrono_bias", "forget_bias", "one_by_one", "per_gate"]
