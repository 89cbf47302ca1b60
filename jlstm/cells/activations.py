"""The activation functions of ONNX's recurrent operators, elementwise, with alpha and beta."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jlstm._src.checks import describe
from jlstm._src.dtypes import Array


def scale_and_shift(x: Array, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """`alpha x + beta`."""
    return alpha * x + beta


def elu(x: Array, alpha: float = 1.0) -> Array:
    """`x` where it is positive, else `alpha (exp(x) - 1)`."""
    return jax.nn.elu(x, alpha)


def hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """`alpha x + beta`, from 0 to 1. The slope of `jax.nn.hard_sigmoid` is 1/6."""
    return jnp.clip(alpha * x + beta, 0, 1)


def leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    """`x` where it is not negative, else `alpha x`."""
    return jnp.where(x >= 0, x, alpha * x)


def relu(x: Array) -> Array:
    """`max(x, 0)`."""
    return jax.nn.relu(x)


def scaled_tanh(x: Array, alpha: float = 1.0, beta: float = 1.0) -> Array:
    """`alpha tanh(beta x)`."""
    return alpha * jnp.tanh(beta * x)


def sigmoid(x: Array) -> Array:
    """The logistic function, `1 / (1 + exp(-x))`."""
    return jax.nn.sigmoid(x)


def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`."""
    return jax.nn.softplus(x)


def softsign(x: Array) -> Array:
    """`x / (1 + |x|)`."""
    return x / (1 + jnp.abs(x))


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return jnp.tanh(x)


def thresholded_relu(x: Array, alpha: float = 1.0) -> Array:
    """`x` where it is above `alpha`, else 0."""
    return jnp.where(x > alpha, x, 0)


FUNCTIONS = {
    f.__name__: f
    for f in (
        *(elu, hard_sigmoid, leaky_relu, relu, scaled_tanh, sigmoid),
        *(softplus, softsign, tanh, thresholded_relu),
    )
} | {"affine": scale_and_shift}


@dataclass(frozen=True)
class Activation:
    """An activation function by name, as a static choice.

    name: one of `jlstm.cells.activations.FUNCTIONS`, such as "sigmoid" or "hard_sigmoid".
    alpha, beta: what it takes besides x; None is its default.

    Raises:
      ValueError: no function has that name, or it takes no alpha, or no beta.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None

    def __post_init__(self):
        """Refuses what `activate` could not call."""
        if self.name not in FUNCTIONS:
            raise ValueError(f"name: expected one of {', '.join(FUNCTIONS)}, got {self.name!r}")
        for option, value in _given(self).items():
            if option not in FUNCTIONS[self.name].__annotations__:
                raise ValueError(f"{option}: expected None for {self.name}, got {value}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{option}: expected a float, got {describe(value)}")


def activate(activation: Activation, x: Array) -> Array:
    """The activation of x, elementwise.

    >>> import jax.numpy as jnp
    >>> activate(Activation("hard_sigmoid", alpha=0.25), jnp.array([-9.0, 1.0]))
    Array([0.  , 0.75], dtype=float32)
    """
    return FUNCTIONS[activation.name](x, **_given(activation))


def _given(activation):
    options = {"alpha": activation.alpha, "beta": activation.beta}
    return {name: value for name, value in options.items() if value is not None}
