"""The command as a process: killed, interrupted, without disk or memory to spare, or installed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jlstm import cli

EXPECTED_OUTPUT = (Path(__file__).parents[1] / "data" / "expected_output.txt").read_text()
SMALL = ["--task", "adding", "--length", "20", "--hidden-size", "4", "--batch-size", "8"]
GRID = ["--seeds", "3", "--learning-rate", "1e-3,3e-2", "--forget-bias", "1,chrono"]


def run(*arguments, **options):
    """`python -m jlstm …` as a process of its own."""
    command = [sys.executable, "-m", "jlstm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def start(*arguments, **options):
    """`python -m jlstm train …` as a process of its own."""
    command = [sys.executable, "-m", "jlstm", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def interruptible():
    """A job in the background of a shell ignores interrupts, and so would what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with an output of an earlier run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.npz").write_bytes(b"old states")
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- forward


def test_the_notebook_as_a_process():
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED_OUTPUT, "")


def test_the_installed_command():
    command = shutil.which("jlstm", path=os.path.dirname(sys.executable))
    assert command, "the command jlstm is not installed beside this Python"
    done = subprocess.run([command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED_OUTPUT, "")


PEAK = """
import resource, sys
from jlstm.cli import main
status = main(["forward", "--input", sys.argv[1], "--save", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(status)
"""


def test_a_million_rows_take_memory_in_proportion(tmp_path):
    def peak(rows):
        path = tmp_path / f"{rows}.csv"
        path.write_text("a,b\n" + "0.123456,-1.5\n2.5,0.000001\n" * (rows // 2))
        command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "a.npz")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        with np.load(tmp_path / "a.npz") as states:
            assert states["H"].shape == (rows, 3)
        return int(done.stdout.splitlines()[-1])

    begin = time.perf_counter()
    extra = peak(1_000_000) - peak(1_000)
    assert extra < 1_000_000 * 8 * (2 + 3 + 3) * 5  # input, H and C in float64, and room to work
    assert time.perf_counter() - begin < 60


def test_bad_input_as_a_process(folder):
    done = run("forward", "--input", "no.csv")
    message = "jlstm: error: no.csv: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


FULL = """
import resource, sys
from jlstm.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the nearest to a disk that fills up
sys.exit(main(["forward", "--hidden-size=40", *sys.argv[1:]]))
"""


def test_a_full_disk_is_one_line_and_touches_nothing(folder):
    before = contents(folder)
    command = [sys.executable, "-c", FULL, "--save-params=new.npz", "--save=old.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    message = "jlstm: error: old.npz: File too large\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)
    assert contents(folder) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux alone has /dev/full")
@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_a_full_standard_output_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "jlstm", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    message = "jlstm: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_a_closed_pipe_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jlstm"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_is_silent(folder, interruptible):
    os.mkfifo("pipe.csv")
    before = sorted(os.listdir())
    command = [sys.executable, "-m", "jlstm", "forward", "--input=pipe.csv", "--save=old.npz"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with open("pipe.csv", "w") as pipe:  # opens when the command has opened the other end
        pipe.write("1\n2\n")
        pipe.flush()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert sorted(os.listdir()) == before


# --- train


def test_an_interrupted_run_says_how_to_go_on(tmp_path, interruptible, capsys):
    """Ctrl-C in a process of its own, once it has written checkpoints."""
    out = tmp_path / "a folder"
    long = [*SMALL, *GRID, "--steps", 100_000, "--validate-every", 4, "--quiet"]
    process = start(*long, "--out", out)
    while process.poll() is None and not (out / "checkpoints" / "lstm" / "8").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=120)
    assert process.returncode == 130 and printed == ""
    assert error == (
        "stopping at the next checkpoint; Ctrl-C again stops at once\n"
        "interrupted; from the last checkpoint on, "
        f"`jlstm train --resume --out '{out}'` continues\n"
    )
    assert not (out / "results.csv").exists()
    assert cli.main(["gradients", "flow", "--params", str(out)]) == 2
    error = f"{out}: its runs are not finished; continue them with --resume"
    assert capsys.readouterr().err == f"jlstm: error: {error}\n"


def race(out):
    """Starts two fresh runs into one folder; one ends well, the other is refused in one line."""
    options = [*SMALL, "--steps", 12, "--validate-every", 4, "--quiet", "--out", out]
    both = [start(*options) for _ in range(2)]
    ends = [(*process.communicate(timeout=300), process.returncode) for process in both]
    assert sorted(status for *_, status in ends) == [0, 2], ends
    for printed, error, status in ends:
        assert printed == "" and error.count("\n") == (1 if status else 0), error
        if status:
            assert error.startswith(f"jlstm: error: argument --out: {out}: ")
    assert (out / "results.csv").exists() and not list(out.glob(".jlstm-*"))


def test_two_fresh_runs_into_one_folder_are_one_run(tmp_path):
    race(tmp_path / "out")


@pytest.mark.slow
def test_two_processes_race_twenty_times(tmp_path):
    for k in range(20):
        race(tmp_path / f"out{k}")


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_the_whole(tmp_path):
    """SIGKILL at random moments, from the first import to the last file, ten times."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    random = np.random.default_rng(0)
    options = [*SMALL, *GRID, "--steps", 12, "--validate-every", 4, "--plot", "--devices", 2]
    process = start(*options, "--out", whole)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    killed = 0
    while killed < 10 and not (out / "results.csv").exists():
        resume = ["--resume"] if (out / "settings.json").exists() else []
        process = start(*options, *resume, "--out", out)
        try:
            _, error = process.communicate(timeout=random.uniform(2, 12))
            assert process.returncode == 0, error
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
    process = start("--resume", "--plot", "--out", out)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 0 and killed, error
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
