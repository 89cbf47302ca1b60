"""The notebooks run from top to bottom, and what they show is what they compute."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WARNINGS_ARE_ERRORS = "import warnings\nwarnings.simplefilter('error')"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_what_it_shows(path, monkeypatch):
    """Its own assertions hold, no warning is given, and the saved text is up to date."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    notebook = nbformat.read(path, as_version=4)
    shown = [printed(cell) for cell in notebook.cells]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WARNINGS_ARE_ERRORS))
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert [printed(cell) for cell in notebook.cells[1:]] == shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_ends_in_assertions_and_shows_pictures(path):
    cells = nbformat.read(path, as_version=4).cells
    assert "assert" in cells[-1].source
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def printed(cell):
    """All text of a cell's outputs, but for the addresses in the names of pictures."""
    texts = [o.get("text") or o["data"]["text/plain"] for o in cell.get("outputs", [])]
    return [text for text in texts if not text.startswith("<")]
