"""`jlstm forecast`: the numbers by hand, beside simple methods, and what does not fit."""

import csv
import shutil
from pathlib import Path
from typing import Any, cast

import jax
import matplotlib.image
import numpy as np
import pytest

from jlstm import cli
from jlstm.experiments import free_run, load_runs
from jlstm.experiments.runs import best_runs

N, WINDOW = 150, 10
TIMES = np.arange(N)
SERIES = 50 + 0.2 * TIMES + 5 * np.sin(2 * np.pi * TIMES / 12)
SERIES += np.random.default_rng(0).standard_normal(N)


def write(path, columns):
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([list(columns), *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two cells, two rates and three seeds, without the file of their series."""
    where = tmp_path_factory.mktemp("forecast")
    write(where / "series.csv", {"level": SERIES})
    jax.config.update("jax_disable_most_optimizations", True)  # as for the tests that compare
    options = f"--task forecast --input {where / 'series.csv'} --length {WINDOW} --hidden-size 4"
    options += " --batch-size 8 --steps 20 --validate-every 10 --seeds 3 --learning-rate 1e-3,2e-2"
    options += f" --cell gru,lstm --difference --quiet --out {where / 'runs'}"
    assert cli.main(["train", *options.split()]) == 0
    (where / "series.csv").unlink()
    return where / "runs"


def ask(*arguments, status=0):
    assert cli.main(["forecast", *map(str, arguments)]) == status


def table_of(text):
    """The first table of the output, by column."""
    lines = text.split("\n\n")[1].splitlines()
    names = ["step", "median", "low", "high", "persistence", "seasonal naive (12)", "ridge"]
    assert lines[0].split() == " ".join(names).split()
    return dict(zip(names, np.array([line.split() for line in lines[1:]], float).T, strict=True))


def test_forecasts_are_those_of_the_best_setting_by_validation(folder, tmp_path, capsys):
    ask(folder, "--horizon", 5, "--save", tmp_path / "a.npz", "--plot", tmp_path / "a.png")
    out, err = capsys.readouterr()
    assert err == ""
    groups = [load_runs(str(folder), cell) for cell in ("gru", "lstm")]
    losses = np.array([[row["validation_loss"] for row in group.row] for group in groups])
    cell, rate = divmod(int(np.median(losses.reshape(4, 3), axis=1).argmin()), 2)
    best, group = best_runs(str(folder)), groups[cell]
    assert best.row == group.row[3 * rate : 3 * rate + 3]
    assert f"by 3 seeds of {('gru', 'lstm')[cell]}" in out
    with np.load(tmp_path / "a.npz") as arrays:
        saved = dict(arrays)
    scaling = cast(Any, group.task.scaling)
    for seed in range(3):
        model = jax.tree.map(lambda leaf, k=3 * rate + seed: leaf[k], group.best)
        alone = free_run(model, scaling, SERIES[:, None], 5, cell=group.cell)
        np.testing.assert_allclose(saved["forecasts"][seed], alone, rtol=1e-6)
    table = table_of(out)
    for name, by_hand in {
        "step": np.arange(1, 6),
        "median": np.median(saved["forecasts"], axis=0)[:, 0],
        "low": np.quantile(saved["forecasts"], 0.1, axis=0)[:, 0],
        "high": np.quantile(saved["forecasts"], 0.9, axis=0)[:, 0],
        "persistence": np.full(5, SERIES[-1]),
        "seasonal naive (12)": SERIES[N - 12 : N - 7],
    }.items():
        np.testing.assert_allclose(table[name], by_hand, rtol=1e-3)
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert min(image.shape[:2]) > 200 and image.std() > 0.05


def test_errors_and_coverage_are_of_starts_in_the_test_part(folder, capsys):
    ask(folder, "--horizon", 4)
    out = capsys.readouterr().out
    starts = np.arange(120, 147)  # the test part has 30 values, the last start 4 before its end
    assert f"errors of 4 steps from {len(starts)} starts" in out
    errors = dict(line.rsplit(None, 1) for line in out.split("\n\n")[3].splitlines()[1:])
    actual = np.stack([SERIES[start : start + 4] for start in starts])
    last = SERIES[starts - 1][:, None]
    expected = np.sqrt(((actual - last) ** 2).mean())
    np.testing.assert_allclose(float(errors["persistence"]), expected, rtol=1e-3)
    best = best_runs(str(folder))
    pasts = np.stack([SERIES[start - 90 : start, None] for start in starts])

    @jax.jit
    def every(models, pasts):
        def one(model, past):
            return free_run(model, cast(Any, best.task.scaling), past, 4, cell=best.cell)

        return jax.vmap(lambda model: jax.vmap(lambda past: one(model, past))(pasts))(models)

    forecasts = np.asarray(every(best.best, pasts.astype(np.float32)), np.float64)[..., 0]
    expected = np.sqrt(((np.median(forecasts, axis=0) - actual) ** 2).mean())
    np.testing.assert_allclose(float(errors["median of seeds"]), expected, rtol=1e-3)
    low, high = np.quantile(forecasts, [0.1, 0.9], axis=0)
    covered = ((actual >= low) & (actual <= high)).mean()
    assert 0 < covered < 1
    assert f"low to high covers {covered:.0%} of these values" in out
    ask(folder, "--horizon", 31)
    assert "The test part is shorter than the horizon" in capsys.readouterr().out


def test_another_series_is_continued_in_its_own_units(folder, tmp_path, capsys):
    later = SERIES[:90] + 30
    write(tmp_path / "later.csv", {"other": later, "level": later})
    ask(
        folder,
        "--input",
        tmp_path / "later.csv",
        "--columns",
        "level",
        "--save",
        tmp_path / "a.csv",
    )
    out, err = capsys.readouterr()
    assert err == ""  # its differences are those that the runs know
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = best_runs(str(folder))
    every = [
        free_run(model, cast(Any, best.task.scaling), later[:, None], 10, cell=best.cell)
        for model in (jax.tree.map(lambda leaf, k=k: leaf[k], best.best) for k in range(3))
    ]
    middle = np.array([float(row["median"]) for row in rows])
    np.testing.assert_allclose(middle, np.median(np.stack(every)[..., 0], axis=0), rtol=1e-5)
    assert float(rows[0]["persistence"]) == pytest.approx(later[-1])
    assert table_of(out)["median"] == pytest.approx(middle, rel=1e-3)


def test_a_range_that_the_runs_do_not_know_is_noted(folder, tmp_path, capsys):
    write(tmp_path / "wild.csv", {"level": SERIES * 9})
    ask(folder, "--input", tmp_path / "wild.csv")
    err = capsys.readouterr().err
    assert (
        err.startswith(f"{tmp_path / 'wild.csv'}: column 0 reaches from -") and err.count("\n") == 1
    )
    assert ", the runs trained on -" in err


def test_what_does_not_fit_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("two.csv", {"a": SERIES, "b": SERIES})
    write("short.csv", {"level": SERIES[:44]})
    Path("mine.png").write_text("mine")
    shutil.copytree(folder, "changed")
    content = bytearray(Path("changed/series.npz").read_bytes())
    content[-30] ^= 1
    Path("changed/series.npz").write_bytes(content)
    assert cli.main("train --task adding --length 20 --steps 2 --quiet --out adding".split()) == 0
    before = sorted(Path().rglob("*"))
    for arguments, message in {
        "no": "no/settings.json: No such file or directory",
        "adding": "adding: expected runs of the task forecast, got adding",
        "changed": "changed/series.npz: was changed after it was written, or",
        f"{folder} --horizon 0": "argument --horizon: expected a whole number from 1",
        f"{folder} --columns a": "argument --columns: needs --input",
        f"{folder} --input two.csv": "argument --input: two.csv: expected 1 columns as in",
        f"{folder} --input short.csv": "argument --input: short.csv: expected 45 rows or more",
        f"{folder} --input no.csv": "no.csv: No such file or directory",
        f"{folder} --save a.txt": "a.txt: expected a name that ends in .npz or .csv",
        f"{folder} --plot no/a.png": "no/a.png: cannot be written: there is no folder no",
    }.items():
        ask(*arguments.split(), status=2)
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"jlstm: error: {message}"), err
        assert err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before and Path("mine.png").read_text() == "mine"


def test_runs_resume_without_the_file_of_their_series_and_refuse_another(folder, tmp_path, capsys):
    out = shutil.copytree(folder, tmp_path / "runs")
    assert cli.main(["train", "--resume", "--quiet", "--out", str(out)]) == 0
    write(tmp_path / "other.csv", {"level": SERIES + 1})
    given = ["--input", str(tmp_path / "other.csv")]
    capsys.readouterr()
    assert cli.main(["train", "--resume", "--quiet", "--out", str(out), *given]) == 2
    error = f"argument --input: {tmp_path / 'other.csv'} is not the series of {out}"
    assert capsys.readouterr().err == f"jlstm: error: {error}\n"


def test_missing_cells_are_masked_from_training_to_forecast(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = SERIES.round(6).astype(str)
    cells[[3, 60, 61, 140]] = ["", "NA", "nan", "?"]
    write("holes.csv", {"level": cells})
    options = f"--task forecast --input holes.csv --length {WINDOW} --hidden-size 4 --seeds 2"
    options += " --batch-size 8 --steps 10 --quiet --out runs"
    assert cli.main(["train", *options.split()]) == 2
    error = "holes.csv: row 5, column 'level': expected a finite number, got '': a missing cell; "
    assert error + "pass --missing mask, or leave" in capsys.readouterr().err
    assert cli.main(["train", *options.split(), "--missing", "mask"]) == 0
    group = load_runs("runs")
    assert all(np.isfinite(row["loss"]) for row in group.row)
    ask("runs", "--horizon", 5)
    out, err = capsys.readouterr()
    assert err == "" and np.isfinite(table_of(out)["median"]).all()
    model = jax.tree.map(lambda leaf: leaf[0], best_runs("runs").best)
    holes = SERIES.round(6)
    holes[[3, 60, 61, 140]] = np.nan
    free = free_run(model, cast(Any, group.task.scaling), holes[:, None], 5)
    assert np.isfinite(free).all()
    cells[-1] = ""
    write("end.csv", {"level": cells})
    ask("runs", "--input", "end.csv", "--missing", "mask", status=2)
    error = "jlstm: error: end.csv: expected a last row without missing cells\n"
    assert capsys.readouterr().err.endswith(error)
    assert cli.main("train --resume --quiet --out runs --input holes.csv".split()) == 0


def test_a_run_over_missing_cells_holds_its_state(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = SERIES[:20].astype(str)
    cells[[4, 5]] = ""
    write("holes.csv", {"level": cells})
    given = "--input holes.csv --missing mask --standardise --hidden-size 3".split()
    assert cli.main(["forward", *given, "--save", "a.npz"]) == 0
    with np.load("a.npz") as arrays:
        H = arrays["H"]
    assert np.isfinite(H).all()
    np.testing.assert_array_equal(H[[4, 5]], H[[3, 3]])
    assert (H[6] != H[3]).all()
    for question in ("flow", "lyapunov", "truncation", "saliency"):
        assert cli.main(["gradients", question, *given]) == 0
    assert "nan" not in capsys.readouterr().out
    np.save("holes.npy", np.where(np.arange(20) == 4, np.nan, SERIES[:20]))
    given = "--input holes.npy --hidden-size 3".split()
    assert cli.main(["forward", *given, "--missing", "mask"]) == 0
    capsys.readouterr()
    assert cli.main(["forward", *given]) == 2
    assert "holes.npy: row 4, column 0: expected a finite number" in capsys.readouterr().err
