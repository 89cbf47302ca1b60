"""The process of one peer of `python -m tests.benchmarks.seeds`; see `worker`."""

import sys

import jax

from .seeds_task import load
from .worker import main

if __name__ == "__main__":
    peer = sys.argv[1]
    # Everybody else's `vmap` runs on one device, as JAX comes.
    jax.config.update("jax_num_cpu_devices", int(peer.partition(":")[2] or 1))
    main(peer, load)
