"""The shape of the API and of the house: names, signatures, examples, imports."""

import ast
import doctest
import graphlib
import importlib.metadata
import inspect
import json
import pickle
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import jax
import pytest

import jlstm
from tests.helpers.draws import draw_params

HOUSE = Path(jlstm.__file__).parent


def room_of(path):
    """The name that a file is imported by below `jlstm`; a package by its folder's."""
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


ROOMS = {room_of(path): path for path in HOUSE.rglob("*.py")}
FACES = {room for room in ROOMS if room.split(".")[0] in ("cli", "__main__")}
WINGS = ("experiments", "gradients", "interop", "plots")
EXTRAS = ("experiments", "plots")
POSITIONAL = {
    "cell": ["params", "state", "x"],
    "init": ["key", "input_size", "hidden_size"],
    "step_stack": ["params", "states", "x"],
    "unroll": ["params", "xs", "state"],
    "unroll_stack": ["params", "xs", "states"],
    "zero_state": ["params", "batch_shape"],
}


def public_modules():
    """`jlstm` and the modules that it names."""
    return [jlstm, *filter(inspect.ismodule, (getattr(jlstm, name) for name in dir(jlstm)))]


def public_functions():
    """The functions of `jlstm` and of the modules that it names."""
    named = [module for module in public_modules() if module is not jlstm]
    functions = {f"jlstm.{name}": getattr(jlstm, name) for name in jlstm.__all__}
    for module in named:
        own = [name for name, value in vars(module).items() if belongs(value, module)]
        for name in getattr(module, "__all__", own):
            functions[f"{module.__name__}.{name}"] = getattr(module, name)
    return {name: f for name, f in functions.items() if inspect.isfunction(f)}


def belongs(value, module):
    """Whether it is a public function that the module itself defines."""
    own = inspect.isfunction(value) and value.__module__ == module.__name__
    return own and not value.__name__.startswith("_")


class _Executed(ast.NodeTransformer):
    """Leaves out what type checkers alone read."""

    def visit_If(self, node):
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if only_types else self.generic_visit(node)


def imports_of(room):
    """The names of all modules that a room imports, wherever in it; `jlstm.x` for a house's own."""
    for node in ast.walk(_Executed().visit(ast.parse(ROOMS[room].read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("jlstm.") in ROOMS else str(node.module)


def rooms_behind(room):
    """The rooms that a room imports from; `__init__` for `import jlstm` itself."""
    own = {name for name in imports_of(room) if name.split(".")[0] == "jlstm"}
    return {name.removeprefix("jlstm.") if "." in name else "__init__" for name in own}


def test_all_names_are_there_sorted_and_without_a_double():
    assert jlstm.__all__ == sorted(set(jlstm.__all__))
    assert all(hasattr(jlstm, name) for name in jlstm.__all__)


@pytest.mark.parametrize("name", POSITIONAL)
def test_arrays_are_positional_and_options_are_keywords(name):
    parameters = inspect.signature(getattr(jlstm, name)).parameters.values()
    free = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert free == POSITIONAL[name]
    rest = [p for p in parameters if p.name not in free]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)


def signature_of(name, function):
    """`name(argument, option=…)`, without types and with the defaults that have short names."""
    parameters = []
    for p in inspect.signature(function).parameters.values():
        default = (
            p.default if p.default is None or isinstance(p.default, str | int | float) else ...
        )
        p = p.replace(annotation=p.empty)
        parameters.append(p if p.default is p.empty else p.replace(default=default))
    return f"{name}{inspect.Signature(parameters)}"


def public_names():
    """Every public name, functions with their arguments, a line each."""
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            value, place = getattr(module, name), f"{module.__name__}.{name}"
            if fields := getattr(value, "_fields", ()):
                yield f"{place}({', '.join(fields)})"
            else:
                yield signature_of(place, value) if callable(value) else place


def test_names_and_signatures_are_those_that_were_agreed():
    """A change of the public face changes this file, and the table of renames in CHANGELOG.md."""
    agreed = Path(__file__).parents[1] / "data" / "public_names.txt"
    assert list(public_names()) == agreed.read_text().splitlines()


@pytest.mark.parametrize("name, function", public_functions().items())
def test_no_key_is_made_up_and_every_argument_has_a_type(name, function):
    parameters = inspect.signature(function).parameters
    assert "key" not in parameters or parameters["key"].default in (inspect.Parameter.empty, None)
    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD and p.name != "dtype"]
    assert all(p.annotation is not p.empty for p in named)


@pytest.mark.parametrize(
    "name", [name for name in public_functions() if name.removeprefix("jlstm.") in jlstm.__all__]
)
def test_every_public_function_has_an_example(name):
    assert doctest.DocTestParser().get_examples(public_functions()[name].__doc__ or "")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is_for_and_is_short(room):
    source = ROOMS[room].read_text()
    assert ast.get_docstring(ast.parse(source))
    assert len(source.splitlines()) < 400


def test_imports_point_one_way():
    """No circle, nobody but the command draws, and the oracle shares nothing with the rest."""
    graph = {room: rooms_behind(room) for room in ROOMS}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    readers = {room for room, behind in graph.items() if behind & {"cli", "plots"}}
    assert readers <= FACES
    assert not graph["reference"]
    for wing in WINGS:
        inside = [behind for room, behind in graph.items() if room.split(".")[0] == wing]
        assert not {name.split(".")[0] for name in set().union(*inside)} & {*WINGS} - {wing}
    core = [behind for room, behind in graph.items() if room.split(".")[0] == "_src"]
    assert {name.split(".")[0] for name in set().union(*core)} == {"_src"}
    assert not any(name.startswith("jax") for name in imports_of("reference"))


@pytest.mark.parametrize("room", sorted(set(ROOMS) - FACES - {"plots"}))
def test_only_commands_print(room):
    calls = (n for n in ast.walk(ast.parse(ROOMS[room].read_text())) if isinstance(n, ast.Call))
    assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


def printed_by(program):
    """The JSON that a fresh process prints."""
    command = [sys.executable, "-c", program]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_importing_jlstm_brings_the_core_and_nothing_that_jax_and_chex_do_not():
    brought = printed_by("""
import sys, json, jax, chex
before = set(sys.modules)
import jlstm
print(json.dumps(sorted(set(sys.modules) - before)))
""")
    brought = {name for name in brought if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name.split(".")[0] for name in brought} <= {"jlstm", "jax", "jaxlib", "numpy"}
    own = {name for name in brought if name.split(".")[0] == "jlstm"}
    assert own and all(name == "jlstm" or name.startswith("jlstm._src") for name in own)


def test_sub_packages_are_imported_when_they_are_asked_for():
    loaded = printed_by("""
import sys, json, jlstm
def load(name):
    before = name in sys.modules
    module = jlstm
    for part in name.split(".")[1:]:
        module = getattr(module, part)
    return [before, module is sys.modules[name]]
names = ["cells", "experiments", "gradients", "initializers", "interop", "plots", "reference"]
names.append("interop.files")
print(json.dumps({name: load(f"jlstm.{name}") for name in names}))
""")
    assert set(loaded) >= {*WINGS, "cells", "reference"}
    assert all(before_and_after == [False, True] for before_and_after in loaded.values())
    for module in (jlstm, jlstm.interop):
        message = f"'{module.__name__}' has no attribute 'tensorflow'"
        with pytest.raises(AttributeError, match=message):
            attrgetter("tensorflow")(module)


@pytest.mark.parametrize("extra, module", [("experiments", "optax"), ("plots", "matplotlib")])
def test_a_missing_extra_is_one_line_at_first_use(extra, module):
    message = printed_by(f"""
import sys, json
sys.modules["{module}"] = None
import jlstm
from jlstm import *
try:
    jlstm.{extra}
except ImportError as error:
    print(json.dumps(str(error)))
""")
    assert message == f"{module} is missing: pip install 'jlstm[{extra}]'"


def test_dir_shows_the_public_names_and_nothing_of_the_engine():
    assert dir(jlstm) == sorted([*jlstm.__all__, *EXTRAS, "__version__"])


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_public_names_carry_their_public_module(module):
    """So that representations, pickles and exports do not name a file of the core."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("jlstm")
            assert "_src" not in value.__module__
            home = importlib.import_module(value.__module__)
            assert getattr(home, value.__qualname__) is value
            assert pickle.loads(pickle.dumps(value)) is value


def test_the_lstm_is_a_cell_of_the_family():
    assert jlstm.cells.lstm is jlstm.cell
    assert jlstm.cells.init_lstm is jlstm.init
    assert repr(jlstm.cell).startswith("<function lstm ")


def test_the_version_is_the_installed_one():
    assert jlstm.__version__ == importlib.metadata.version("jlstm")


def test_the_package_is_typed():
    assert (HOUSE / "py.typed").exists()


def test_parameters_are_plain_pytrees():
    """Nothing is registered: leaves come in field order, and their paths are the fields' names."""
    paths, _ = jax.tree_util.tree_flatten_with_path(draw_params(0, 2, 3))
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".W", ".U", ".b"]
