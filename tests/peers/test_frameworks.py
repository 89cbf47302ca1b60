"""jlstm's parameters inside of optax, orbax, flax and equinox: nothing has to be adapted."""

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jlstm
from tests.helpers.draws import draw_array, draw_params

T, B, D, H = 5, 4, 3, 2


def draw():
    """A model with a stack, inputs and targets."""
    stack = (
        jlstm.Bidirectional(draw_params(0, D, H), draw_params(1, D, H)),
        draw_params(2, 2 * H, H),
    )
    model = {"lstm": stack, "readout": draw_array(3, (H, 1))}
    return model, draw_array(4, (T, B, D)), draw_array(5, (T, B, 1))


def loss(model, xs, targets):
    _, hs = jlstm.unroll_stack(model["lstm"], xs)
    return ((hs @ model["readout"] - targets) ** 2).mean()


def test_an_optax_mask_by_path_name():
    """Weight decay on the matrices, none on the biases: a path ends in .W, .U or .b."""

    def is_matrix(path, _):
        return not jax.tree_util.keystr(path).endswith(".b")

    model, xs, targets = draw()
    optimizer = optax.adamw(
        1e-2,
        weight_decay=0.5,
        mask=lambda params: jax.tree_util.tree_map_with_path(is_matrix, params),
    )
    plain = optax.adamw(1e-2, weight_decay=0.0)

    def step(optimizer):
        @jax.jit
        def run(model):
            updates, _ = optimizer.update(
                jax.grad(loss)(model, xs, targets), optimizer.init(model), model
            )
            return optax.apply_updates(model, updates)

        return run(model)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        decayed, undecayed = step(optimizer), step(plain)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), decayed, undecayed)
    kept = {jax.tree_util.keystr(path) for path, equal in jax.tree.leaves_with_path(same) if equal}
    layers = ["[0].forward", "[0].backward", "[1]"]
    assert kept == {f"['lstm']{layer}.b" for layer in layers}
    W, before = undecayed["lstm"][1].W, model["lstm"][1].W
    np.testing.assert_allclose(decayed["lstm"][1].W, W - 1e-2 * 0.5 * before, rtol=1e-5, atol=1e-6)


def test_an_orbax_round_trip(tmp_path):
    model, *_ = draw()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "model", model)
        checkpointer.wait_until_finished()
        again = checkpointer.restore(tmp_path / "model", jax.eval_shape(lambda: model))
    assert jax.tree.structure(again) == jax.tree.structure(model)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


class NnxTagger(nnx.Module):
    """An LSTM of jlstm and a readout of flax."""

    def __init__(self, lstm: jlstm.LSTMParams, *, rngs: nnx.Rngs):
        self.lstm = nnx.Param(lstm)
        self.readout = nnx.Linear(H, 1, rngs=rngs)

    def __call__(self, xs):
        _, hs = jlstm.unroll(self.lstm.get_value(), xs)
        return self.readout(hs)


class EquinoxTagger(equinox.Module):
    """An LSTM of jlstm and a readout of equinox."""

    lstm: jlstm.LSTMParams
    readout: equinox.nn.Linear

    def __call__(self, xs):
        _, hs = jlstm.unroll(self.lstm, xs)
        return jax.vmap(jax.vmap(self.readout))(hs)


def expected_gradient(readout, bias):
    """That of the LSTM in either module, by jlstm alone."""
    lstm, (_, xs, targets) = draw_params(2, D, H), draw()

    def objective(lstm):
        _, hs = jlstm.unroll(lstm, xs)
        ys = hs @ readout + jnp.broadcast_to(bias, targets.shape)
        return ((ys - targets) ** 2).mean()

    return jax.jit(jax.grad(objective))(lstm)


def assert_close(ours, theirs):
    assert isinstance(theirs, jlstm.LSTMParams)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.fixture
def usual_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_jlstm_in_a_module_of_nnx(usual_promotion):
    model, (_, xs, targets) = NnxTagger(draw_params(2, D, H), rngs=nnx.Rngs(0)), draw()

    @nnx.jit
    def gradient(model, xs):
        return nnx.grad(lambda model: ((model(xs) - targets) ** 2).mean())(model)

    got = gradient(model, xs)
    assert model(xs).shape == (T, B, 1)
    assert model.readout.bias is not None
    expected = expected_gradient(model.readout.kernel[...], model.readout.bias[...])
    assert_close(expected, got["lstm"].get_value())
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    before = model.lstm.get_value().W
    optimizer.update(model, got)
    np.testing.assert_allclose(
        model.lstm.get_value().W, before - 0.1 * expected.W, rtol=1e-6, atol=1e-6
    )


def test_jlstm_in_a_module_of_equinox(usual_promotion):
    readout = equinox.nn.Linear(H, 1, key=jax.random.key(0))
    model, (_, xs, targets) = EquinoxTagger(draw_params(2, D, H), readout), draw()

    @equinox.filter_jit
    def gradient(model, xs):
        return equinox.filter_grad(lambda model: ((model(xs) - targets) ** 2).mean())(model)

    got = gradient(model, xs)
    assert model(xs).shape == (T, B, 1)
    assert readout.bias is not None
    assert_close(expected_gradient(readout.weight.T, readout.bias), got.lstm)
