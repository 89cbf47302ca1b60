"""How far back gradients reach at initialisation, over 32 seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlstm
from jlstm.gradients import gradient_flow, initialisation_study
from jlstm.initializers import chrono_bias
from tests.helpers.draws import draw_array
from tests.helpers.keys import keys_of

SEEDS, T, D, H = 32, 100, 1, 16


@pytest.fixture(scope="module")
def study():
    run = jax.jit(lambda key: initialisation_study(key, (30, T), seeds=SEEDS, hidden_size=H))
    return run(jax.random.key(0))


def elman(params, state, x):
    """The vanilla recurrent network h_t = tanh(x_t W + h_tm1 U + b)."""
    W, U, b = params
    h = jnp.tanh(x @ W + state @ U + b)
    return h, h


def elman_norms(key):
    """As the study, of a vanilla cell with orthogonal U, as the LSTM's blocks are."""
    key_W, key_U, key_xs, key_u = jax.random.split(key, 4)
    U = jax.nn.initializers.orthogonal()(key_U, (H, H))
    params = jax.random.normal(key_W, (D, H)), U, jnp.zeros(H)
    u = jax.random.normal(key_u, (H,))
    u, xs = u / jnp.linalg.norm(u), jax.random.normal(key_xs, (T, D))
    flow = gradient_flow(lambda h, _: u @ h, params, xs, jnp.zeros(H), cell=elman)
    return flow.h[::-1]


def decay(norm, lags):
    """The least-squares slope of ln norm against the lag, in nats a step, and how straight it is.

    Args:
      norm: `[S, T]`.

    Returns:
      slopes `[S]` and coefficients of determination `[S]`.
    """
    y = np.log(np.asarray(norm, np.float64)[:, lags])
    x = lags - lags.mean()
    slopes = (y @ x) / (x @ x)
    rest = y - y.mean(axis=1, keepdims=True) - slopes[:, None] * x
    return slopes, 1 - rest.var(axis=1) / y.var(axis=1)


@pytest.mark.thorough
def test_vanilla_cells_forget_exponentially_lstms_slower_and_chrono_slowest(study):
    lags = np.arange(5, 60)
    vanilla, straight = decay(
        jax.jit(jax.vmap(elman_norms))(jax.random.split(jax.random.key(1), SEEDS)), lags
    )
    _, forget_1, chrono = (decay(study.norm[k, 1], lags)[0] for k in range(3))
    assert (straight > 0.95).all() and (vanilla < -0.2).all()  # a line on a logarithmic axis
    assert np.median(vanilla) < forget_1.min() and vanilla.max() < np.median(forget_1)
    assert forget_1.max() < chrono.min()  # of every seed
    assert np.median(chrono) > -0.06


def test_a_higher_forget_bias_reaches_further_back(study):
    at_20 = np.median(study.norm[:, 1, :, 20], axis=-1)
    assert at_20[0] < at_20[1] / 10 and at_20[1] < at_20[2] / 10


@pytest.mark.thorough
def test_norms_are_those_of_the_plain_gradient(study):
    """One seed of each initialisation and length, against `jax.grad` by a state on the way."""
    key = jax.random.split(jax.random.key(0), SEEDS)[3]
    key_params, key_b, key_xs, key_u = jax.random.split(key, 4)
    base = jlstm.init(key_params, D, H)
    xs, u = jax.random.normal(key_xs, (T, D)), jax.random.normal(key_u, (H,))
    u = u / jnp.linalg.norm(u)

    @jax.jit
    def gradient(params, xs):
        state, _ = jlstm.unroll(params, xs[:-7])
        g = jax.grad(lambda s: u @ jlstm.unroll(params, xs[-7:], s)[0].h)(state)
        return jnp.sqrt((g.h**2).sum() + (g.c**2).sum())

    for place, length in enumerate((30, T)):
        biases: list = [jnp.zeros(4 * H).at[H : 2 * H].set(value) for value in (0.0, 1.0)]
        biases.append(chrono_bias(length)(key_b, base.b.shape))
        for k, b in enumerate(biases):
            got = study.norm[k, place, 3, 7]
            expected = gradient(base._replace(b=b), xs[T - length :])
            np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_lags_end_with_the_sequence(study):
    np.testing.assert_array_equal(study.lag, np.arange(T))
    assert study.norm.shape == (3, 2, SEEDS, T)
    np.testing.assert_allclose(study.norm[..., 0], 1, rtol=1e-6)
    np.testing.assert_array_equal(
        np.isnan(study.norm[:, 0]), np.broadcast_to(np.arange(T) >= 30, (3, SEEDS, T))
    )
    assert np.isfinite(study.norm[:, 1]).all()


@pytest.mark.thorough
def test_one_seed_draws_once_for_all_initialisations():
    """W, U, the inputs and u once, and the chrono bias of each length from one key."""
    keys = keys_of(lambda key: initialisation_study(key, (4, 5, 6), seeds=2, hidden_size=2))
    assert sorted(keys.drawn.values()) == [1] * 2 * (4 + 4 + 1 + 1) + [3] * 2
    assert not keys.drawn.keys() & keys.split.keys()


def test_bad_input_is_refused():
    key = jax.random.key(0)
    for lengths, message in [
        ((), "lengths: expected one or more"),
        ((5, 2), "longest_lag: .* at least 3"),
        ((0,), r"lengths\[0\]: expected at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            initialisation_study(key, lengths)
    with pytest.raises(ValueError, match="seeds: expected at least 1"):
        initialisation_study(key, (5,), seeds=0)
    with pytest.raises(TypeError, match="key: expected a key"):
        initialisation_study(draw_array(0, (2,)), (5,))
