"""The benchmarks run, refuse who computes something else, and say so. No time is looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURES = ["forward", "gradient", "vmap_forward", "vmap_gradient"]


def test_a_short_run(tmp_path):
    out = tmp_path / "out"
    options = "--shapes seed --peers scan swapped --rounds 1 --seconds 0"
    printed = benchmark(out, *options.split(), "--scaling", "--scaling-most", "1")
    results = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    check_machine(results["machine"])
    peers = results["shapes"]["seed"]["peers"]
    assert list(peers) == ["jlstm", "scan", "swapped"]
    check_measured(peers["jlstm"])
    check_measured(peers["scan"])
    check_refused(peers["swapped"])
    check_growth(results["scaling"])
    check_tables(printed)
    check_pictures(out)
    assert (out / "tables.md").read_text() == printed

    again = benchmark(tmp_path / "again", "--redraw", str(out / "results.json"))
    assert again == printed


def benchmark(out: Path, *options: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks", "--out", str(out), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def check_machine(machine):
    assert machine["cores"] >= 1
    assert machine["versions"]["jax"]


def check_measured(peer):
    assert peer["refused"] is None
    assert max(peer["differences"].values()) <= 1e-4
    assert list(peer["seconds"]) == MEASURES
    for (calls,) in peer["seconds"].values():
        assert len(calls) == 2
        assert min(calls) > 0
    assert len(peer["compile_seconds"]) == 1
    assert peer["temp_bytes"] > 0


def check_refused(peer):
    assert peer["refused"].startswith("differs from jlstm in forward.hs by ")
    assert min(peer["differences"].values()) > 1e-4
    assert peer["seconds"] == {measure: [] for measure in MEASURES}
    assert peer["compile_seconds"] == []


def check_growth(growth):
    (point,) = growth["points"]
    assert point["axis"] == "B" and point["size"][0] == 1
    assert list(point["peers"]) == ["jlstm", "scan"]
    assert growth["rate"] > 0


def check_tables(printed):
    lines = printed.splitlines()
    titles = [line for line in lines if line.startswith("### ")]
    assert len(titles) == len(set(titles)) == 2 + 2 * len(MEASURES) + 5 + 1
    assert sum(line.startswith("| scan |") for line in lines) == 2 * len(MEASURES) + 3
    assert "- swapped at seed: differs from jlstm in forward.hs by " in printed
    assert printed.count("swapped") == 1
    for line, after in zip(lines, lines[1:], strict=False):
        if line.startswith("|") and after.startswith("|"):
            assert line.count("|") == after.count("|")


def check_pictures(out):
    for name in ("times.png", "growth.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_a_short_run_over_seeds(tmp_path):
    command = [sys.executable, "-m", "tests.benchmarks.seeds", "--out", str(tmp_path)]
    command += "--shapes quick --peers scan --rounds 1 --seconds 0".split()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    peers = json.loads((tmp_path / "results.json").read_text())["shapes"]["quick"]["peers"]
    assert list(peers) == ["over_seeds:1", "over_seeds:2", "over_seeds:4", "scan"]
    for peer in peers.values():
        assert peer["refused"] is None
        assert max(peer["differences"].values()) <= 1e-4
        assert len(peer["seconds"]["gradient"][0]) == 2
        assert peer["temp_bytes"] > 0
    assert "| over_seeds:4 |" in done.stdout
    assert (tmp_path / "tables.md").read_text() == done.stdout
