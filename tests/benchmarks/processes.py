"""Starts a process a peer and speaks with it. Only one computes at a time: each is waited for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKER = f"{__package__}.worker"

Workers = dict[str, subprocess.Popen]


@contextmanager
def start(peers: list[str], worker: str = WORKER) -> Iterator[Workers]:
    # A compilation that comes from a cache on disk would be no compilation.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    workers = {}
    try:
        for peer in peers:
            workers[peer] = subprocess.Popen(
                [sys.executable, "-m", worker, peer],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        yield workers
    finally:
        for process in workers.values():
            process.kill()
            process.communicate()


def ask(workers: Workers, peer: str, do: str, **request) -> dict:
    """The answer of one peer's process."""
    stdin, stdout = workers[peer].stdin, workers[peer].stdout
    assert stdin and stdout
    try:
        print(json.dumps({"do": do, **request}), file=stdin, flush=True)
        return json.loads(stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError) as error:
        raise RuntimeError(f"{peer}: its process ended while asked to {do}, see above") from error
