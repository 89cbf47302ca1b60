"""Notebooks: where they are, and whether they show what they compute."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
WITH_PEERS = {"02_from_research_code", "05_weights_in_and_out"}  # which need other libraries
WARNINGS_ARE_ERRORS = "import warnings\nwarnings.simplefilter('error')"


def check_notebook(stem, monkeypatch):
    """Its own assertions hold, no warning is given, and the saved text is what it prints."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    notebook = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    shown = [printed(cell) for cell in notebook.cells]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WARNINGS_ARE_ERRORS))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert [printed(cell) for cell in notebook.cells[1:]] == shown


def printed(cell):
    """All text of a cell's outputs, but for the addresses in the names of pictures."""
    texts = [o.get("text") or o["data"]["text/plain"] for o in cell.get("outputs", [])]
    return [text for text in texts if not text.startswith("<")]
