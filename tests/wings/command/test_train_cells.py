"""`jlstm train --cell A,B`: cells are one more axis of the grid, and each is as it is alone."""

import csv
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from jlstm import cells, cli
from jlstm._src.settings import CELLS, DEFAULTS
from jlstm.cli import outcomes
from jlstm.experiments import Best, Curves, Run, Scores, load_runs, tasks

GRID = ["--task", "adding", "--length", "20", "--hidden-size", "4", "--batch-size", "8"]
GRID += ["--seeds", "2", "--forget-bias", "1,chrono", "--steps", "6", "--validate-every", "2"]
TWO = ["--cell", "no_input_gate,lstm"]


def run(*arguments):
    return cli.main(["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A grid of two cells in one go."""
    out = tmp_path_factory.mktemp("cells") / "both"
    jax.config.update("jax_disable_most_optimizations", True)  # as for the tests that compare
    assert run(*GRID, *TWO, "--plot", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The standard cell."""
    out = tmp_path_factory.mktemp("cells") / "alone"
    jax.config.update("jax_disable_most_optimizations", True)
    assert run(*GRID, "--out", out) == 0
    return out


def rows_of(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def arrays_of(folder, name):
    with np.load(folder / name) as arrays:
        return dict(arrays)


def test_every_cell_that_needs_no_further_choice_has_its_name():
    drawn = {name.removeprefix("init_") for name in cells.__all__ if name.startswith("init_")}
    assert set(CELLS) == {"lstm", *drawn} - {"gates", "projected"}
    assert len(set(CELLS)) == len(CELLS)


@pytest.mark.thorough
def test_the_cell_is_the_slowest_axis_and_each_is_as_it_is_alone(both, alone):
    rows = rows_of(both)
    chosen = [(row["cell"], row["forget_bias"], row["seed"]) for row in rows]
    assert chosen == [
        (cell, bias, seed)
        for cell in ("no_input_gate", "lstm")
        for bias in ("1.0", "chrono")
        for seed in "01"
    ]
    assert rows[4:] == rows_of(alone) and len({row["loss"] for row in rows}) == 8
    for name, array in arrays_of(alone, "params.npz").items():
        np.testing.assert_array_equal(arrays_of(both, "params.npz")[name], array)
    for name, array in arrays_of(alone, "curves.npz").items():
        np.testing.assert_array_equal(arrays_of(both, "curves.npz")[name][4:], array)


def test_parameters_have_the_name_of_their_cell(both):
    params = arrays_of(both, "params.npz")
    assert set(params) == {
        f"{cell}.{when}.{name}"
        for cell in ("no_input_gate", "lstm")
        for when in ("best", "last")
        for name in ("layers.0.W", "layers.0.U", "layers.0.b", "W", "b")
    }
    assert params["no_input_gate.best.layers.0.U"].shape == (4, 4, 12)
    assert params["lstm.last.layers.0.U"].shape == (4, 4, 16)


def test_runs_are_loaded_by_cell(both):
    group = load_runs(str(both), "no_input_gate")
    assert group.cell is cells.no_input_gate and len(group.row) == 4
    with pytest.raises(ValueError, match="cell: expected no_input_gate or lstm for"):
        load_runs(str(both))


@pytest.mark.thorough
def test_pictures_and_summary_tell_cells_apart(both, capsys):
    for name in ("curves.png", "success.png"):
        image = matplotlib.image.imread(both / name)
        assert min(image.shape[:2]) > 200 and image.std() > 0.05
    assert run("--resume", "--out", both) == 0
    out, _ = capsys.readouterr()
    assert "cell no_input_gate, forget bias chrono: 0 of 2 seeds solved; validation loss " in out
    assert (
        "cell lstm, forget bias 1: 0 of 2 seeds solved; validation loss " in out
        and "8 runs in " in out
    )


def test_pictures_credit_each_cell_with_its_own_runs(monkeypatch):
    from jlstm import plots

    given = []

    def note(*arguments, **options):
        given.append(arguments)
        return Figure()

    monkeypatch.setattr(plots, "plot_panels", note)
    monkeypatch.setattr(plots, "plot_success", note)
    varied = {"cell": ["no_input_gate", "lstm"], "forget_bias": [1.0, "chrono"], "seeds": 2}
    losses, solved_at = np.arange(24.0).reshape(8, 3), np.array([-1, -1, 4, -1, 5, 6, -1, -1])
    no_model: Any = None
    best, scores = Best(no_model, solved_at, losses[:, 0]), Scores(*3 * [losses[:, 0]])
    runs = Run(best, no_model, Curves(losses, losses, losses), solved_at, scores)
    outcomes.pictures({**DEFAULTS, **varied}, tasks.adding(), runs)
    (panels,), (rates, rows, columns) = given
    biases = ["forget bias 1", "forget bias chrono"]
    assert list(panels) == varied["cell"] and list(panels["lstm"]) == biases == columns
    came = [panels[cell][bias] for cell in panels for bias in biases]
    np.testing.assert_array_equal(came, losses.reshape(4, 2, 3))
    assert rows == ["cell no_input_gate", "cell lstm"]
    np.testing.assert_array_equal(rates, [[0, 0.5], [1, 0]])


@pytest.mark.slow
def test_cells_in_two_parts_are_the_whole_bit_for_bit(both, tmp_path, monkeypatch, capsys):
    """Stopped at a checkpoint of the second cell, and resumed."""
    from jlstm.experiments import segments

    out, seen, whole = tmp_path / "out", [], segments.advance

    def interrupted(*given, **options):
        for segment in whole(*given, **options):
            if len(seen) == 4:  # three of the first cell, one of the second
                raise KeyboardInterrupt
            seen.append(segment[0])
            yield segment

    with monkeypatch.context() as patch:
        patch.setattr(segments, "advance", interrupted)
        assert run(*GRID, *TWO, "--out", out) == 130
    assert f"`jlstm train --resume --out {out}` continues" in capsys.readouterr().err
    assert seen == [2, 4, 6, 2] and not (out / "results.csv").exists()
    assert run("--resume", "--plot", "--quiet", "--out", out) == 0
    for name in ("params.npz", "curves.npz"):
        for key, array in arrays_of(both, name).items():
            np.testing.assert_array_equal(arrays_of(out, name)[key], array)
    for name in ("results.csv", "results.jsonl", "curves.png", "success.png", "settings.json"):
        assert (out / name).read_bytes() == (both / name).read_bytes()


def test_other_cells_are_not_resumed(both, capsys):
    assert run("--resume", "--out", both, "--cell", "lstm") == 2
    message = "settings.json has ['no_input_gate', 'lstm'], got ['lstm']\n"
    err = capsys.readouterr().err
    assert err.startswith("jlstm: error: argument --cell: ") and err.endswith(message)


def test_gradients_are_asked_of_the_standard_cell_and_others_are_refused(both, alone, capsys):
    def ask(folder, row):
        question = ["gradients", "flow", "--steps=5", "--params", str(folder)]
        status = cli.main([*question, f"--run-index={row}"])
        out, err = capsys.readouterr()
        return status, out, err

    assert ask(both, 5) == ask(alone, 1) != ask(both, 4) == ask(alone, 0)
    assert ask(both, 5)[0] == 0
    assert ask(both, 3) == (
        *(2, ""),
        f"jlstm: error: {both}: expected a run of the cell lstm, run 3 is one of no_input_gate\n",
    )
    assert ask(both, 8)[2] == f"jlstm: error: index: {both} has 8 runs, got 8\n"
