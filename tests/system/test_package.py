"""What pip gets: a wheel and a source distribution that hold what they should and work alone."""

import doctest
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import jlstm

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = {"jax", "jaxlib", "numpy", "chex"}
# Made by building, testing and installing; and what git keeps.
MADE = ".git .venv* .*_cache .hypothesis .ipynb_checkpoints __pycache__ build dist site *.egg-info"


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def run(*command, **options):
    """What a command prints; a failure shows all of it."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the house, and its source distribution and the wheel that is built from that."""
    folder = tmp_path_factory.mktemp("package")
    house, dist = folder / "house", folder / "dist"
    shutil.copytree(ROOT, house, ignore=shutil.ignore_patterns(*MADE.split()))
    held = files_in(house)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, house)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    return held, sdist, wheel


def test_the_wheel_holds_the_package_and_nothing_else(built):
    held, _, wheel = built
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == {name for name in held if name.startswith("jlstm/")}
    assert "jlstm/py.typed" in names


def test_the_source_distribution_holds_the_whole_house(built):
    held, sdist, _ = built
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    assert names >= held
    added = {name for name in names - held if not name.startswith("jlstm.egg-info/")}
    assert added <= {"PKG-INFO", "setup.cfg"}


def test_it_asks_for_four_libraries(built):
    _, _, wheel = built
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(file.read(name).decode())
    asked = metadata.get_all("Requires-Dist", [])
    always = [line for line in asked if "extra ==" not in line]
    assert {re.split(r"\W", line)[0] for line in always} == DEPENDENCIES
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]


def ten_lines(tmp_path):
    """A program that runs the first example of the README, and tells whose jlstm it ran."""
    text = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert text and len(doctest.DocTestParser().get_examples(text[1])) >= 8
    (tmp_path / "ten_lines.md").write_text(text[1])
    program = (
        "import doctest, jlstm; print(doctest.testfile('ten_lines.md', False), jlstm.__file__)"
    )
    return "-W", "error", "-c", program


def test_the_readmes_ten_lines_run_on_the_wheel_alone(built, tmp_path, monkeypatch):
    _, _, wheel = built
    pip = sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"
    run(*pip, tmp_path / "lib", wheel)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    printed = run(sys.executable, *ten_lines(tmp_path), cwd=tmp_path)
    assert "failed=0" in printed
    assert str(tmp_path / "lib") in printed


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A function that makes an empty environment, installs into it, and returns its folder."""
    monkeypatch.delenv("PYTHONPATH", raising=False)

    def make(name, *requirements):
        run(sys.executable, "-m", "venv", tmp_path / name)
        run(tmp_path / name / "bin" / "pip", "install", "--no-compile", *requirements)
        return tmp_path / name

    return make


def held_by(environment):
    """The names of what is installed."""
    listed = json.loads(run(environment / "bin" / "pip", "list", "--format", "json"))
    return {package["name"] for package in listed}


@pytest.mark.slow
def test_it_works_in_an_empty_environment_and_brings_nothing_else(built, environment, tmp_path):
    _, sdist, wheel = built
    ours = environment("ours", sdist)
    others = environment("others", *sorted(DEPENDENCIES))
    assert held_by(ours) - held_by(others) == {"jlstm"}
    run(others / "bin" / "pip", "install", "--no-index", wheel)
    for installed in (ours, others):
        printed = run(installed / "bin" / "python", *ten_lines(tmp_path), cwd=tmp_path)
        assert "failed=0" in printed
        assert str(installed) in printed
        assert "H" in run(installed / "bin" / "jlstm", cwd=tmp_path)


def test_the_version_is_one():
    version = jlstm.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    latest = re.search(r"^## \[(.+?)\] - (?:\d{4}-\d\d-\d\d|unreleased)$", changes, re.M)
    assert latest and latest[1] == version
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_two_citations_agree():
    readme, citation = ((ROOT / name).read_text() for name in ("README.md", "CITATION.cff"))
    for field, key in {"title": "title", "author": "name"}.items():
        cited = re.search(rf"^  {field} +=\s+\{{+(.+?)\}}+,$", readme, re.M)
        stored = re.search(rf"^[ -]*{key}: \"?(.+?)\"?$", citation, re.M)
        assert cited and stored and cited[1] == stored[1]
