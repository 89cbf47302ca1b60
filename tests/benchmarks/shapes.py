"""What is measured, at which sizes, and the arrays that every peer is given."""

import math
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """B sequences of T steps, D inputs, H units."""

    B: int
    T: int
    D: int
    H: int


SHAPES = {
    "seed": Shape(1, 10, 1, 3),
    "stream": Shape(1, 1000, 32, 64),
    "small": Shape(8, 200, 64, 128),
    "rl": Shape(256, 100, 32, 64),
    "medium": Shape(32, 128, 128, 256),
    "large": Shape(64, 100, 512, 512),
    "wide": Shape(16, 50, 1024, 1024),
}

# The gradient is that of sum(hs²) with respect to parameters and input. In the last two the batch
# is made by `jax.vmap` over sequences.
MEASURES = ("forward", "gradient", "vmap_forward", "vmap_gradient")

# One size varies, the others stay where the cost of a loop step and of its products both show.
SWEEPS = {
    "T": [Shape(8, T, 32, 64) for T in (100, 300, 1000, 3000, 10_000, 30_000, 100_000)],
    "B": [Shape(B, 100, 32, 64) for B in (1, 4, 16, 64, 256, 1024)],
    "H": [Shape(16, 50, H, H) for H in (16, 64, 256, 512, 1024, 2048)],
}


def draw(shape: Shape) -> dict[str, np.ndarray]:
    """Parameters in jlstm's layout, as large as they are after initialisation, and a sequence."""
    B, T, D, H = shape
    rng = np.random.default_rng(0)
    scale = 1 / math.sqrt(H)
    sizes = {"W": (D, 4 * H), "U": (H, 4 * H), "b": (4 * H,)}
    arrays = {name: rng.uniform(-scale, scale, size) for name, size in sizes.items()}
    arrays["xs"] = rng.standard_normal((T, B, D))
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def gradient_operations(shape: Shape) -> int:
    """Floating-point operations in the products of one gradient: three times the forward pass's."""
    B, T, D, H = shape
    return 3 * 2 * T * B * 4 * H * (D + H)
