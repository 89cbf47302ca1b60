"""A run that is killed resumes to the identical result, and a full disk loses nothing."""

import errno
import multiprocessing
import os
import shutil
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jlstm.experiments.checkpoints import restore
from tests.helpers import small_runs
from tests.helpers.comparisons import assert_identical


@pytest.fixture(scope="module")
def processes():
    """Processes that need not import everything again: forks of one that computes nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.small_runs", "orbax.checkpoint"])
    return context


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_is_one_error_and_leaves_the_last_good_one(processes, tmp_path, foreseen):
    """The system's own refusal, of every file beyond a size; a small file still goes through."""
    reader, writer = processes.Pipe(duplex=False)
    child = processes.Process(target=small_runs.fill_up, args=(str(tmp_path), foreseen, writer))
    child.start()
    assert reader.poll(120)
    assert reader.recv() == (str(tmp_path), os.strerror(errno.EFBIG))
    child.join()
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    found = restore(str(tmp_path), jnp.zeros(3))
    assert found and found.step == 2 and found.refused == ()


def kill_and_resume(processes, folder, kills, seed):
    """Kills `kills` processes, each after some time; all runs in between end in the same state.

    One in two is killed at any moment, the other at any moment after its first steps, lest most
    should die while they compile.
    """
    expected, compiling, training = run_to_the_end(processes, folder / "whole")
    moments = np.random.default_rng(seed)
    run, killed, found_at = folder / "run", 0, []
    while killed < kills:
        child, compiled = start_training(processes, run)
        if moments.random() < 0.5:
            child.join(moments.uniform(0, compiling + training))
        else:
            assert compiled.wait(120)
            child.join(moments.uniform(0, training))
        child.kill()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            killed += 1
            found = restore(str(run), small_runs.trainings_like())
            assert found is None or not found.refused
            found_at.append(found.step if found else 0)
        else:
            assert child.exitcode == 0
            assert_identical(result_of(run), expected)
            shutil.rmtree(run)
    assert_identical(run_to_the_end(processes, run)[0], expected)
    return found_at


def start_training(processes, folder):
    """A process that trains, and the event of its first steps."""
    compiled = processes.Event()
    child = processes.Process(target=small_runs.train, args=(str(folder), compiled))
    child.start()
    return child, compiled


def run_to_the_end(processes, folder):
    """The result, and how long it took to the first steps, and from there."""
    begin = time.perf_counter()
    child, compiled = start_training(processes, folder)
    assert compiled.wait(120)
    first = time.perf_counter()
    child.join()
    assert child.exitcode == 0
    return result_of(folder), first - begin, time.perf_counter() - first


def result_of(folder):
    found = restore(str(folder), small_runs.trainings_like())
    assert found and found.step == small_runs.STEPS and found.refused == ()
    return found.tree


def test_a_run_that_is_killed_resumes_to_the_identical_result(processes, tmp_path):
    kill_and_resume(processes, tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_a_run_that_is_killed_at_a_hundred_moments(processes, tmp_path):
    found_at = kill_and_resume(processes, tmp_path, kills=100, seed=1)
    assert len(set(found_at)) > 5  # they were moments of all kinds
