"""Settings of all tests and examples: strict promotion, and programs that compile quickly.

float64 is on only where a test asks for it.
"""

import os

import hypothesis
import jax
import jax.monitoring
import jaxlib.version
import pytest

# Most of the time goes into compiling programs that run once. XLA's older emitters of fusions
# compile three times as fast. Newer versions have no such choice, and abort on an unknown flag.
# There, every program is compiled as for a user, so `.ci/run` has both. XLA reads its flags when
# it is first used, after the import of JAX.
OLD_EMITTERS = jaxlib.version.__version_info__ < (0, 11)
if OLD_EMITTERS:
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}"

collect_ignore = ["tests/benchmarks"]  # programs, which tests/system/test_benchmarks.py runs

jax.config.update("jax_disable_most_optimizations", OLD_EMITTERS)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 4)  # for shard_map

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
def optimised():
    """Compiles as for a user, where memory, bits or a compiled program are looked at.

    The value is the `compiler_options` of a `jax.jit` whose bits are looked at.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    yield {"xla_cpu_use_fusion_emitters": True} if OLD_EMITTERS else None
    jax.config.update("jax_disable_most_optimizations", OLD_EMITTERS)


_compiled = []


def _note_compilation(event: str, duration_secs: float, **metadata: str | int):
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled.append(duration_secs)


# Once and for all, as the lowest supported jax cannot take a listener back.
jax.monitoring.register_event_duration_secs_listener(_note_compilation)


@pytest.fixture
def compilations():
    """A function that tells how many programs XLA has compiled so far."""
    return lambda: len(_compiled)
