"""Tasks with a criterion of success, published where there is one, and a trivial baseline."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jlstm._src.checks import check_choice
from jlstm._src.dtypes import Array
from jlstm._src.modules import publish
from jlstm.experiments.tasks.digits import digits
from jlstm.experiments.tasks.forecast import forecast
from jlstm.experiments.tasks.grammar import embedded_reber
from jlstm.experiments.tasks.synthetic import adding, copy_memory, flip_flop, temporal_order
from jlstm.experiments.tasks.task import Batch, Scaling, Task, sizes

# fmt: off
__all__ = [
    "NAMES", "Batch", "Scaling", "Task", "adding", "copy_memory", "digits", "embedded_reber",
    "flip_flop", "forecast", "named", "sizes", "temporal_order",
]
# fmt: on

# The function that makes each task, and the name of its argument for the length.
_TASKS: dict[str, tuple[Callable[..., Task], str | None]] = {
    "adding": (adding, "length"),
    "adding-2016": (partial(adding, form="2016"), "length"),
    "copy": (copy_memory, "length"),
    "order-6a": (partial(temporal_order, "6a"), "length"),
    "order-6b": (partial(temporal_order, "6b"), "length"),
    "flip-flop": (flip_flop, "length"),
    "reber": (embedded_reber, "longest"),
    "forecast": (forecast, "window"),
    "digits-rows": (partial(digits, "rows"), None),
    "digits-pixels": (partial(digits, "pixels"), None),
}
NAMES: tuple[str, ...] = tuple(_TASKS)
"""The names of the tasks for `named`."""


def named(
    name: str, *, length: int | None = None, series: Array | None = None, **options: Any
) -> Task:
    """Makes the task of this name, one of `NAMES`.

    Args:
      length: the `length`, `longest` or `window` of the task; None for its default.
      series: `[N, D]`, for the task "forecast" only.
      options: further options of the task's function.

    Raises:
      ValueError: the name is unknown, or an argument is missing or does not belong to the task.

    >>> named("order-6b", length=50).output_size
    8
    """
    check_choice("name", name, NAMES)
    if (name == "forecast") != (series is not None):
        belongs = "is missing" if series is None else "does not belong"
        raise ValueError(f"series: {belongs} to the task {name}")
    make, argument = _TASKS[name]
    if length is not None:
        if argument is None:
            raise ValueError(f"length: the task {name} has one length only, got {length}")
        options[argument] = length
    return make(**options) if series is None else make(series, **options)


publish(__name__, globals())
