"""JAX's persistent compilation cache: a second process compiles nothing."""

import json
import subprocess
import sys

PROGRAM = """
import collections, json, sys
import jax, jax.monitoring

seen = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: seen.update([event]))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

import jlstm
from jlstm import cells

xs = jax.random.normal(jax.random.key(1), (12, 4, 2))
params, gru = jlstm.init(jax.random.key(0), 2, 3), cells.init_gru(jax.random.key(0), 2, 3)
loss = lambda params: jlstm.unroll(params, xs, chunk=4)[1].sum()
jlstm.unroll(params, xs)
jlstm.unroll(gru, xs, cell=cells.gru)
jax.grad(loss)(params)
jax.jit(jax.hessian(loss))(params)
prefix = "/jax/compilation_cache/"
print(json.dumps([seen[prefix + "cache_hits"], seen[prefix + "cache_misses"]]))
"""


def test_a_second_process_finds_every_program(tmp_path):
    def hits_and_misses():
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    hits, programs = hits_and_misses()
    assert hits == 0 and programs > 10
    assert hits_and_misses() == [programs, 0]
