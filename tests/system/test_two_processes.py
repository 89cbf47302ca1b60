"""Two processes with two devices each run seeds as one machine does."""

import socket
import subprocess
import sys

import jax
import numpy as np

from jlstm.experiments.seeds import over_seeds
from tests.helpers import small_runs
from tests.helpers.small_runs import gradient_of_seed, seed_keys


def test_two_processes_are_one_machine(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = [
        [sys.executable, small_runs.__file__, str(port), str(k), str(tmp_path)] for k in range(2)
    ]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    printed = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    gradient, keys = over_seeds(gradient_of_seed, seed_keys(7))
    alone = gradient._asdict() | {"keys": jax.random.key_data(keys)}
    alone |= {f"saved_{name}": p for name, p in gradient._asdict().items()}
    alone["outside"] = over_seeds(jax.random.normal, seed_keys(5))
    for k in range(2):
        with np.load(tmp_path / f"{k}.npz") as file:
            assert file["devices"] == 4
            for name, expected in alone.items():
                assert file[name].dtype == expected.dtype
                np.testing.assert_allclose(file[name], expected, rtol=1e-6, atol=1e-6)
