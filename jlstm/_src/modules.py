"""Helpers of packages: sub-modules, public names, missing extras."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from jax import export

T = TypeVar("T")


def set_module(module: str) -> Callable[[T], T]:
    """Decorator that sets the module that representations, pickles and exports name."""

    def decorate(public: Any) -> Any:
        public.__module__ = module
        if hasattr(public, "_fields"):
            name = f"{module}.{public.__name__}"
            with contextlib.suppress(ValueError):  # the module was loaded before
                export.register_namedtuple_serialization(public, serialized_name=name)
        return public

    return decorate


def publish(package: str, namespace: Mapping[str, Any]) -> None:
    """Applies `set_module` to the names in `__all__` that the package's own files define."""
    for value in map(namespace.__getitem__, namespace["__all__"]):
        if getattr(value, "__module__", "").startswith(f"{package}."):
            set_module(package)(value)


def lazy_modules(package: str, names: Sequence[str]) -> Callable[[str], ModuleType]:
    """Returns the `__getattr__` of a package that imports its sub-modules at first use."""

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
