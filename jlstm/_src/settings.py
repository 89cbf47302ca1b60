"""Settings of `jlstm train`: one table for its options and for settings.json."""

import csv
import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from jlstm._src import texts
from jlstm._src.files import shorten

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
CELLS = (
    *("lstm", "peephole", "coupled_forget", "coupled_input"),
    *("no_input_gate", "no_forget_gate", "no_output_gate"),
    *("no_input_activation", "no_output_activation", "full_gate_recurrence"),
    *("layer_norm", "slstm", "elman", "gru"),
)
NUMBERS = ("learning_rate", "forget_bias", "clip_norm", "dropout")  # fields of `Hyperparams`


class Setting(NamedTuple):
    """A setting: the parser of its option, its value and description in the help, its default."""

    parse: Callable[[str], Any]
    metavar: str
    what: str
    default: Any = None


_size = texts.size
_positive = partial(texts.numbers, "above 0", lambda x: x > 0)
_rate = partial(texts.numbers, "from 0 below 1", lambda x: 0 <= x < 1)
_bias = partial(texts.numbers, "or chrono", lambda x: True, word="chrono")
_cells = partial(texts.choices, CELLS)
_optimizer = partial(texts.choice, OPTIMIZERS, ", ".join(OPTIMIZERS))
_mask = partial(texts.choice, ("mask",), "mask")
_steps = partial(texts.whole_number, 2, 2**31 - 1)

SERIES = {
    "input": Setting(texts.path, "FILE", "the series of forecast: .csv, .npy"),
    "columns": Setting(texts.columns, "A,B", "columns of the input, by name or place from 0 (all)"),
    "header": Setting(texts.flag, "", "the first row of a .csv holds names (if it has text)"),
    "delimiter": Setting(texts.delimiter, "C", "separator of a .csv: a character or tab (,)"),
    "missing": Setting(_mask, "mask", "skip rows with missing cells by a mask (refuse them)"),
}
TASK = {
    "task": Setting(texts.path, "NAME", "see `jlstm tasks`"),
    "length": Setting(_size, "T", "length of its sequences (the task's own)"),
}
FORECAST = {
    "difference": Setting(texts.flag, "", "read the differences of the series", False),
    "period": Setting(_size, "N", "steps of a season, for the seasonal baseline (estimated)"),
}
PROGRAM = {
    "hidden_size": Setting(_size, "H", "units of each layer (32)", 32),
    "layers": Setting(_size, "N", "layers of the stack (1)", 1),
    "batch_size": Setting(_size, "B", "new sequences a step (64)", 64),
    "steps": Setting(_size, "N", "training steps (3000)", 3000),
    "optimizer": Setting(_optimizer, "NAME", f"{', '.join(OPTIMIZERS)} (adam)", "adam"),
    "validate_every": Setting(_steps, "N", "steps between validations and checkpoints (100)", 100),
}
RUNS = {
    "cell": Setting(_cells, "NAME", f"cell of all layers: {', '.join(CELLS)} (lstm)", ["lstm"]),
    "learning_rate": Setting(_positive, "X", "learning rate of the optimiser (1e-3)", [1e-3]),
    "forget_bias": Setting(_bias, "X", "a number or the word chrono (1)", [1.0]),
    "clip_norm": Setting(_positive, "X", "largest norm of the gradient (any)"),
    "dropout": Setting(_rate, "X", "dropout rate in training (none)"),
    "seeds": Setting(_size, "N", "runs of each setting (1)", 1),
}
DEVICES = {"devices": Setting(_size, "N", "CPU devices to spread the runs over (1)")}
SETTINGS = TASK | SERIES | FORECAST | PROGRAM | RUNS | DEVICES
DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}


def check(name: str, value: Any) -> None:
    """Checks the value of a setting by the parser of its option, from the text of the value."""
    if value is None and SETTINGS[name].default is None and name != "task":
        return
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(value if isinstance(value, list) else [value])
    text = line.getvalue() if isinstance(value, list) else str(value)
    try:
        parsed = SETTINGS[name].parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if parsed != value or isinstance(parsed, bool) != isinstance(value, bool):
        raise ValueError(f"{name}: expected {shorten(str(parsed))}, got {shorten(str(value))}")
