"""Tasks by name, as the command line asks for them."""

from collections.abc import Callable
from functools import partial

from jlstm._src.checks import check_choice
from jlstm._src.dtypes import Array
from jlstm.experiments.tasks.data import digits, forecast
from jlstm.experiments.tasks.grammar import embedded_reber
from jlstm.experiments.tasks.long_lags import adding, copy_memory, temporal_order
from jlstm.experiments.tasks.task import Task

_OF_LENGTH: dict[str, tuple[Callable[..., Task], str]] = {
    "adding": (adding, "length"),
    "adding-2016": (partial(adding, form="2016"), "length"),
    "copy": (copy_memory, "length"),
    "order-6a": (partial(temporal_order, "6a"), "length"),
    "order-6b": (partial(temporal_order, "6b"), "length"),
    "reber": (embedded_reber, "longest"),
    "forecast": (forecast, "window"),
}
_FIXED: dict[str, Callable[[], Task]] = {
    "digits-rows": partial(digits, "rows"),
    "digits-pixels": partial(digits, "pixels"),
}
NAMES = (*_OF_LENGTH, *_FIXED)


def named(name: str, *, length: int | None = None, series: Array | None = None) -> Task:
    """The task of that name, of that length if one is given.

    Args:
      name: one of `NAMES`.
      length: what each task calls `length`, `longest` or `window`; None for its default.
      series: `[N, D]`, for the task "forecast" and for it alone.

    Raises:
      ValueError: the name is unknown, or an argument is missing or does not belong to the task.

    >>> named("order-6b", length=50).steps
    55
    """
    check_choice("name", name, NAMES)
    if (name == "forecast") != (series is not None):
        belongs = "is missing" if series is None else "does not belong"
        raise ValueError(f"series: {belongs} to the task {name}")
    if name in _FIXED:
        if length is not None:
            raise ValueError(f"length: the task {name} has one length only, got {length}")
        return _FIXED[name]()
    make, argument = _OF_LENGTH[name]
    options = {} if length is None else {argument: length}
    return make(**options) if series is None else make(series, **options)
