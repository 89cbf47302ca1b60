"""Derivatives by finite differences, in float64 NumPy, along one direction of a tree of arrays."""

import jax
import numpy as np


def float64(tree):
    """The same tree with leaves of float64 NumPy."""
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def dot(a, b):
    """The inner product of two trees of arrays."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(((x.astype(float) * y.astype(float)).sum() for x, y in pairs), 0.0)


def norm(tree) -> float:
    """The length of a tree of arrays as one vector."""
    return float(np.sqrt(dot(tree, tree)))


def unit_direction(random: np.random.Generator, tree):
    """A random tree like `tree`, of length 1."""
    direction = jax.tree.map(lambda a: random.standard_normal(a.shape), tree)
    length = norm(direction)
    return jax.tree.map(lambda d: d / length, direction)


def slope(f, tree, direction, eps: float = 1e-3) -> float:
    """The derivative of `f(tree + s direction)` at s = 0, up to terms in `eps ** 4`."""

    def along(s: float) -> float:
        return f(jax.tree.map(lambda a, d: a + s * d, tree, direction))

    return (8 * (along(eps) - along(-eps)) - (along(2 * eps) - along(-2 * eps))) / (12 * eps)
