"""The keys that a program draws from, noted while it runs.

JAX takes generators of one's own. This one is threefry, and also hands out each key that it draws
from or splits, whatever the program is compiled, mapped, scanned or differentiated by.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import random

THREEFRY: Any = random.threefry_prng_impl


class Keys(NamedTuple):
    """How often a program drew from each key, and which keys it made others from, by their data."""

    drawn: Counter
    split: Counter


_noted = Keys(Counter(), Counter())


def _noting(counter: Counter, function: Callable):
    """`function` of a key and other arguments, which also counts the key."""

    def count(key):
        counter[tuple(np.asarray(key).tolist())] += 1

    def run(key, *arguments):
        jax.debug.callback(count, key)
        return function(key, *arguments)

    return run


_NOTING: Any = random.define_prng_impl(
    key_shape=THREEFRY.key_shape,
    seed=THREEFRY.seed,
    random_bits=_noting(_noted.drawn, THREEFRY.random_bits),
    split=_noting(_noted.split, THREEFRY.split),
    fold_in=_noting(_noted.split, THREEFRY.fold_in),
    name="noting threefry",
    tag="note",
)
noting_key = partial(jax.random.key, impl=_NOTING)  # draws what `jax.random.key` draws


def keys_of(program: Callable[[Any], Any], key: Any = None) -> Keys:
    """Returns the keys that `program(key)` uses; `key` is `noting_key(0)` by default."""
    for counter in _noted:
        counter.clear()
    jax.block_until_ready(program(noting_key(0) if key is None else key))
    jax.effects_barrier()
    return Keys(*map(Counter, _noted))


def assert_used_once(keys: Keys, draws: int):
    """So many draws, each from a key of its own, from which no other key is made."""
    assert keys.drawn.total() == draws
    assert set(keys.drawn.values()) == {1} and not keys.drawn.keys() & keys.split.keys()
