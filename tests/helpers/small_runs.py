"""Small runs for processes of their own: a training that saves, and one half of two processes."""

import logging
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jlstm
from jlstm.experiments import checkpoints
from jlstm.experiments.checkpoints import checkpointing, restore
from jlstm.experiments.seeds import over_seeds

STEPS, EVERY, SEEDS = 60, 5, 3


def seed_keys(S):
    return jax.random.split(jax.random.key(0), S)


def weights(key):
    """Of an LSTM of 2 inputs and 3 units; compiled faster than those of `init`."""
    b = jax.random.normal(key, (12,))
    return jlstm.LSTMParams(jnp.outer(b[:2], b), jnp.outer(b[:3], b), b)


def gradient_of_seed(key):
    """Of a small LSTM with weights and a sequence of its own, and a key."""
    own, data, out = jax.random.split(key, 3)
    params = weights(own)
    xs = jax.random.normal(data, (6, 4, 2))
    return jax.grad(lambda params: (jlstm.unroll(params, xs)[1] ** 2).sum())(params), out


class Training(NamedTuple):
    """What is carried from step to step by each seed."""

    key: Any
    params: Any
    speed: Any


@jax.jit
def begin():
    def one(key):
        params = weights(key)
        return Training(key, params, jax.tree.map(jnp.zeros_like, params))

    return jax.vmap(one)(seed_keys(SEEDS))


@partial(jax.jit, donate_argnums=0)
def advance(trainings):
    """Of every seed: `EVERY` steps of gradient descent with momentum."""

    def step(training, _):
        key, data = jax.random.split(training.key)
        xs = jax.random.normal(data, (6, 4, 2))
        d_params = jax.grad(lambda p: ((jlstm.unroll(p, xs)[1] - xs.sum()) ** 2).mean())(
            training.params
        )
        speed = jax.tree.map(lambda v, d: 0.9 * v + d, training.speed, d_params)
        params = jax.tree.map(lambda p, v: p - 0.01 * v, training.params, speed)
        return Training(key, params, speed), None

    def one(training):
        return jax.lax.scan(step, training, length=EVERY)[0]

    return jax.vmap(one)(trainings)


def trainings_like():
    return jax.eval_shape(begin)


def train(folder: str, compiled: Any):
    """Takes up what is in the folder and goes on to the end; the event tells of first steps."""
    found = restore(folder, trainings_like())
    done, trainings = found[:2] if found else (0, begin())
    with checkpointing(folder, keep=2) as save:
        for step in range(done + EVERY, STEPS + 1, EVERY):
            trainings = advance(trainings)
            compiled.set()
            save(step, trainings)
    compiled.set()  # there may have been none to take


def fill_up(folder: str, foreseen: bool, pipe):
    """Saves until the system writes no file of this process beyond a size; tells the error."""
    limit = checkpoints.SPARE
    if not foreseen:
        checkpoints._reserve = lambda root, size: None
        logging.disable()  # orbax's own words, pages of them
        sys.unraisablehook = lambda _: None
    try:
        with checkpointing(folder) as save:
            save(1, jnp.zeros(3))
            save(2, jnp.ones(3))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(3, np.random.default_rng(0).integers(0, 256, 2 * limit, np.uint8))
    except OSError as error:
        pipe.send((error.filename, error.strerror))


def join_two_processes(port: str, process: str, folder: str):
    """Runs seeds over the devices of two processes, two each."""
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
    devices = jax.devices()
    assert len(jax.local_devices()) == 2
    spread = partial(over_seeds, devices=devices)
    outside = spread(jax.random.normal, seed_keys(5))
    gradient, keys = jax.jit(partial(spread, gradient_of_seed))(seed_keys(7))
    checkpoints = str(Path(folder, "checkpoints"))
    with checkpointing(checkpoints) as save:
        save(1, gradient)
    found = restore(checkpoints, gradient)
    assert found and found.step == 1
    results: dict[str, Any] = {"devices": np.array(len(devices)), "outside": outside}
    results["keys"] = jax.random.key_data(keys)
    results |= gradient._asdict() | {f"saved_{k}": p for k, p in found.tree._asdict().items()}
    np.savez(Path(folder, f"{process}.npz"), **results)
    jax.distributed.shutdown()


if __name__ == "__main__":
    join_two_processes(*sys.argv[1:])
