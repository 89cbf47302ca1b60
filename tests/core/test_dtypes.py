"""The two rules for dtypes hold under strict promotion, which is on here."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jlstm._src.dtypes import at_least_float32, common_dtype

TABLE = [
    ("bfloat16", "bfloat16", "bfloat16"),
    ("float16", "float16", "float16"),
    ("bfloat16", "float16", "float32"),
    ("bfloat16", "float32", "float32"),
    ("float16", "float32", "float32"),
    ("float32", "float32", "float32"),
    ("float32", "float64", "float64"),
    ("bfloat16", "float64", "float64"),
]


@pytest.mark.parametrize("a, b, common", TABLE)
def test_common_dtype(x64, a, b, common):
    one, other = jnp.zeros(2, a), {"leaf": jnp.zeros((), b)}
    assert common_dtype(one, other) == common_dtype(other, one) == common
    assert common_dtype([one, one], other) == common


@pytest.mark.parametrize(
    "dtype, gates",
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")],
)
def test_at_least_float32(dtype, gates):
    assert at_least_float32(jnp.dtype(dtype)) == gates


def test_at_least_float32_leaves_float64(x64):
    assert at_least_float32(jnp.dtype("float64")) == "float64"


def test_promotion_is_left_as_it_was():
    common_dtype(jnp.zeros(2, jnp.bfloat16), jnp.zeros(2))
    config: Any = jax.config  # its flags are attributes that no type checker knows
    assert config.jax_numpy_dtype_promotion == "strict"
