"""`over_seeds` is `vmap`, whatever the seeds, the chunks, the devices and the processes."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jlstm
from jlstm.experiments.seeds import over_seeds
from tests.helpers.comparisons import assert_close
from tests.helpers.draws import draw_array, temporary_memory
from tests.helpers.small_runs import gradient_of_seed, seed_keys

assert_same = partial(assert_close, tolerance=1e-5, atol=1e-6)


def cheap(seed):
    """Of a key and a setting; returns a key, a float, an int and a bool."""
    key, rate = seed["key"], seed["rate"]
    x = jax.random.normal(key, (3,)) * rate
    return jax.random.split(key)[0], (x, jnp.argmax(x)), {"positive": x.sum() > 0}


def cheap_seeds(S):
    return {"key": jax.random.split(jax.random.key(S), S), "rate": jnp.linspace(0.5, 2, S)}


@settings(max_examples=8)
@given(
    S=st.integers(1, 9), chunk=st.sampled_from(["auto", None, 1, 2, 3, 100]), n=st.integers(1, 4)
)
def test_it_is_vmap_for_any_number_of_seeds_and_devices(S, chunk, n):
    seeds = cheap_seeds(S)
    expected = [cheap(jax.tree.map(lambda leaf, s=s: leaf[s], seeds)) for s in range(S)]
    out = over_seeds(cheap, seeds, chunk=chunk, devices=jax.devices()[:n])
    assert_same(out, jax.vmap(cheap)(seeds))
    assert_same(out[1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)[1])


@pytest.mark.thorough
def test_the_gradient_of_an_lstm_inside_and_outside_jit():
    keys = seed_keys(7)
    expected = jax.jit(jax.vmap(gradient_of_seed))(keys)
    assert_same(over_seeds(gradient_of_seed, keys, chunk=2), expected)
    assert_same(jax.jit(lambda keys: over_seeds(gradient_of_seed, keys, chunk=1))(keys), expected)


def test_no_seed_at_all():
    _, (x, _), flags = over_seeds(cheap, cheap_seeds(0))
    assert x.shape == (0, 3) and flags["positive"].dtype == bool


def test_it_runs_on_the_devices_that_it_is_given_wherever_the_keys_are():
    seeds = jax.device_put(cheap_seeds(4), jax.devices()[3])
    _, (x, _), _ = over_seeds(cheap, seeds, devices=jax.devices()[1:3])
    assert x.sharding.device_set == set(jax.devices()[1:3])
    assert_same(x, jax.vmap(cheap)(cheap_seeds(4))[1][0])
    _, (x, _), _ = over_seeds(cheap, cheap_seeds(4))
    assert x.sharding.device_set == set(jax.local_devices())


def loss_over(mapped, params, scales):
    """What fn closes over is traced, and differentiated by."""
    xs = draw_array(1, (3, 2, 2))

    def fn(scale):
        return (jlstm.unroll(params, xs * scale)[1] ** 2).sum()

    return mapped(fn, scales).sum()


def test_it_is_differentiated_also_by_what_fn_closes_over():
    params, scales = jlstm.init(jax.random.key(0), 2, 3), jnp.linspace(0.5, 2, 5)

    def gradient(mapped):
        return jax.jit(jax.grad(lambda p, s: loss_over(mapped, p, s), (0, 1)))(params, scales)

    assert_same(gradient(over_seeds), gradient(lambda fn, scales: jax.vmap(fn)(scales)))


def test_it_nests_and_is_mapped_and_scanned_itself():
    rates, keys = jnp.linspace(0.5, 2, 3), jax.random.split(jax.random.key(0), 5)

    def grid(rate):
        return over_seeds(lambda key: jax.random.normal(key) * rate, keys)

    expected = jnp.outer(rates, jax.vmap(jax.random.normal)(keys))
    assert_same(over_seeds(grid, rates), expected)
    assert_same(jax.vmap(grid)(rates), expected)
    total, _ = jax.lax.scan(lambda total, rate: (total + grid(rate), None), jnp.zeros(5), rates)
    assert_same(total, expected.sum(0))


@pytest.mark.thorough
def test_memory_is_that_of_a_chunk(optimised):
    keys = seed_keys(64)

    def peak(chunk):
        run = jax.jit(lambda keys: over_seeds(gradient_of_seed, keys, chunk=chunk))
        return temporary_memory(run.lower(keys).compile())

    assert peak(1) < peak(4) < peak(None) / 2


def test_the_second_call_of_a_jitted_function_compiles_nothing(compilations):
    run = jax.jit(lambda seeds: over_seeds(cheap, seeds))
    seeds = cheap_seeds(5)
    jax.block_until_ready(run(run(seeds) and seeds))
    before = compilations()
    jax.block_until_ready(run(seeds))
    assert compilations() == before


@pytest.mark.parametrize(
    "keys, options, error, words",
    [
        ((), {}, TypeError, "keys: expected arrays"),
        (3, {}, TypeError, "keys: expected arrays, got int 3"),
        (jnp.float32(3), {}, ValueError, r"keys: expected one leading axis, got float32\[\]"),
        (jax.random.PRNGKey(0), {}, ValueError, r"keys: expected keys of several .* uint32\[2\]"),
        ([jnp.zeros(3), jnp.zeros(4)], {}, ValueError, "keys: expected one leading axis"),
        (jnp.zeros(3), {"chunk": 0}, ValueError, "chunk: expected at least 1, got 0"),
        (jnp.zeros(3), {"chunk": 1.5}, TypeError, "chunk: expected an int, got float 1.5"),
        (jnp.zeros(3), {"devices": 2}, TypeError, "devices: expected devices of jax.devices"),
        (jnp.zeros(3), {"devices": []}, ValueError, "devices: expected one or more"),
        (jnp.zeros(3), {"devices": jax.devices()[:1] * 2}, ValueError, "each once"),
    ],
)
def test_refusals(keys, options, error, words):
    with pytest.raises(error, match=words):
        over_seeds(lambda x: pytest.fail("computed"), keys, **options)


@pytest.mark.thorough
def test_seeds_of_the_older_keys_are_those_of_typed_keys():
    def one(key):
        return jlstm.init(key, 2, 3)

    legacy, typed = (jax.random.split(make(0), 3) for make in (jax.random.PRNGKey, jax.random.key))
    assert_same(over_seeds(one, legacy), over_seeds(one, typed), tolerance=0)
