"""The API reference: static pages made of the docstrings, with a search, to be read offline.

    python docs/api.py [FOLDER]          # site/ by default; then open site/index.html

Before a page is written every public name must have a docstring, every field must be named in that
of its class, and every name of jlstm that a docstring has in backticks must exist; afterwards every
link must lead somewhere. What is amiss is listed, and the command fails.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
import typing
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag

import chex
import jax
import pdoc.doc
import pdoc.render

from jlstm._src.cell import Cell
from jlstm._src.dtypes import Array
from jlstm._src.initializers import Initializer

HERE = Path(__file__).parent
ROOTS = "jlstm", "jlstm.experiments", "jlstm.plots", "jlstm.reference"
# Types by the names that the sources have for them, where Python would spell them out.
ALIASES = [
    (Cell, "Cell"),
    (Initializer, "Initializer"),
    (chex.ArrayTree, "ArrayTree"),
    (chex.Numeric | None, "Numeric | None"),
    (chex.Numeric, "Numeric"),
    (Array, "Array"),
    (jax.Array, "Array"),
]


def main(folder: str = "site") -> None:
    """Builds the pages, or ends with a list of what is amiss."""
    # Public classes name a public module, in whose file pdoc finds no source; it needs none.
    warnings.filterwarnings("ignore", "Cannot determine where")
    pages = {name: page(name) for root in ROOTS for name in modules_of(root)}
    _stop_at([flaw for module in pages.values() for flaw in flaws_of(module)])
    for module in pages.values():
        tidy(module, pages)
    write(pages, Path(folder))
    _stop_at(dead_links(Path(folder)))
    print(Path(folder) / "index.html")


def _stop_at(flaws):
    if flaws:
        sys.exit("\n".join(flaws))


def modules_of(name):
    """The names of a module and of those that its `__all__` names, likewise."""
    yield name
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        if inspect.ismodule(value := getattr(module, public)):
            yield from modules_of(value.__name__)


def page(name):
    """The documentation of a module, as pdoc finds it; of all that is public and no module."""
    module = pdoc.doc.Module.from_name(name)
    public = getattr(module.obj, "__all__", None)
    if public is None:
        public = [name for name, doc in module.members.items() if is_own(doc)]
    module.members = {name: module.members[name] for name in public if name in module.members}
    return module


def is_own(doc):
    """Whether a member of a module without `__all__` is one of its public functions and classes."""
    return doc.kind in ("function", "class") and not doc.name.startswith("_")


# What is amiss in the docstrings


def flaws_of(module):
    """A line for each public name, field, or name in a docstring that is not as it ought to be."""
    for doc in (module, *module.members.values()):
        text = written_docstring(doc)
        if not text:
            yield f"{doc.fullname}: no docstring"
            continue
        for field in fields_of(doc.obj) if doc.kind == "class" else ():
            if not re.search(rf"\b{field}\b", text):
                yield f"{doc.fullname}: its docstring does not name the field {field}"
        for name in re.findall(r"`(jlstm(?:\.\w+)+)", text):
            if not exists(name):
                yield f"{doc.fullname}: there is no {name}"


def written_docstring(doc):
    """The docstring, unless Python made it up."""
    made_up = doc.kind == "class" and doc.docstring.startswith(f"{doc.name}(")
    return "" if made_up else doc.docstring


def fields_of(cls):
    """The names of what a NamedTuple or a dataclass holds."""
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    return getattr(cls, "_fields", ())


def exists(name):
    """Whether a dotted name leads to something that can be imported."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


# The pages


def tidy(module, pages):
    """Leaves to pdoc what our docstrings say better; types read as they do in the sources."""
    module.submodules = [
        other for name, other in pages.items() if name.rpartition(".")[0] == module.modulename
    ]
    for doc in module.members.values():
        if doc.kind == "function":
            doc.signature = readable(inspect.signature(doc.obj))
        elif doc.kind == "class":
            doc.docstring = list_fields(doc.docstring, fields_of(doc.obj))
            constructor = doc.members["__init__"]
            constructor.docstring = ""
            types = typing.get_type_hints(doc.obj)
            signature = readable(inspect.signature(doc.obj), types)
            constructor.signature = constructor.signature_without_self = signature
            doc.members = {"__init__": constructor}


class _Text(str):
    __slots__ = ()
    __repr__ = str.__str__


def readable(signature, types=None):
    """A signature whose types are texts; `types` are those of its parameters, by name."""

    def text(annotation):
        if annotation is inspect.Parameter.empty:
            return annotation
        written = inspect.formatannotation(annotation)
        for alias, name in ALIASES:
            written = written.replace(inspect.formatannotation(alias), name)
        return _Text(written.replace("typing.", ""))

    types = types or {}
    parameters = [
        parameter.replace(annotation=text(types.get(parameter.name, parameter.annotation)))
        for parameter in signature.parameters.values()
    ]
    returned = inspect.Signature.empty if types else text(signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returned)


def list_fields(docstring, fields):
    """Puts the lines `field: what it is` under a heading that makes a list of them."""
    field = "|".join(map(re.escape, fields))
    lines = rf"(?:^(?:{field})(?:, (?:{field}))*: .*\n?(?:^ +.*\n?)*)+"

    def under_heading(found):
        return "Attributes:\n" + textwrap.indent(found[0], "  ")

    return re.sub(lines, under_heading, docstring, flags=re.M)


def write(pages, folder):
    """All pages, their index and their search."""
    pdoc.render.configure(docformat="google", template_directory=HERE)
    files = {
        f"{name.replace('.', '/')}.html": pdoc.render.html_module(module, pages)
        for name, module in pages.items()
    }
    files["index.html"] = pdoc.render.html_index(pages)
    files["search.js"] = pdoc.render.search_index(pages)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# The links


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.targets = set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.targets += [found[name] for name in ("href", "src") if found.get(name)]


def dead_links(folder):
    """A line for each link between the pages of a folder that leads to no page or place."""
    links = {}
    for path in sorted(folder.rglob("*.html")):
        links[path.resolve()] = parser = _Links()
        parser.feed(path.read_text(encoding="utf-8"))
    flaws = []
    for path, parser in links.items():
        for target in parser.targets:
            if re.match(r"\w+:", target):  # another site, or data
                continue
            address, place = urldefrag(target)
            aim = (path.parent / address).resolve() if address else path
            if not aim.exists() or (place and place not in links[aim].ids):
                flaws.append(f"{path.relative_to(folder.resolve())}: dead link {target}")
    return flaws


if __name__ == "__main__":
    main(*sys.argv[1:])
