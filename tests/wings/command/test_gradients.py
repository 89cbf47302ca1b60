"""`jlstm gradients`: it prints and saves what the functions return; bad input is one line."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jlstm
from jlstm import cli, gradients
from jlstm._src import files
from jlstm.interop import files as parameter_files
from tests.helpers.draws import draw_params

QUESTIONS = ["flow", "lyapunov", "truncation", "saliency"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a series, weights, and a file that was there."""
    monkeypatch.chdir(tmp_path)
    series = np.random.default_rng(0).normal(size=(12, 2)).tolist()
    (tmp_path / "series.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in series))
    params = jlstm.LSTMParams(*(np.asarray(p) for p in draw_params(1, 2, 3)))
    parameter_files.save_params("weights.npz", params)
    (tmp_path / "old.npz").write_bytes(b"old")
    return tmp_path


def load(path):
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_embedded_system_is_answered_in_a_table(question, capsys):
    assert cli.main(["gradients", question]) == 0
    out, err = capsys.readouterr()
    rows = 6 if question == "lyapunov" else 10
    title, table = out.split("\n\n")
    assert title and err == "" and len(table.splitlines()) == 1 + rows
    assert not jax.config.read("jax_enable_x64")  # left as it was


def test_what_is_saved_is_what_the_functions_return(x64):
    params = parameter_files.load_params("weights.npz")
    params = jlstm.LSTMParams(*(p.astype(np.float64) for p in params))
    xs = files.read_series("series.csv")
    given = ["--params=weights.npz", "--input=series.csv", "--save=out.npz"]

    def ask(*question):
        assert cli.main(["gradients", *question, *given]) == 0
        return load("out.npz")

    def last(state, hs):
        return (state.h**2).sum() / 2

    def mean(state, hs):
        return (hs**2).sum(-1).mean() / 2

    @jax.jit
    def answers(params, xs):
        return (
            gradients.gradient_flow(last, params, xs)._asdict(),
            gradients.truncation_study(mean, params, xs, longest=4)._asdict(),
            gradients.lyapunov_spectrum(params, xs, k=2, warmup=3),
            gradients.input_sensitivity(params, xs),
            gradients.memory_horizon(params, xs, fraction=0.1),
        )

    flow, study, spectrum, sensitivity, horizon = answers(params, xs)
    expected = {
        ("flow",): flow,
        ("truncation", "--loss=mean", "--longest=4"): study,
        ("lyapunov", "--k=2", "--warmup=3"): {"exponents": spectrum.exponents, "steps": 9},
        ("saliency", "--fraction=0.1"): {
            "norm": sensitivity.norm, "saliency": sensitivity.saliency,
            "horizon": horizon.lag, "reached": horizon.reached,
        },
    }  # fmt: skip
    for question, arrays in expected.items():
        got = ask(*question)
        assert set(got) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-9, atol=1e-15)


def test_a_table_is_saved_whole_and_shown_cut(capsys):
    assert cli.main(["gradients", "saliency", "--steps=150", "--input-size=2", "--save=a.csv"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4 + 10 + 1 + 10
    assert shown[14] == "... (130 of 150 rows are not shown; --save FILE keeps all)"
    lines = Path("a.csv").read_text().splitlines()
    assert lines[0] == "t,norm,x0,x1" and len(lines) == 151
    table = files.read_series("a.csv")
    np.testing.assert_allclose(table[:, 1], np.hypot(table[:, 2], table[:, 3]), rtol=1e-12)
    np.testing.assert_array_equal(table[:, 0], np.arange(150))


def test_features_do_not_take_the_columns_of_the_step_and_the_norm():
    rows = "".join(f"{k},{k / 3},1.5\n" for k in range(5))
    Path("named.csv").write_text(f"t,norm,b\n{rows}")
    assert cli.main(["gradients", "saliency", "--input=named.csv", "--save=a.csv"]) == 0
    given = ["--input=named.csv", "--columns=t,norm,b", "--save=b.csv"]
    assert cli.main(["gradients", "saliency", *given]) == 0
    assert Path("b.csv").read_text().startswith("t,norm,x_t,x_norm,b\n")
    np.testing.assert_array_equal(files.read_series("b.csv"), files.read_series("a.csv"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_pictures_are_drawn(question):
    arguments = ["--input=series.csv", "--columns=b,a", "--standardise", "--dtype=float32"]
    assert cli.main(["gradients", question, *arguments, "--plot=a.png"]) == 0
    with open("a.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_the_memory_horizon_is_said(capsys):
    assert cli.main(["gradients", "saliency", "--fraction=0.5"]) == 0
    reached = "below 0.5 of its largest from lag 2 on"
    assert reached in capsys.readouterr().out
    assert cli.main(["gradients", "saliency", "--fraction=1e-9"]) == 0
    assert "as far back as the series goes, 10 steps" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], *([q] for q in QUESTIONS)])
def test_help_has_an_example(arguments, capsys):
    assert cli.main(["gradients", *arguments, "--help"]) == 0
    out = capsys.readouterr().out
    assert "example:\n  jlstm gradients" in out and "float16" not in out


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "the following arguments are required: question"),
        ("curl", "argument question: invalid choice: 'curl'"),
        ("flow --loss best", "argument --loss: expected last or mean, got 'best'"),
        ("flow --params no.npz", "no.npz: No such file or directory"),
        ("flow --params .", "settings.json: No such file or directory"),
        ("flow --params old.npz", "old.npz: not a readable .npz file"),
        (
            "flow --params weights.npz --hidden-size 3",
            "argument --hidden-size: not allowed with --params",
        ),
        ("flow --input no.csv", "no.csv: No such file or directory"),
        ("flow --columns a", "argument --columns: needs --input"),
        ("flow --run-index 1", "argument --run-index: needs --params"),
        (
            "flow --params weights.npz --run-index 0",
            "argument --run-index: weights.npz: not a folder of jlstm train",
        ),
        ("flow --dtype float16", "argument --dtype: expected float64 or float32, got 'float16'"),
        ("lyapunov --k 0", "argument --k: expected a whole number from 1"),
        ("lyapunov --k 7", "k: expected "),
        ("lyapunov --warmup -1", "argument --warmup: expected a whole number from 0"),
        ("lyapunov --warmup 10", "warmup: expected "),
        ("truncation --longest 0", "argument --longest: expected a whole number from 1"),
        (
            "saliency --fraction 2",
            "argument --fraction: expected a number between 0 and 1, got '2'",
        ),
        ("saliency --fraction nan", "argument --fraction: expected a number between 0 and 1"),
        ("saliency --plot a.pdf", "a.pdf: expected a name that ends in .png"),
        ("saliency --plot no/a.png", "no/a.png: cannot be written: there is no folder no"),
        ("saliency --save a.txt", "a.txt: expected a name that ends in .npz or .csv"),
    ],
)
def test_bad_input_is_one_line_and_touches_no_file(options, message, capsys, folder):
    before = sorted(os.listdir(folder))
    arguments = options.split()
    if arguments and "--save" not in arguments:
        arguments += ["--save", "old.npz"]
    if options.startswith("flow --params old.npz"):
        arguments = arguments[:-2]
    assert cli.main(["gradients", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"jlstm: error: {message}") and err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before
    assert (folder / "old.npz").read_bytes() == b"old"


def test_gradients_of_nothing_are_refused(capsys):
    zeros = jlstm.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.zeros(12))
    parameter_files.save_params("zeros.npz", zeros)
    assert cli.main(["gradients", "truncation", "--params=zeros.npz", "--save=old.npz"]) == 2
    message = "jlstm: error: the gradients are zero or not finite in float64\n"
    assert capsys.readouterr() == ("", message)
    with open("old.npz", "rb") as file:
        assert file.read() == b"old"


def test_without_matplotlib_a_picture_is_refused(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["gradients", "flow", "--plot", "a.png"]) == 2
    assert capsys.readouterr().err.startswith("jlstm: error: matplotlib is missing: pip install")
