"""Elementwise activation functions of ONNX's recurrent operators, with alpha and beta."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jlstm._src.checks import check
from jlstm._src.dtypes import Array

FUNCTIONS: dict[str, Callable[..., Array]] = {  # with ONNX's defaults; jax.nn has others
    "affine": lambda x, alpha=1.0, beta=0.0: alpha * x + beta,
    "elu": lambda x, alpha=1.0: jax.nn.elu(x, alpha),
    "hard_sigmoid": lambda x, alpha=0.2, beta=0.5: jnp.clip(alpha * x + beta, 0, 1),
    "leaky_relu": lambda x, alpha=0.01: jnp.where(x >= 0, x, alpha * x),
    "relu": lambda x: jax.nn.relu(x),
    "scaled_tanh": lambda x, alpha=1.0, beta=1.0: alpha * jnp.tanh(beta * x),
    "sigmoid": lambda x: jax.nn.sigmoid(x),
    "softplus": lambda x: jax.nn.softplus(x),
    "softsign": lambda x: x / (1 + jnp.abs(x)),
    "tanh": lambda x: jnp.tanh(x),
    "thresholded_relu": lambda x, alpha=1.0: jnp.where(x > alpha, x, 0),
}


@dataclass(frozen=True)
class Activation:
    """An activation function by name, as a static choice.

    name: a name in `jlstm.cells.activations.FUNCTIONS`, such as "hard_sigmoid".
    alpha, beta: the options of the function; None means the default.

    Raises:
      TypeError: alpha or beta is not a number.
      ValueError: no function has this name, or it does not take this option.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self):
        """Checks the name and the options."""
        if self.name not in FUNCTIONS:
            raise ValueError(f"name: expected one of {', '.join(FUNCTIONS)}, got {self.name!r}")
        for option, value in _given(self).items():
            if option not in options_of(self.name):
                raise ValueError(f"{option}: expected None for {self.name}, got {value}")
            is_right = isinstance(value, int | float) and not isinstance(value, bool)
            check(is_right, option, "a float", value, TypeError)


def options_of(name: str) -> dict[str, float]:
    """Returns the options of an activation, alpha and beta, with their defaults."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "x"}


def activate(activation: Activation, x: Array) -> Array:
    """Applies an activation to x, elementwise.

    >>> import jax.numpy as jnp
    >>> activate(Activation("hard_sigmoid", alpha=0.25), jnp.array([-9.0, 1.0]))
    Array([0.  , 0.75], dtype=float32)
    """
    return FUNCTIONS[activation.name](x, **_given(activation))


def _given(activation):
    options = {"alpha": activation.alpha, "beta": activation.beta}
    return {name: value for name, value in options.items() if value is not None}
