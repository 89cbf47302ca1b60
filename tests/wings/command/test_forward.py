"""The command: the notebook's table, real series, and one line for whatever is wrong."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import statsmodels.api as sm

from jlstm import cli, reference
from jlstm._src import files
from jlstm.cli import forward
from jlstm.interop.files import load_params, save_params

EXPECTED_OUTPUT = (Path(__file__).parents[2] / "data" / "expected_output.txt").read_text()


def run(*arguments, **options):
    """`python -m jlstm …` as a process of its own."""
    command = [sys.executable, "-m", "jlstm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def load(path):
    with np.load(path) as states:
        return states["H"], states["C"]


# --- the notebook's system


@pytest.mark.parametrize("arguments", [[], ["forward"], ["forward", "--seed", "42"]])
def test_the_notebook_to_the_character(capsys, arguments):
    assert cli.main(arguments) == 0
    assert capsys.readouterr() == (EXPECTED_OUTPUT, "")
    assert not jax.config.read("jax_enable_x64")  # left as it was


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jlstm 0")
    for arguments in (["--help"], ["forward", "--help"]):
        assert cli.main(arguments) == 0
        out, err = capsys.readouterr()
        assert "example:\n  jlstm forward" in out and err == ""


def test_sizes_and_seed_are_the_reference_s(tmp_path, capsys):
    sizes = {"seed": 0, "steps": 20, "input_size": 4, "hidden_size": 5}
    options = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    assert cli.main(["forward", *options, "--save", str(tmp_path / "a.npz")]) == 0
    for got, expected in zip(
        load(tmp_path / "a.npz"), reference.run(*reference.draw(**sizes)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)
    assert len(capsys.readouterr().out.splitlines()) == 23


def test_a_long_table_is_cut_and_says_so(capsys):
    assert cli.main(["forward", "--steps", "100"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 103
    assert cli.main(["forward", "--steps", "101"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 10 + 1 + 10
    assert lines[13] == "... (81 of 101 steps are not shown; --save FILE keeps all)"
    assert lines[12].startswith("t=9 | ") and lines[14].startswith("t=91 | ")


def test_a_step_of_many_units_is_one_line(capsys):
    assert cli.main(["forward", "--hidden-size", "40"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 13


# --- a real series


def load_table(dataset) -> Any:
    return dataset.load_pandas().data


@pytest.fixture
def sunspots(tmp_path):
    table = load_table(sm.datasets.sunspots)
    path = tmp_path / "sunspots.csv"
    table.to_csv(path, index=False)
    return str(path), table["SUNACTIVITY"].to_numpy()[:, None]


@pytest.mark.parametrize(
    ("dtype", "atol"), [("float64", 1e-14), ("float32", 1e-6), ("bfloat16", 0.1), ("float16", 0.02)]
)
@pytest.mark.parametrize("name", ["states.npz", "states.csv"])
def test_sunspots_against_the_reference(tmp_path, capsys, sunspots, name, dtype, atol):
    path, series = sunspots
    save = str(tmp_path / name)
    options = ["--columns=SUNACTIVITY", "--standardise", "--hidden-size=4", f"--dtype={dtype}"]
    assert cli.main(["forward", "--input", path, *options, "--save", save]) == 0
    _, gates = reference.draw(steps=0, input_size=1, hidden_size=4)
    expected = reference.run((series - series.mean()) / series.std(), gates)
    if name == "states.npz":
        got = load(save)
        assert [a.dtype for a in got] == [got[0].dtype, np.promote_types(got[0].dtype, "f4")]
    else:
        got = np.split(files.read_series(save), 2, axis=1)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == (309, 4)
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=atol)
    assert "t=308 | h=[" in capsys.readouterr().out


def test_co2_is_refused_where_it_is_missing_and_runs_without(tmp_path, capsys):
    table = load_table(sm.datasets.co2)
    table.to_csv(tmp_path / "co2.csv")
    line = 2 + int(np.flatnonzero(table["co2"].isna())[0])
    command = ["forward", "--input", str(tmp_path / "co2.csv"), "--columns=co2", "--standardise"]
    assert cli.main(command) == 2
    where = f"{tmp_path / 'co2.csv'}: row {line}, column 'co2'"
    message = f"jlstm: error: {where}: {NUMBER} ''{MISSING}\n"
    assert capsys.readouterr() == ("", message)
    table.dropna().to_csv(tmp_path / "co2.csv")
    assert cli.main([*command, "--save", str(tmp_path / "states.npz")]) == 0
    series = table.dropna().to_numpy()
    _, gates = reference.draw(steps=0)
    expected = reference.run((series - series.mean()) / series.std(), gates)
    for got, want in zip(load(tmp_path / "states.npz"), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["weights.npz", "weights.safetensors"])
def test_saved_weights_give_the_same_states_again(tmp_path, capsys, sunspots, name):
    path, _ = sunspots
    weights, states = str(tmp_path / name), str(tmp_path / "states.npz")
    first = ["forward", "--input", path, "--standardise", "--seed=7", "--save-params", weights]
    assert cli.main(first) == 0
    table = capsys.readouterr().out
    second = ["forward", "--input", path, "--standardise", "--params", weights, "--save", states]
    assert cli.main(second) == 0
    assert capsys.readouterr().out == table
    W, U, b = load_params(weights)
    assert (W.shape, U.shape, b.shape) == ((2, 12), (3, 12), (12,))
    assert isinstance(W, np.ndarray) and W.dtype == np.float64


def test_a_npy_series_is_the_csv_series(tmp_path, capsys, sunspots):
    path, series = sunspots
    np.save(tmp_path / "sunspots.npy", series[:, 0])
    assert cli.main(["forward", "--input", path, "--columns=1"]) == 0
    table = capsys.readouterr().out
    assert cli.main(["forward", "--input", str(tmp_path / "sunspots.npy")]) == 0
    assert capsys.readouterr().out == table


def test_a_picture_is_drawn(tmp_path, capsys):
    assert cli.main(["forward", "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr() == (EXPECTED_OUTPUT, "")


# --- bad input


SERIES = "a,b\n1,2\n3,4\n"
GOOD = {
    "good.csv": SERIES,
    "constant.csv": "1,2\n1,3\n",
    "huge.csv": "1e300\n2\n",
}
NUMBER = "expected a finite number, got"
MISSING = ": a missing cell; pass --missing mask, or leave out its row or column"
SIZE = "expected a whole number from 1 to 2147483647, got"

# What the file bad.csv holds, the options, and the message.
BAD = {
    "missing": (None, "--input no.csv", "no.csv: No such file or directory"),
    "a folder": (None, "--input folder.csv", "folder.csv: Is a directory"),
    "empty": ("", "--input bad.csv", "bad.csv: the file is empty"),
    "ragged": ("1,2\n3\n", "--input bad.csv", "bad.csv: row 2: expected 2 cells, got 1"),
    "text": ("1,2\n3,x\n", "--input bad.csv", f"bad.csv: row 2, column 1: {NUMBER} 'x'"),
    "nan": (
        "a,b\n3,NaN\n",
        "--input bad.csv",
        f"bad.csv: row 2, column 'b': {NUMBER} 'NaN'{MISSING}",
    ),
    "infinite": ("a\ninf\n", "--input bad.csv", f"bad.csv: row 2, column 'a': {NUMBER} 'inf'"),
    "not UTF-8": (b"\xff", "--input bad.csv", "bad.csv: not UTF-8 text"),
    "objects": (
        None,
        "--input objects.npy",
        "objects.npy: not a readable .npy file: it is broken, or holds Python objects",
    ),
    "another ending": (
        None,
        "--input a.xlsx",
        "a.xlsx: expected a name that ends in .csv or .npy",
    ),
    "no such column": (
        None,
        "--input good.csv --columns c",
        "good.csv: no column 'c'; expected a, b, or by place 0 to 1",
    ),
    "constant": (
        None,
        "--input constant.csv --standardise",
        "constant.csv: column 0: constant, so it has no deviation",
    ),
    "too large for the dtype": (
        None,
        "--input huge.csv --dtype float32",
        "huge.csv: holds a number that is too large for float32",
    ),
    "too large to standardise": (
        "1e308\n-1e308\n",
        "--input bad.csv --standardise",
        "bad.csv: numbers too large or too small to standardise",
    ),
    "too small to standardise": (
        "1e-300\n2e-300\n",
        "--input bad.csv --standardise",
        "bad.csv: numbers too large or too small to standardise",
    ),
    "weights do not fit": (
        None,
        "--input good.csv --columns a --params weights.npz",
        "weights.npz: the weights take a series of 2 columns, good.csv gives 1",
    ),
    "weights are missing": (None, "--params no.npz", "no.npz: No such file or directory"),
    "weights are a series": (
        None,
        "--params good.csv",
        "good.csv: not a readable .npz file: it is broken, or holds Python objects",
    ),
    "foreign weights": (
        None,
        "--params states.npz",
        "states.npz: expected the arrays W, U, b, got H, C",
    ),
    "weights of several": (
        None,
        "--params stack.npz",
        "stack.npz: expected the weights of one LSTM, got tuple",
    ),
    "no folder": (
        None,
        "--save no/a.npz",
        "no/a.npz: cannot be written: there is no folder no",
    ),
    "onto a folder": (
        None,
        "--save folder.csv",
        "folder.csv: cannot be written: it is not a file",
    ),
    "ending of --save": (
        None,
        "--save a.txt",
        "a.txt: expected a name that ends in .npz or .csv",
    ),
    "ending of --save-params": (
        None,
        "--save-params a.csv",
        "a.csv: expected a name that ends in .npz or .safetensors",
    ),
    "ending of --plot": (None, "--plot a.jpg", "a.jpg: expected a name that ends in .png"),
    "one file twice": (
        None,
        "--save a.npz --save-params ./a.npz",
        "argument --save-params: ./a.npz: the same file as --save",
    ),
    "onto the input": (
        None,
        "--input good.csv --save good.csv",
        "argument --save: good.csv: the same file as --input",
    ),
    "unknown option": (None, "--bogus", "unrecognized arguments: --bogus"),
    "abbreviated option": (None, "--step 3", "unrecognized arguments: --step 3"),
    "no value": (None, "--steps", "argument --steps: expected one argument"),
    "empty name": (None, "--input=", "argument --input: expected the name of a file, got ''"),
    "no columns": (
        None,
        "--input good.csv --columns=,",
        "argument --columns: expected names or places, got ','",
    ),
    "steps": (None, "--steps 0", f"argument --steps: {SIZE} '0'"),
    "input size": (None, "--input-size -1", f"argument --input-size: {SIZE} '-1'"),
    "hidden size": (None, "--hidden-size 2.5", f"argument --hidden-size: {SIZE} '2.5'"),
    "seed": (
        None,
        "--seed -1",
        "argument --seed: expected a whole number from 0 to 4294967295, got '-1'",
    ),
    "dtype": (
        None,
        "--dtype int8",
        "argument --dtype: expected one of float64, float32, bfloat16, float16, got 'int8'",
    ),
    "steps of a file": (
        None,
        "--input good.csv --steps 5",
        "argument --steps: not allowed with --input, which decides it",
    ),
    "input size of a file": (
        None,
        "--input good.csv --input-size 2",
        "argument --input-size: not allowed with --input, which decides it",
    ),
    "input size of weights": (
        None,
        "--params weights.npz --input-size 2",
        "argument --input-size: not allowed with --params, which decides it",
    ),
    "hidden size of weights": (
        None,
        "--params weights.npz --hidden-size 2",
        "argument --hidden-size: not allowed with --params, which decides it",
    ),
    "a seed for nothing": (
        None,
        "--input good.csv --params weights.npz --seed 0",
        "argument --seed: nothing is drawn with --input and --params",
    ),
    "header of nothing": (None, "--no-header", "argument --header: needs --input"),
    "delimiter of nothing": (None, "--delimiter ;", "argument --delimiter: needs --input"),
    "delimiter": (
        None,
        "--input good.csv --delimiter ab",
        "argument --delimiter: expected a character or tab, got 'ab'",
    ),
    "names or data": (
        "0,1\n2,3\n",
        "--input bad.csv",
        "bad.csv: row 1: names or data? pass --header or --no-header",
    ),
    "columns of nothing": (None, "--columns a", "argument --columns: needs --input"),
    "standardise nothing": (None, "--standardise", "argument --standardise: needs --input"),
}


def test_header_and_delimiter(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("0\t1\n0.5\t2\n")
    Path("b.csv").write_text("0\n0.5\n")
    for options, steps in [("--header", 1), ("--no-header", 2)]:
        command = ["forward", "--input", "a.csv", "--delimiter", "tab", options]
        assert cli.main(command) == 0
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 3 + steps and err == ""
    assert cli.main(["forward", "--input", "b.csv"]) == 0
    _, err = capsys.readouterr()
    advice = "is read as data; pass --header if it has names, or --no-header"
    assert err == f"b.csv: row 1, '0', {advice}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in with good files, and outputs of an earlier run."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder.csv")
    for name, content in GOOD.items():
        Path(name).write_text(content)
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("weights.npz", W=np.zeros((2, 8)), U=np.zeros((2, 8)), b=np.zeros(8))
    save_params("stack.npz", (load_params("weights.npz"),))
    np.savez("states.npz", H=np.zeros((2, 8)), C=np.zeros((2, 8)))
    Path("old.npz").write_bytes(b"old states")
    Path("old.png").write_bytes(b"old picture")
    return tmp_path


def contents(folder):
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_touches_nothing(folder, capsys, case):
    content, options, message = BAD[case]
    if content is not None:
        Path("bad.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["forward", *options.split()]
    if not {"--save", "--plot"} & {option.split("=")[0] for option in arguments}:
        arguments += [] if options == "--steps" else ["--save", "old.npz", "--plot", "old.png"]
    before = contents(folder)
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"jlstm: error: {message}\n")
    assert contents(folder) == before


def test_an_output_without_permission_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    before = contents(folder)
    assert cli.main(["forward", "--save", "old.npz"]) == 2
    message = "jlstm: error: old.npz: cannot be written: permission denied\n"
    assert capsys.readouterr() == ("", message)
    assert contents(folder) == before


def test_an_unknown_command_is_refused(capsys):
    assert cli.main(["backward"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1  # Python's own words, which differ by version
    assert err.startswith("jlstm: error: argument command: invalid choice: 'backward' (choose from")


def test_states_that_are_not_finite_are_refused(folder, capsys, monkeypatch):
    def overflow(params, xs, return_states):
        return None, (xs, jax.numpy.full_like(xs, jax.numpy.nan))

    monkeypatch.setattr(forward, "unroll", overflow)
    before = contents(folder)
    assert cli.main(["forward", "--save", "old.npz"]) == 2
    message = "the states are not finite in float64: the series is too large"
    assert capsys.readouterr() == ("", f"jlstm: error: {message}\n")
    assert contents(folder) == before


def test_without_matplotlib_a_picture_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["forward", "--plot", "a.png"]) == 2
    message = "matplotlib is missing: pip install 'jlstm[plots]'"
    assert capsys.readouterr() == ("", f"jlstm: error: {message}\n")


def test_too_little_memory_is_one_line(capsys, monkeypatch):
    def draw(**_):
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(reference, "draw", draw)
    assert cli.main(["forward"]) == 2
    message = "jlstm: error: not enough memory: Unable to allocate 7 TiB\n"
    assert capsys.readouterr() == ("", message)
