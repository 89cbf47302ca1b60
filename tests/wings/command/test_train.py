"""`jlstm train` and `jlstm tasks`: what is written, what is refused, what is lost: nothing."""

import csv
import errno
import fcntl
import io
import json
import os
import re
import shutil
import sys
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from jlstm import LSTMParams, cells, cli
from jlstm._src.files import TEMPORARY
from jlstm._src.settings import DEFAULTS, check
from jlstm.cli import outcomes, train
from jlstm.experiments import (
    Best,
    Config,
    Curves,
    Run,
    Scores,
    evaluate,
    load_run,
    load_runs,
    runs,
    tasks,
)
from jlstm.experiments.seeds import over_seeds
from jlstm.gradients import gradient_flow
from jlstm.interop.files import save_params

SMALL = ["--task", "adding", "--length", "20", "--hidden-size", "4", "--batch-size", "8"]
GRID = ["--seeds", "3", "--learning-rate", "1e-3,3e-2", "--forget-bias", "1,chrono"]


def run(*arguments):
    return cli.main(["train", *map(str, arguments)])


def contents(folder):
    """What is in a folder but for checkpoints, by name."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a grid in one go."""
    out = tmp_path_factory.mktemp("train") / "out"
    jax.config.update("jax_disable_most_optimizations", True)  # as for the tests that compare
    assert run(*SMALL, *GRID, "--steps", 12, "--validate-every", 4, "--plot", "--out", out) == 0
    return out


def test_gradients_can_be_asked_of_a_run_by_its_row(finished, tmp_path, capsys):
    def ask(*options):
        status = cli.main(["gradients", "flow", "--steps=5", "--seed=1", *map(str, options)])
        return status, *capsys.readouterr()

    with np.load(finished / "params.npz") as arrays:
        weights = [arrays[f"lstm.best.layers.0.{name}"] for name in LSTMParams._fields]
    runs = len(weights[0])
    save_params(str(tmp_path / "last.npz"), LSTMParams(*(array[runs - 1] for array in weights)))
    alone = ask("--params", tmp_path / "last.npz")
    assert alone[0] == 0 and ask("--params", finished, "--run-index", runs - 1) == alone
    assert ask("--params", finished) == ask("--params", finished, "--run-index", 0) != alone
    status, out, err = ask("--params", finished, "--run-index", runs)
    assert (status, out) == (2, "")
    assert err == f"jlstm: error: index: {finished} has {runs} runs, got {runs}\n"


OTHERS = ["lyapunov", "truncation", "saliency"]


@pytest.mark.parametrize(
    "question", ["flow", *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS)]
)
def test_gradients_can_be_asked_of_a_stack(question, tmp_path, capsys):
    out, saved = tmp_path / "out", tmp_path / "a.npz"
    assert run(*SMALL, "--layers", 2, "--steps", 2, "--quiet", "--out", out) == 0
    given = ["--steps=5", "--seed=1", "--params", str(out)]
    assert cli.main(["gradients", question, *given, "--save", str(saved)]) == 0
    printed, error = capsys.readouterr()
    assert printed and error == ""
    if question == "flow":
        layers = load_run(str(out)).best.layers
        xs = np.random.RandomState(1).randn(5, 2).astype(np.float32)
        flow = gradient_flow(lambda state, hs: (hs[-1] ** 2).sum() / 2, layers, jnp.asarray(xs))
        with np.load(saved) as arrays:
            for k, layer in enumerate(flow):
                for name, ours in layer._asdict().items():
                    np.testing.assert_allclose(arrays[f"{name}_{k}"], ours, rtol=1e-3)
    assert cli.main(["forward", *given]) == 2
    error = f"{out}: expected the weights of one layer, got a stack"
    assert capsys.readouterr().err == f"jlstm: error: {error}\n"


def test_the_table_has_a_row_a_run(finished):
    with open(finished / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("task", "length", "input", "difference", "hidden_size", "layers", "batch_size"),
        *("steps", "optimizer", "cell", "learning_rate", "forget_bias", "seed", "solved_at"),
        *("best_step", "validation_loss", "loss", "metric", "cold_metric"),
    ]
    chosen = [(row["learning_rate"], row["forget_bias"], row["seed"]) for row in rows]
    assert chosen == [
        (rate, bias, seed)
        for rate in ("0.001", "0.03")
        for bias in ("1.0", "chrono")
        for seed in "012"
    ]
    assert {row["solved_at"] for row in rows} == {""}
    assert len({row["loss"] for row in rows}) == 12
    lines = [json.loads(line) for line in (finished / "results.jsonl").read_text().splitlines()]
    for line, row in zip(lines, rows, strict=True):
        assert {k: "" if v is None else str(v) for k, v in line.items()} == row


def test_curves_parameters_and_settings_are_there(finished):
    with np.load(finished / "curves.npz") as curves:
        assert curves["loss"].shape == curves["correct"].shape == (12, 12)
        assert np.isfinite(curves["loss"]).all()
    with np.load(finished / "params.npz") as params:
        shapes = {name: params[name].shape for name in params.files}
    layer = {"layers.0.W": (12, 2, 16), "layers.0.U": (12, 4, 16), "layers.0.b": (12, 16)}
    model = {**layer, "W": (12, 4, 1), "b": (12, 1)}
    assert shapes == {
        f"lstm.{when}.{name}": shape for when in ("best", "last") for name, shape in model.items()
    }
    saved = json.loads((finished / "settings.json").read_text())
    assert saved["task"] == "adding" and saved["forget_bias"] == [1.0, "chrono"]
    assert set(saved) == {*DEFAULTS, "versions", "series", "digests"} and saved["cell"] == ["lstm"]
    steps = sorted(path.name for path in (finished / "checkpoints" / "lstm").iterdir())
    assert steps == ["12", "4", "8"]


def test_pictures_are_drawn(finished):
    for name in ("curves.png", "success.png"):
        image = matplotlib.image.imread(finished / name)
        assert min(image.shape[:2]) > 200 and image.std() > 0.05


def test_a_finished_run_may_be_resumed_and_stays_as_it_was(finished, capsys):
    before = contents(finished)
    assert run("--resume", "--out", finished) == 0
    assert contents(finished) == before
    out, err = capsys.readouterr()
    assert "learning rate 0.03, forget bias chrono: 0 of 3 seeds solved; validation loss " in out
    assert "12 runs in " in out and err == ""  # no bar, as this is no terminal


def test_every_setting_reaches_the_program_that_it_names():
    chosen = {"task": "adding", "length": 30, "hidden_size": 5, "layers": 2, "batch_size": 7}
    chosen |= {"steps": 9, "optimizer": "sgd", "cell": ["gru"], "seeds": 2}
    chosen |= {"learning_rate": [0.1], "forget_bias": [3.0], "clip_norm": [2.0], "dropout": [0.5]}
    chosen |= {"validate_every": 4}
    task, configs, grid = runs.programs({**DEFAULTS, **chosen}, None)
    assert (task.name, tasks.sizes(task)) == ("adding", (33, 2))
    expected = Config(5, 2, 7, 9, optax.sgd, cells.gru, cells.init_gru, validate_every=4)
    assert configs == {"gru": expected}
    given = dict(grid.hyperparams._asdict(), chrono=0)
    assert {n: a.tolist() for n, a in jax.tree.map(np.asarray, given).items()} == {
        **{"learning_rate": [np.float32(0.1)] * 2, "forget_bias": [3] * 2, "chrono": 0},
        **{"clip_norm": [2] * 2, "dropout": [0.5] * 2},
    }


SOLVED_AT = [[-1, -1, -1], [7, -1, -1], [3, 9, -1], [80, 5, 6]]
CHOSEN = {
    **DEFAULTS,
    "task": "adding",
    "learning_rate": [1e-3, 3e-2],
    "forget_bias": [1.0, "chrono"],
    "seeds": 3,
}
LABELS = [f"learning rate {rate}, forget bias {b}" for rate in (0.001, 0.03) for b in (1, "chrono")]


def runs_of_four_settings():
    """Finished runs: no two settings share an outcome, and no median is a mean."""
    number = np.arange(12, dtype=np.float32) ** 2
    curves = np.arange(60, dtype=np.float32).reshape(12, 5)
    no_model: Any = None
    best = Best(no_model, number, number[::-1])
    scores = Scores(number, 100 + number, 200 + number)
    return Run(best, no_model, Curves(curves, curves, curves), np.ravel(SOLVED_AT), scores)


def test_each_setting_is_credited_with_its_own_runs(capsys, monkeypatch):
    from jlstm import plots

    runs, task = runs_of_four_settings(), tasks.adding()
    outcomes.print_summary(CHOSEN, task, runs)
    solved = "0 of 3", "1 of 3", "2 of 3", "3 of 3"
    steps = "", ", at step 7 (7 to 7)", ", at step 6 (3 to 9)", ", at step 6 (5 to 80)"
    spreads = ["100 (81 to 121)", "49 (36 to 64)", "16 (9 to 25)", "1 (0 to 4)"]
    *lines, test = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        f"{label}: {share} seeds solved{at}; validation loss {spread}"
        for label, share, at, spread in zip(LABELS, solved, steps, spreads, strict=True)
    ]
    assert test == (
        f"test of {LABELS[3]}, chosen by validation: loss 100 (81 to 121) (trivial answer 0.0392)"
        "; share of sequences within 0.04 200 (181 to 221)"
    )
    given = []

    def note(*arguments, **options):
        given.append(arguments)
        return Figure()

    monkeypatch.setattr(plots, "plot_training", note)
    monkeypatch.setattr(plots, "plot_success", note)
    outcomes.pictures(CHOSEN, task, runs)
    (losses, solved_at), (rates, rows, columns) = given
    assert list(losses) == list(solved_at) == LABELS
    np.testing.assert_array_equal(np.stack([*losses.values()]), runs.curves.loss.reshape(4, 3, 5))
    np.testing.assert_array_equal([*solved_at.values()], SOLVED_AT)
    assert (rows, columns) == (
        ["learning rate 0.001", "learning rate 0.03"],
        ["forget bias 1", "forget bias chrono"],
    )
    np.testing.assert_allclose(rates, np.array([[0, 1], [2, 3]]) / 3)


def test_numbers_that_json_lacks_are_null(tmp_path):
    row = {"a": np.nan, "b": -np.inf, "c": 1.5, "d": None, "e": "nan"}
    with open(tmp_path / "rows", "w+b") as file:
        outcomes.jsonl_writer([row])(file)
        file.seek(0)
        assert file.read() == b'{"a": null, "b": null, "c": 1.5, "d": null, "e": "nan"}\n'


def test_a_run_on_another_grid_is_not_resumed(finished, capsys):
    before = contents(finished)
    for options, got in {("--steps", 11): "12, got 11", ("--layers", 2): "1, got 2"}.items():
        assert run("--resume", "--out", finished, *options) == 2
        error = f"argument {options[0]}: {finished / 'settings.json'} has {got}"
        assert capsys.readouterr().err == f"jlstm: error: {error}\n"
    assert run(*SMALL, "--out", finished) == 2
    assert capsys.readouterr().err == (
        f"jlstm: error: argument --out: {finished}: expected a new folder; "
        "--resume continues what is in it\n"
    )
    assert contents(finished) == before


def test_a_model_reloaded_has_the_scores_of_the_table(finished, tmp_path):
    """All runs at once bit for bit, one to rounding; a folder may be moved."""
    moved = shutil.copytree(finished, tmp_path / "moved")
    shutil.rmtree(moved / "checkpoints")
    group = load_runs(str(moved))
    score = partial(evaluate, group.task, cell=group.cell)
    scores = jax.jit(partial(over_seeds, lambda run: score(*run)))((group.best, group.key))
    for name, column in scores._asdict().items():
        saved = [row[name] for row in group.row]
        np.testing.assert_array_equal(np.asarray(column), np.array(saved, np.float32))
    for k in (0, 7):
        one = load_run(str(moved), k)
        assert one.row == group.row[k] and one.row["seed"] == k % 3
        chex.assert_trees_all_equal(one.last, jax.tree.map(itemgetter(k), group.last))
        alone = jax.jit(score)(one.best, one.key)
        np.testing.assert_allclose(alone.loss, one.row["loss"], rtol=1e-6)
    losses = np.reshape([row["validation_loss"] for row in group.row], (4, 3))
    k = 3 * int(np.median(losses, axis=1).argmin())
    assert runs.best_runs(str(moved)).row == group.row[k : k + 3]


@pytest.mark.thorough
def test_a_finished_run_can_be_extended(finished, tmp_path, capsys):
    """To the numbers of one that was longer from the beginning, as 12 is a multiple of 4."""
    out, longer = Path(shutil.copytree(finished, tmp_path / "out")), tmp_path / "longer"
    assert run("--resume", "--steps", 18, "--quiet", "--out", out) == 0
    assert run(*SMALL, *GRID, "--steps", 18, "--validate-every", 4, "--quiet", "--out", longer) == 0
    for name in ("results.csv", "settings.json", "params.npz", "curves.npz"):
        assert (out / name).read_bytes() == (longer / name).read_bytes()
    assert capsys.readouterr().err == ""


@pytest.mark.thorough
def test_a_run_in_two_parts_is_the_whole_bit_for_bit(finished, tmp_path, monkeypatch, capsys):
    """Stopped where a checkpoint has just been written, as by a Ctrl-C."""
    out = tmp_path / "out"
    begin = train._train

    def stop(*arguments):
        from jlstm.experiments import segments

        whole = segments.advance

        def half(*given, **options):
            going = whole(*given, **options)
            yield next(going)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(segments, "advance", half)
            return begin(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train", stop)
        arguments = [*SMALL, *GRID, "--steps", 12, "--validate-every", 4]
        assert run(*arguments, "--out", out) == 130
    assert f"`jlstm train --resume --out {out}` continues" in capsys.readouterr().err
    assert set(contents(out)) == {"settings.json"}
    assert run("--resume", "--plot", "--quiet", "--out", out) == 0
    assert capsys.readouterr() == ("", "")
    for name, content in contents(finished).items():
        if name.endswith(".npz"):
            with np.load(finished / name) as a, np.load(out / name) as b:
                for key in a.files:
                    np.testing.assert_array_equal(a[key], b[key])
        else:
            assert (out / name).read_bytes() == content


def test_a_series_of_one_s_own_with_a_bar_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    path, out = tmp_path / "series.csv", tmp_path / "out"
    values = np.sin(np.arange(100) / 3)
    path.write_text("day,wind\n" + "".join(f"d{k},{x}\n" for k, x in enumerate(values)))
    options = ["--task", "forecast", "--length", 5, "--input", path, "--columns", "wind"]
    assert run(*options, "--hidden-size", 2, "--batch-size", 4, "--steps", 2, "--out", out) == 0
    out_text, bar = capsys.readouterr()
    assert "forecast: solved is" in out_text and "ridge: validation loss" in out_text
    assert re.search(r"forecast lstm: 100%.*2/2 .*validation [\d.e-]+, solved 0/1\]", bar)
    with open(out / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["input"] == str(path) and row["length"] == "5"


def test_tasks_are_listed(capsys):
    from jlstm.experiments import tasks

    assert cli.main(["tasks"]) == 0
    out, err = capsys.readouterr()
    assert re.findall(r"^\S+$", out, re.M) == list(tasks.NAMES) and err == ""
    assert "2,000 sequences in a row with an error below 0.04 (H&S 1997)" in out
    assert "baseline: a loss of 0.2971" in out


REFUSED = {
    "no task": ([], "argument --task: expected the name of a task, see `jlstm tasks`"),
    "task": (["--task", "xor"], "argument --task: expected adding, adding-2016, copy,"),
    "length": (["--task", "adding", "--length", "5"], "length: expected at least 20, got 5"),
    "digits": (["--task", "digits-rows", "--length", "5"], "length: the task digits-rows has one"),
    "optimizer": (
        ["--task", "adding", "--optimizer", "lion"],
        "argument --optimizer: expected adam, adamw, rmsprop, sgd, got 'lion'",
    ),
    "rate": (
        ["--task", "adding", "--learning-rate", "0"],
        "argument --learning-rate: expected different numbers above 0, got '0'",
    ),
    "twice": (
        ["--task", "adding", "--learning-rate", "1e-3,0.001"],
        "argument --learning-rate: expected different numbers above 0, got '1e-3,0.001'",
    ),
    "bias": (
        ["--task", "adding", "--forget-bias", "1,gers"],
        "argument --forget-bias: expected different numbers or chrono, got '1,gers'",
    ),
    "cell": (
        ["--task", "adding", "--cell", "lstm,mLSTM"],
        "argument --cell: expected different ones of lstm, peephole, coupled_forget, ",
    ),
    "cell twice": (["--task", "adding", "--cell", "gru,gru"], ", elman, gru, got 'gru,gru'"),
    "no cell": (["--task", "adding", "--cell", ""], "argument --cell: expected different ones"),
    "dropout": (
        ["--task", "adding", "--dropout", "1"],
        "argument --dropout: expected different numbers from 0 below 1, got '1'",
    ),
    "clip": (
        ["--task", "adding", "--clip-norm", "inf"],
        "argument --clip-norm: expected different numbers above 0, got 'inf'",
    ),
    "seeds": (["--task", "adding", "--seeds", "0"], "argument --seeds: expected a whole number"),
    "every": (
        ["--task", "adding", "--validate-every", "1"],
        "argument --validate-every: expected a whole number from 2",
    ),
    "input": (["--task", "adding", "--input", "a.csv"], "argument --input: belongs to the task"),
    "no input": (["--task", "forecast"], "argument --input: belongs to the task forecast"),
    "columns": (["--task", "adding", "--columns", "a"], "argument --columns: needs --input"),
    "header": (["--task", "adding", "--no-header"], "argument --header: needs --input"),
    "period": (["--task", "adding", "--period", "12"], "argument --period: needs --input"),
    "names or data": (
        ["--task", "forecast", "--input", str(Path(__file__).parents[2] / "data" / "unnamed.csv")],
        "unnamed.csv: row 1: names or data? pass --header or --no-header",
    ),
    "a file": (["--task", "forecast", "--input", "none.csv"], "No such file or directory"),
    "devices": (["--task", "adding", "--devices", "3"], "argument --devices: JAX runs on 4 "),
    "resume": (["--resume"], "argument --resume: there is no "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_one_line_and_nothing_is_written(name, tmp_path, capsys):
    arguments, message = REFUSED[name]
    assert run(*arguments, "--out", tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".jlstm-0.tmp").write_text("left by a process that was killed")
    (tmp_path / "full" / "mine").write_text("mine")
    for out in ("file", "full", "none/out", "file/out"):
        assert run(*SMALL, "--out", tmp_path / out) == 2
        assert f"argument --out: {tmp_path / out}: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "mine").read_text() == "mine"


def edited(folder, **changes):
    """Writes the settings of a folder anew, with changes."""
    path = Path(folder, "settings.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_settings_that_are_none_are_refused(finished, tmp_path, capsys):
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    path = out / "settings.json"
    before = contents(out)
    text = path.read_text()
    older = {name: value for name, value in json.loads(text).items() if name in DEFAULTS}
    without = {name: value for name, value in json.loads(text).items() if name != "layers"}
    for content, message in {
        "": "not the settings of a run",
        "[1]": "not the settings of a run",
        "[" * 100_000 + "]" * 100_000: "not the settings of a run",
        json.dumps(older): "a run of jlstm 0.1, which this version cannot read; train again",
        json.dumps(without): "'layers' is missing",
        text.replace('"layers"', '"floors"'): "'floors' is unknown",
        text.replace('"layers": 1', '"layers": "x"'): "layers: expected a whole number from 1 to",
        text.replace('"layers": 1', '"layers": null'): "layers: expected a whole number from 1",
        text.replace('"layers": 1', '"layers": true'): "layers: expected a whole number from 1",
        text.replace('"layers": 1', '"layers": [[1]]'): "layers: expected a whole number from 1",
        text.replace('"seeds": 3', '"seeds": 3.5'): "seeds: expected a whole number from 1",
        text.replace('"lstm"', "7"): "cell: expected different ones of lstm, peephole,",
        text.replace('"columns": null', '"columns": 5'): "columns: expected \"['5']\", got '5'",
        text.replace('"devices": null', '"devices": "all"'): "devices: expected a whole number",
        text.replace('"adding"', "null"): "task: ",
        text.replace('"series": null', '"series": 3'): "'series' is malformed",
        text.replace('"results.jsonl"', '"results"'): "'digests' is malformed",
        text.replace('"jax": "', '"jax": 3, "flax": "'): "'versions' is malformed",
    }.items():
        path.write_text(content)
        for command in (["train", "--resume", "--out"], ["gradients", "flow", "--params"]):
            assert cli.main([*command, str(out)]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"jlstm: error: {path}: {message}"), error
            assert error.count("\n") == 1 and len(error) < 400
    path.write_text(text)
    assert contents(out) == before


def test_a_folder_cannot_be_relabelled(finished, tmp_path, capsys):
    """Its settings, its checkpoints and its files belong together."""
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    before = (out / "settings.json").read_text()
    edited(out, learning_rate=[1e-3, 2e-2])
    with pytest.raises(ValueError, match="settings.json: was changed after the runs were finished"):
        load_run(str(out))
    assert run("--resume", "--out", out) == 2
    error = f"{out / 'checkpoints' / 'lstm'}: its settings differ from {out}"
    assert capsys.readouterr().err == f"jlstm: error: {error}\n"
    (out / "settings.json").write_text(before)
    assert load_run(str(out)).row["seed"] == 0
    for name in ("params.npz", "results.jsonl"):
        content = (out / name).read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        (out / name).write_bytes(changed)
        with pytest.raises(ValueError, match=f"{name}: was changed after it was written"):
            load_run(str(out))
        (out / name).write_bytes(content)
    edited(out, steps=8)
    assert run("--resume", "--out", out) == 2
    assert "has 12 steps, expected at most 8" in capsys.readouterr().err


def test_other_versions_are_noted(finished, tmp_path, capsys):
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    versions = json.loads((out / "settings.json").read_text())["versions"]
    edited(out, versions={**versions, "jax": "0.1.2"})
    assert run("--resume", "--quiet", "--out", out) == 0
    note = f"{out}: begun with jax 0.1.2, now {jax.__version__}: bits may differ\n"
    assert capsys.readouterr().err == note


# --- one process a folder


def test_a_folder_in_use_is_refused(finished, tmp_path, capsys, monkeypatch):
    """Its files stay; where there are no locks, a line says so."""
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    before = contents(finished)
    for out, options in ((finished, ["--resume"]), (fresh, [*SMALL, "--steps", 2])):
        held = os.open(out, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(*options, "--out", out) == 2
        error = f"argument --out: {out}: another process is using it"
        assert capsys.readouterr() == ("", f"jlstm: error: {error}\n")
        os.close(held)
    assert contents(finished) == before and not os.listdir(fresh)

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert run("--resume", "--quiet", "--out", finished) == 0
    note = f"{finished}: cannot be locked; start no second process on it\n"
    assert capsys.readouterr().err == note


def test_temporary_files_of_a_killed_process_are_removed(finished, capsys):
    left = finished / f"{TEMPORARY}0123456789abcdef.tmp"
    left.write_text("half a file")
    assert run("--resume", "--quiet", "--out", finished) == 0
    assert not left.exists()


EDITS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)


@given(st.sampled_from(sorted(DEFAULTS)), EDITS)
@settings(deadline=None)
def test_an_edited_setting_is_read_as_the_option_would_be_or_refused(name, value):
    """What passes is a value that the option itself gives."""
    try:
        check(name, value)
    except ValueError as error:
        assert str(error).startswith(f"{name}: expected ") and "\n" not in str(error)
        assert len(str(error)) < 400
        return
    if value is None:
        assert DEFAULTS[name] is None and name != "task"
        return
    words = [value] if isinstance(value, list) else value
    parser = cli._parser()
    if isinstance(value, bool):
        given = [f"--{'' if value else 'no-'}{name}"]
    else:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text if name != "columns" else quoted(words)
        given = [f"--{name.replace('_', '-')}={text}"]
    args = parser.parse_args(["train", "--out", "out", *given])
    assert getattr(args, name) == value


def quoted(words):
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerows(words)
    return line.getvalue()
