"""Functions as one program each, as most of a test's time would go into many small ones."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax


def compiled(f: Callable) -> Callable[..., Any]:
    """`f`, compiled for the functions, numbers and words that it is given; the rest is traced."""

    @wraps(f)
    def run(*args, **options):
        places = [k for k, value in enumerate(args) if _is_static(value)]
        names = [name for name, value in options.items() if _is_static(value)]
        return jax.jit(f, static_argnums=places, static_argnames=names)(*args, **options)

    return run


def _is_static(value) -> bool:
    return callable(value) or isinstance(value, bool | int | float | str)
