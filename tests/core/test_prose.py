"""Public text is plain English: how docstrings begin, the length of sentences, some words."""

import inspect
import re
from pathlib import Path

import pytest

from tests.core.test_api import public_modules

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")])
BEGINNINGS = ("What ", "That ", "The same", "Refuses", "Of ")
HOUSE_WORDS = r"\b(rooms?|neighbours?|came|told|refused by name)\b"
LONGEST = 40  # words of a sentence


def docstrings():
    """The docstrings of public names and modules, by name."""
    found = {}
    for module in public_modules():
        found[module.__name__] = inspect.getdoc(module)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if callable(value) or inspect.ismodule(value):
                found[f"{module.__name__}.{name}"] = inspect.getdoc(value)
    return found


def sentences(text):
    """The sentences of prose: without code, examples, tables, headings and equations."""
    text = re.sub(r"```.*?```|<!--.*?-->", "\n\n", text, flags=re.DOTALL)
    lines = [
        "" if re.match(r"\s*(>>>|\.\.\.|\||#|- |\* |!\[)|\s{4,}\S", line) else line
        for line in text.splitlines()
    ]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        yield from re.split(r"(?<=[.:;!?·])\s+", " ".join(block.split()))


@pytest.mark.parametrize("name, text", docstrings().items())
def test_docstrings_are_plain(name, text):
    assert text and not text.startswith(BEGINNINGS), text
    check(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_plain(path):
    check(path.read_text())


def check(text):
    prose = re.sub(r"`[^`]*`", "code", text)
    words = [found[0] for found in re.finditer(HOUSE_WORDS, prose)]
    assert not words
    long = [s for s in sentences(prose) if len(re.findall(r"\w+", s)) > LONGEST]
    assert not long, long


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_a_sentence_is_found_too_long():
    with pytest.raises(AssertionError):
        check("word " * 41 + ".")
    with pytest.raises(AssertionError):
        check("It has a room for each.")
