"""The notebooks run from top to bottom, and what they show is what they compute."""

import base64

import nbformat
import pytest

from tests.system.notebooks import FOLDER, check_notebook

NOTEBOOKS = {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("stem", sorted(NOTEBOOKS))
def test_notebook_runs_and_prints_what_it_shows(stem, monkeypatch):
    check_notebook(stem, monkeypatch)


@pytest.mark.parametrize("stem", sorted(NOTEBOOKS))
def test_notebook_ends_in_assertions_and_shows_pictures(stem):
    cells = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4).cells
    assert "assert" in cells[-1].source
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("stem", sorted(NOTEBOOKS))
def test_notebook_is_small_and_says_nothing_of_the_machine_it_ran_on(stem):
    content = (FOLDER / f"{stem}.ipynb").read_text()
    assert len(content) < 400_000
    notebook = nbformat.reads(content, as_version=4)
    assert notebook.metadata.language_info == {"name": "python"}
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert not [o for cell in code for o in cell.outputs if o.get("name") == "stderr"]


def test_the_picture_of_the_readme_is_the_one_in_the_notebook():
    notebook = nbformat.read(FOLDER / "04_gradient_experiments.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert (FOLDER.parent / "docs/flow.png").read_bytes() == base64.b64decode(pictures[0])
