"""Notebooks: where they are, whether they show what they compute, and how to save them anew.

python tests/system/notebooks.py 03_batch_experiments    # runs it and saves it as tests want it
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[2] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A kernel may send the lines that a cell prints in one message or in several.
KERNEL = {"kernel_name": "python3", "coalesce_streams": True}
WARNINGS_ARE_ERRORS = "import warnings\nwarnings.simplefilter('error')"


def check_notebook(stem, monkeypatch):
    """Its own assertions hold, no warning is given, and the saved text is what it prints."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    notebook = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    shown = [printed(cell) for cell in notebook.cells]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WARNINGS_ARE_ERRORS))
    NotebookClient(notebook, timeout=120, **KERNEL).execute()
    assert [printed(cell) for cell in notebook.cells[1:]] == shown


def printed(cell):
    """All text of a cell's outputs, but for the addresses in the names of pictures."""
    texts = [o.get("text") or o["data"]["text/plain"] for o in cell.get("outputs", [])]
    return [text for text in texts if not text.startswith("<")]


def save_anew(stem):
    """Runs a notebook and saves it with small pictures, and nothing of the machine it ran on."""
    os.environ.pop("MPLBACKEND", None)
    path = FOLDER / f"{stem}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, record_timing=False, **KERNEL).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    nbformat.write(notebook, path)


def smaller(picture):
    """A picture in base64 with a palette in place of full colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    file = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        save_anew(name)
