"""The functions of gradients on a mesh with explicit axes, over which the batch is sharded."""

from typing import Any

import chex
import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jlstm
from jlstm import gradients
from jlstm.experiments import Config, Hyperparams, over_seeds, tasks, train
from tests.helpers.draws import draw_array, draw_params

T, B, D, H = 4, 4, 2, 2
PARAMS = draw_params(0, D, H)
XS, RESET = draw_array(1, (T, B, D)), draw_array(2, (T, B)) > 1


def last(states, hs):
    del states
    return (hs[-1] ** 2).sum()


def jacobians(xs, reset):
    return gradients.state_jacobians(PARAMS, xs, reset=reset).jacobians


FUNCTIONS: dict[str, Any] = {
    "flow": lambda xs, reset: gradients.gradient_flow(last, PARAMS, xs, reset=reset),
    "sensitivity": lambda xs, reset: gradients.input_sensitivity(PARAMS, xs, reset=reset).norm,
    "horizon": lambda xs, reset: gradients.memory_horizon(PARAMS, xs, reset=reset),
    "jacobians": jacobians,
    "products": lambda xs, reset: gradients.jacobian_products(jacobians(xs, reset)).log_norms,
    "singular values": lambda xs, reset: gradients.singular_values(jacobians(xs, reset)).logs,
    "lyapunov": lambda xs, _: gradients.lyapunov_spectrum(PARAMS, xs).exponents,
    "truncated": lambda xs, reset: gradients.truncated_gradient(last, PARAMS, xs, 2, reset=reset),
    "truncation": lambda xs, reset: gradients.truncation_study(last, PARAMS, xs, reset=reset).norm,
    "rtrl": lambda xs, reset: gradients.rtrl_gradient(
        lambda h, target: ((h - target[..., None]) ** 2).sum(), PARAMS, xs, xs[..., 0], reset=reset
    ),
}


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sharded_batch_gives_the_same_results(mesh, name):
    function = jax.jit(FUNCTIONS[name])
    expected = function(XS, RESET)
    sharded = jax.device_put((XS, RESET), NamedSharding(mesh, PartitionSpec(None, "data")))
    with jax.set_mesh(mesh):
        results = function(*sharded)
    chex.assert_trees_all_close(
        jax.device_get(results), jax.device_get(expected), rtol=1e-5, atol=1e-5
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["hessian", "trace", "eigenvalue"])
def test_curvature_of_a_sharded_loss(mesh, name):
    def call(xs):
        def loss(params):
            return last(*jlstm.unroll(params, xs))

        if name == "hessian":
            return gradients.hessian_vector_product(loss, PARAMS, PARAMS)
        function = gradients.hessian_trace if name == "trace" else gradients.leading_eigenvalue
        few: Any = {"samples": 2} if name == "trace" else {"iterations": 2}
        return function(loss, PARAMS, key=jax.random.key(0), **few)[0]

    expected = jax.jit(call)(XS)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(XS, NamedSharding(mesh, PartitionSpec(None, "data")))
        result = jax.jit(call)(sharded)
    chex.assert_trees_all_close(jax.device_get(result), jax.device_get(expected), rtol=1e-4)


@pytest.mark.thorough
def test_seeds_and_trainings_in_the_context_of_a_mesh(mesh):
    config, keys = Config(hidden_size=2, batch_size=4, steps=2), jax.random.split(jax.random.key(0))

    def run(key):
        return train(tasks.adding(20), Hyperparams(), key, config=config).curves.loss

    expected = jax.jit(jax.vmap(run))(keys)
    with jax.set_mesh(mesh):
        alone, spread = jax.jit(run)(keys[0]), over_seeds(run, keys)
    chex.assert_trees_all_close(jax.device_get(alone), jax.device_get(expected)[0], rtol=1e-5)
    chex.assert_trees_all_close(jax.device_get(spread), jax.device_get(expected), rtol=1e-5)
