"""The gradients of many seeds at once, each with weights and data of its own, as a peer does it."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jlstm
from jlstm.experiments.seeds import over_seeds
from tests.peers.layouts import torch_weights

from .peers import JAX_PEERS
from .task import Compilation, Task


def load(peer: str, arrays: dict[str, np.ndarray]) -> Task:
    """A peer by its name, with a number behind it for `over_seeds` on so many devices."""
    if peer == "torch":
        return load_torch(arrays)
    spread = peer.startswith("over_seeds")
    make = JAX_PEERS["jlstm" if spread else peer]
    params = jlstm.LSTMParams(*(jnp.asarray(arrays[k]) for k in "WUb"))
    first = jax.tree.map(lambda leaf: leaf[0], params)
    unroll = make(first).unroll
    seeds = jax.vmap(lambda params: make(params).native)(params), jnp.asarray(arrays["xs"])

    def gradient(seed):
        native, xs = seed
        return jax.grad(lambda native: jnp.sum(unroll(native, xs) ** 2))(native)

    def mapped(seeds):
        return over_seeds(gradient, seeds) if spread else jax.vmap(gradient)(seeds)

    if spread:
        seeds = over_seeds(lambda seed: seed, seeds)  # where a training has them
    begin = time.perf_counter()
    run = jax.jit(mapped).lower(seeds).compile()
    seconds, analysis = time.perf_counter() - begin, run.memory_analysis()
    assert analysis is not None
    devices = len(jax.devices()) if spread else 1  # XLA tells of one
    made = Compilation(seconds, analysis.temp_size_in_bytes * devices)

    def ours(params, d_native):
        _, pull = jax.vjp(lambda params: make(params).native, params)
        return pull(d_native)[0]

    def result():
        d_params = jax.vmap(ours)(params, jax.device_get(run(seeds)))
        return {name: np.asarray(array) for name, array in d_params._asdict().items()}

    calls = {"gradient": lambda: jax.block_until_ready(run(seeds))}
    return Task(calls, {"gradient": result}, lambda: made)


def load_torch(arrays: dict[str, np.ndarray]) -> Task:
    """A loop over modules, one a seed."""
    import torch

    S, D, four_H = arrays["W"].shape
    params: list[Any] = [torch.tensor(arrays[k], requires_grad=True) for k in "WUb"]
    natives = [torch_weights([jlstm.LSTMParams(*(p[s] for p in params))]) for s in range(S)]
    xs = torch.tensor(arrays["xs"])
    modules = []
    for native in natives:
        lstm = torch.nn.LSTM(D, four_H // 4)
        lstm.load_state_dict({name: weight.detach() for name, weight in native.items()})
        modules.append([lstm, [lstm.get_parameter(name) for name in native]])

    def gradient():
        return [
            torch.autograd.grad((lstm(xs[s])[0] ** 2).sum(), weights)
            for s, (lstm, weights) in enumerate(modules)
        ]

    def result():
        weights = [weight for native in natives for weight in native.values()]
        flat = [d for d_native in gradient() for d in d_native]
        d_params = torch.autograd.grad(weights, params, grad_outputs=flat, retain_graph=True)
        return {name: d.numpy() for name, d in zip("WUb", d_params, strict=True)}

    return Task({"gradient": gradient}, {"gradient": result}, None)
