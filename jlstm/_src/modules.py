"""How the packages of jlstm present themselves: sub-modules, public names, missing extras."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from jax import export

T = TypeVar("T")


def set_module(module: str) -> Callable[[T], T]:
    """Decorator that puts a function or class under the public module that exports it.

    Representations, pickles, serialised exports and the API reference then name that module rather
    than the file of the definition. Exported functions with a NamedTuple can be serialised.
    """

    def decorate(public: Any) -> Any:
        public.__module__ = module
        if hasattr(public, "_fields"):
            with contextlib.suppress(ValueError):  # the module was loaded before
                name = f"{module}.{public.__name__}"
                export.register_namedtuple_serialization(public, serialized_name=name)
        return public

    return decorate


def publish(package: str, namespace: Mapping[str, Any]) -> None:
    """Puts what `__all__` of a package exports, and its own files define, under the package."""
    for name in namespace["__all__"]:
        value = namespace[name]
        if getattr(value, "__module__", "").startswith(f"{package}."):
            set_module(package)(value)


def lazy_modules(package: str, names: Sequence[str]) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package that imports its sub-modules at first use."""

    def __getattr__(name: str) -> ModuleType:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    return __getattr__


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Adds the command that installs an extra to the error of an import inside this block."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is missing: pip install 'jlstm[{name}]'") from None


def require(name: str, *modules: str) -> None:
    """Checks that the modules of an extra are installed, without importing them; see `extra`."""
    with extra(name):
        for module in modules:
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(name=module)
