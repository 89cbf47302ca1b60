"""How values are described in messages, and what checks accept; test_errors has the refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import LSTMState
from jlstm._src.checks import (
    as_key,
    check_size,
    describe,
    describe_tree,
)


@pytest.mark.parametrize(
    "value, described",
    [
        (jnp.zeros((2, 3), jnp.bfloat16), "bfloat16[2, 3]"),
        (np.ones(4, bool), "bool[4]"),
        (jax.random.key(0), "key<fry>[]"),
        (None, "NoneType None"),
        (2.5, "float 2.5"),
        ([1, 2], "list [1, 2]"),
    ],
)
def test_describe(value, described):
    assert describe(value) == described


def test_describe_tree():
    state = LSTMState(jnp.zeros(3), jnp.zeros((2, 3)))
    assert describe_tree(state) == "LSTMState(h=float32[3], c=float32[2, 3])"


def test_a_tracer_is_described_by_its_shape():
    described = []
    jax.jit(jax.vmap(lambda x: described.append(describe(x))))(jnp.zeros((5, 2)))
    assert described == ["float32[2]"]


@pytest.mark.parametrize("size", [1, np.int64(3), jnp.asarray(7)])
def test_sizes_may_be_any_positive_int(size):
    check_size("size", size)


def test_one_key_under_vmap_is_one_key():
    jax.vmap(lambda key: as_key(key))(jax.random.split(jax.random.key(0)))
