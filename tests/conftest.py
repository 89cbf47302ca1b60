"""Strict promotion for every test; float64 only where a test asks for it."""

import hypothesis
import jax
import jax.monitoring
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Few examples, as every new shape compiles; the same ones everywhere, so that a failure seen on
# one machine is seen on all. A fixture is set once a test, which is what `x64` is for.
hypothesis.settings.register_profile(
    "jlstm",
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("jlstm")


@pytest.fixture
def x64():
    """Lets a test, all of its examples included, compute in float64."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def compilations():
    """A function that tells how many programs XLA has compiled so far in this test."""
    count = 0

    def listen(event: str, duration_secs: float, **metadata: str | int):
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count
    jax.monitoring.unregister_event_duration_listener(listen)
