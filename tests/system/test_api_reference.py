"""The API reference is built by its command, is whole, and is refused where it is not."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import api
import pytest

ROOT = Path(__file__).parents[2]


def public_names(module_name):
    """All that `__all__` names, below and including that module, as (module, name)."""
    module = importlib.import_module(module_name)
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.ismodule(value):
            yield module_name, name
        elif hasattr(value, "__all__"):
            yield from public_names(value.__name__)


def test_the_command_builds_a_place_for_every_public_name(tmp_path):
    command = [sys.executable, "-W", "error", "docs/api.py", tmp_path / "site"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    index = Path(printed.stdout.strip())
    assert index == tmp_path / "site" / "index.html"
    assert "jlstm.html" in index.read_text()
    for root in ("jlstm", "jlstm.experiments", "jlstm.plots"):
        for module, name in public_names(root):
            page = (tmp_path / "site" / f"{module.replace('.', '/')}.html").read_text()
            section = page.split(f'<section id="{name}">')[1].split("</section>")[0]
            assert '<div class="docstring"><p>' in section, f"{module}.{name}"


def test_every_example_is_one_that_pytest_runs():
    """It runs those that the finder knows for the module's own, which a decorator can hide."""
    pages = [api.page(name) for root in api.ROOTS for name in api.modules_of(root)]
    shown = [page.obj for page in pages if ">>>" in page.docstring]
    for page in pages:
        documented = (name for name, doc in page.members.items() if ">>>" in doc.docstring)
        shown += [getattr(page.obj, name) for name in documented]
    homes = {inspect.getmodule(obj) for obj in shown}
    found = {
        test.name for home in homes for test in doctest.DocTestFinder().find(home) if test.examples
    }
    assert len(shown) > 80
    for obj in shown:
        place = [getattr(obj, name, "") for name in ("__module__", "__qualname__")]
        assert (".".join(place) if place[1] else obj.__name__) in found


SOUND = '''"""A module."""
from typing import NamedTuple
def function():
    """Does it."""
class Pair(NamedTuple):
    """Two numbers, as in `jlstm.LSTMState`.

    first, second: each of them.
    """
    first: int
    second: int
'''
# What is taken out of it, what comes in its place, and what is said of that.
FLAWS = [
    ('"""A module."""', "...", "{name}: no docstring"),
    ('"""Does it."""', "...", "{name}.function: no docstring"),
    ("class Pair", "class Two(NamedTuple):\n    one: int\nclass Pair", "{name}.Two: no docstring"),
    ("first, second", "second", "{name}.Pair: its docstring does not name the field first"),
    ("jlstm.LSTMState", "jlstm.LSTMParam", "{name}.Pair: there is no jlstm.LSTMParam"),
]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A function that makes a module of a source, has the reference be of it, and names it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source):
        name = f"house_{abs(hash(source))}"
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(api, "ROOTS", (name,))
        return name

    return make


def test_a_sound_module_is_built(house, tmp_path):
    name = house(SOUND)
    api.main(str(tmp_path / "site"))
    text = (tmp_path / "site" / f"{name}.html").read_text()
    assert re.search(r"<li><strong>first, second:</strong>\s+each of them", text)


@pytest.mark.parametrize("part, instead, said", FLAWS)
def test_a_flaw_is_named_and_nothing_is_written(part, instead, said, house, tmp_path):
    name = house(SOUND.replace(part, instead))
    with pytest.raises(SystemExit) as refused:
        api.main(str(tmp_path / "site"))
    assert str(refused.value) == said.format(name=name)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "link, dead",
    [
        ("other.html", False),
        ("other.html#there", False),
        ("#here", False),
        ("https://example.org/nothing#there", False),
        ("none.html", True),
        ("other.html#here", True),
        ("#there", True),
    ],
)
def test_a_dead_link_is_found(link, dead, tmp_path):
    (tmp_path / "page.html").write_text(f'<p id="here"><a href="{link}">link</a>')
    (tmp_path / "other.html").write_text('<p id="there">')
    assert api.dead_links(tmp_path) == ([f"page.html: dead link {link}"] if dead else [])


def test_a_dead_link_ends_the_command(house, tmp_path):
    house('"""A [link](nowhere.html)."""')
    with pytest.raises(SystemExit, match="dead link nowhere.html"):
        api.main(str(tmp_path / "site"))


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_the_pages_beside_it_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, place = target.partition("#")
        file = page.parent / file if file else page
        assert file.exists(), target
        assert not place or place in headings(file.read_text()), target


def headings(text):
    """The places that a link can lead to, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
