"""The process of one peer: reads requests from stdin, answers on stdout, a line of JSON each.

load     the arrays of a file; writes what each measure computes from them, in jlstm's layout
time     seconds of single calls of one measure
compile  a fresh compilation of the gradient
rate     floating-point operations per second of a large matrix product
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .task import Task

MOST_CALLS = 400  # in one round
SETTLED = 0.1  # of one core, over
PAUSE = 0.02  # seconds


def main(peer: str, make: Callable[[str, dict[str, np.ndarray]], Task]):
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    task = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "load":
            task = None  # frees the arrays of the one before
            task = load(peer, request, make)
            answer = {"measures": list(task.calls)}
        elif request["do"] == "rate":
            answer = {"rate": matrix_rate()}
        else:
            assert task is not None
            answer = measure(task, request)
        settle()
        print(json.dumps(answer), file=answers, flush=True)


def make_task(peer: str, arrays: dict[str, np.ndarray]) -> Task:
    """One LSTM, with torch where JAX is not imported, and the other way round."""
    if peer == "torch":
        from . import torch_task

        return torch_task.load(arrays)
    import jax

    from . import jax_task

    _, _, devices = peer.partition(":")
    if devices:
        jax.config.update("jax_num_cpu_devices", int(devices))
    return jax_task.load(peer, arrays)


def load(peer: str, request: dict, make) -> Task:
    gc.collect()
    with np.load(request["inputs"]) as file:
        task = make(peer, dict(file))
    wanted = [measure for measure in task.calls if measure in request["measures"]]
    results: dict[str, Any] = {
        f"{measure}.{name}": array
        for measure in wanted
        for name, array in task.results[measure]().items()
    }
    np.savez(request["outputs"], **results)
    return task._replace(calls={measure: task.calls[measure] for measure in wanted})


def measure(task: Task, request: dict) -> dict:
    if request["do"] == "compile":
        return task.compile()._asdict() if task.compile else {}
    return {"seconds": time_calls(task.calls[request["measure"]], request["seconds"])}


def time_calls(call, seconds: float) -> list[float]:
    """Two calls or more, each timed on its own, after one to wake caches and threads."""
    call()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < end and len(times) < MOST_CALLS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def matrix_rate(size: int = 2048) -> float:
    from . import jax_task

    return 2 * size**3 / min(time_calls(jax_task.matrix_product(size), seconds=2))


def settle():
    """Waits until this process is quiet, as some thread pools spin on after a call."""
    used, before = time.process_time(), -1.0
    while used - before > SETTLED * PAUSE:
        time.sleep(PAUSE)
        before, used = used, time.process_time()


if __name__ == "__main__":
    main(sys.argv[1], make_task)
