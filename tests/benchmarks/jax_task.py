"""The measures of a JAX peer: jit-compiled functions of its parameters and of the input.

A peer named `NAME:2` runs on two CPU devices: under `shard_map` each has half of the batch, and the
gradient of the weights is summed once.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

import jlstm

from .peers import JAX_PEERS
from .shapes import MEASURES
from .task import Compilation, Task


def load(name: str, arrays: dict[str, np.ndarray]) -> Task:
    jax.clear_caches()
    name, _, devices = name.partition(":")
    make = JAX_PEERS[name]
    params, xs = jlstm.LSTMParams(*(jnp.asarray(arrays[k]) for k in "WUb")), arrays["xs"]
    native, unroll = make(params)
    if devices and xs.shape[1] % int(devices):
        return Task({}, {}, None)  # no row for each device
    native, xs = jax.device_put((native, xs))
    functions = sharded(unroll, int(devices)) if devices else measured(unroll)
    jitted = {measure: jax.jit(function) for measure, function in functions.items()}

    def call(measure):
        return lambda: jax.block_until_ready(jitted[measure](native, xs))

    def result(measure):
        if measure.endswith("forward"):
            return lambda: {"hs": np.asarray(jitted[measure](native, xs))}
        return lambda: gradient_in_our_layout(make, params, *jitted[measure](native, xs))

    def compile_gradient():
        return compilation(functions["gradient"], native, xs)

    calls, results = {m: call(m) for m in functions}, {m: result(m) for m in functions}
    return Task(calls, results, compile_gradient)


def measured(unroll):
    """The functions of `(native, xs)` by measure."""

    def mapped(native, xs):
        return jax.vmap(unroll, (None, 1), 1)(native, xs)

    def gradient(forward):
        return jax.grad(lambda native, xs: jnp.sum(forward(native, xs) ** 2), (0, 1))

    functions = unroll, gradient(unroll), mapped, gradient(mapped)
    return dict(zip(MEASURES, functions, strict=True))


def sharded(unroll, devices: int):
    """The same without `vmap`, on several devices."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    alone = measured(unroll)

    def gradient(native, xs):
        d_native, d_xs = alone["gradient"](native, xs)
        return jax.lax.psum(d_native, "data"), d_xs

    batch = P(None, "data")
    out_specs = {"forward": batch, "gradient": (P(), batch)}
    functions = {"forward": alone["forward"], "gradient": gradient}
    options = {"mesh": mesh, "in_specs": (P(), batch), "check_vma": False}
    return {
        measure: jax.shard_map(function, out_specs=out_specs[measure], **options)
        for measure, function in functions.items()
    }


def gradient_in_our_layout(make, params, d_native, d_xs):
    """Pulls a gradient back through the change of layout."""
    _, pull = jax.vjp(lambda params: make(params).native, params)
    (d_params,) = pull(d_native)
    return {name: np.asarray(array) for name, array in {**d_params._asdict(), "xs": d_xs}.items()}


def compilation(function, *inputs) -> Compilation:
    """A fresh one: a new function, so that JAX knows nothing of it."""
    begin = time.perf_counter()
    compiled = jax.jit(lambda *inputs: function(*inputs)).lower(*inputs).compile()
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return Compilation(seconds, analysis.temp_size_in_bytes)


def matrix_product(size: int):
    """A call of `size³` multiplications and additions."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), jnp.float32)
    product = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(product(a, a))
