"""The oracle against the notebook itself, and against its own printed table."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np

from jlstm import reference

TESTS = Path(__file__).parents[1]
NOTEBOOK = TESTS.parent / "notebooks" / "01_notebook_cell.ipynb"


def run_notebook_cell():
    """Executes the cell that jlstm grew out of: `(what it printed, its variables)`."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    tagged = (cell for cell in cells if "notebook-cell" in cell["metadata"].get("tags", []))
    (source,) = ("".join(cell["source"]) for cell in tagged)
    variables, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(source, variables)
    return printed.getvalue(), variables


def test_the_notebook_cell_still_prints_its_table():
    printed, _ = run_notebook_cell()
    assert printed == (TESTS / "data" / "expected_output.txt").read_text()


def test_draws_and_histories_are_the_notebooks_to_the_bit():
    _, notebook = run_notebook_cell()
    X, gates = reference.draw()
    np.testing.assert_array_equal(X, notebook["X"])
    for name, (W, U, b) in gates.items():
        np.testing.assert_array_equal(W, notebook[f"W{name}"])
        np.testing.assert_array_equal(U, notebook[f"U{name}"])
        np.testing.assert_array_equal(b, notebook[f"b{name}"])
    H, C = reference.run(X, gates)
    np.testing.assert_array_equal(H, notebook["H"])
    np.testing.assert_array_equal(C, notebook["C"])


def test_every_size_has_the_shapes_of_the_equations():
    X, gates = reference.draw(seed=1, steps=5, input_size=2, hidden_size=4)
    assert X.shape == (5, 2)
    assert {name: [m.shape for m in gate] for name, gate in gates.items()} == dict.fromkeys(
        "fioc", [(4, 2), (4, 4), (4, 1)]
    )
    H, C = reference.run(X, gates)
    assert H.shape == C.shape == (5, 4) and H.dtype == C.dtype == np.float64


def test_no_steps_give_empty_histories():
    H, C = reference.run(*reference.draw(steps=0))
    assert H.shape == C.shape == (0, 3)


def test_biases_take_part():
    """The notebook's are zero, so its own table could not tell."""
    X, gates = reference.draw(steps=3)
    H, _ = reference.run(X, gates)
    for name in gates:
        W, U, b = gates[name]
        moved, _ = reference.run(X, gates | {name: (W, U, b + 0.5)})
        assert (np.abs(moved[1:] - H[1:]) > 1e-4).all()


def test_the_global_generator_is_left_alone():
    np.random.seed(3)
    reference.draw()
    drawn = np.random.rand()
    np.random.seed(3)
    assert drawn == np.random.rand()
