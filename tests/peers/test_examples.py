"""The examples of the documentation that need another library.

pyproject.toml keeps their files out of a run of pytest without arguments.
"""

import doctest
import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
FILES = [o.removeprefix("--ignore=") for o in OPTIONS["addopts"] if o.startswith("--ignore=")]


def examples():
    """The examples of each file that pyproject.toml ignores; every file has one."""
    for file in FILES:
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found = doctest.DocTestFinder().find(importlib.import_module(name))
        found = [example for example in found if example.examples]
        assert found, f"{file}: no example"
        yield from found


@pytest.mark.parametrize("example", [*examples()], ids=lambda example: example.name)
def test_example(example):
    doctest.DebugRunner().run(example)  # raises at the first difference
