"""The folder of `jlstm train`: chosen or resumed, and held by one process at a time."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from jlstm._src import files
from jlstm._src.settings import DEFAULTS, FORECAST, SERIES
from jlstm.cli import options


def choose(args) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns the settings of a new folder, and the series."""
    from jlstm.experiments import runs, tasks

    given = _given(args)
    if "task" not in given:
        raise ValueError("argument --task: expected the name of a task, see `jlstm tasks`")
    if given["task"] not in tasks.NAMES:
        expected = ", ".join(tasks.NAMES)
        raise ValueError(f"argument --task: expected {expected}, got {given['task']!r}")
    _check_new(args.out)
    chosen = {**DEFAULTS, **given}
    if (chosen["task"] == "forecast") != (chosen["input"] is not None):
        raise ValueError("argument --input: belongs to the task forecast, which needs it")
    options.check_needs(given, "input", *SERIES, *FORECAST)
    series = options.read_series(chosen) if chosen["input"] else None
    return runs.new_settings(chosen, series), series


def resume(args) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns the settings and the series of a folder; only `steps` and `devices` may change."""
    from jlstm.experiments import runs

    path = os.path.join(args.out, runs.SETTINGS)
    if not os.path.exists(path):
        raise ValueError(f"argument --resume: there is no {path}")
    saved, given = runs.read_settings(args.out), _given(args)
    series = runs.read_series(args.out, saved)
    for name, value in given.items():
        longer = name == "steps" and value > saved["steps"]
        if name not in ("devices", *SERIES) and saved[name] != value and not longer:
            option = name.replace("_", "-")
            raise ValueError(f"argument --{option}: {path} has {saved[name]}, got {value}")
    if "input" in given:
        again = options.read_series({**saved, **given})
        if series is None or not np.array_equal(again, series, equal_nan=True):
            raise ValueError(f"argument --input: {given['input']} is not the series of {args.out}")
    now = {**saved, **{name: given[name] for name in ("steps", "devices") if name in given}}
    before = {**saved["versions"], "devices": saved["devices"]}
    for name, value in {**runs.versions(), "devices": now["devices"]}.items():
        if before[name] != value:
            change = f"begun with {name} {before[name]}, now {value}"
            print(f"{args.out}: {change}: bits may differ", file=sys.stderr)
    return now, series


def _given(args) -> dict[str, Any]:
    given = {name: value for name in DEFAULTS if (value := getattr(args, name)) is not None}
    if "input" in given:
        given["input"] = os.path.abspath(given["input"])
    return given


def _check_new(folder: str) -> None:
    """Checks that a folder is new, or has nothing except temporary files of a killed process."""
    parent = os.path.dirname(os.path.abspath(folder))
    if os.path.lexists(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else [folder]
        if not all(name.startswith(files.TEMPORARY) for name in names):
            hint = "; --resume continues what is in it" if "settings.json" in names else ""
            raise ValueError(f"argument --out: {folder}: expected a new folder{hint}")
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
        raise ValueError(f"argument --out: {folder}: no folder can be made in {parent}")


@contextlib.contextmanager
def held(folder: str, *, new: bool) -> Iterator[None]:
    """Holds an advisory lock on a folder, which ends with this process and leaves no file."""
    if new:
        os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(folder, descriptor)
        if new:
            _check_new(folder)  # another process may have finished in the meantime
        for name in os.listdir(folder):
            if name.startswith(files.TEMPORARY):  # left by a killed process
                os.unlink(os.path.join(folder, name))
        yield
    finally:
        os.close(descriptor)


def _lock(folder: str, descriptor: int) -> None:
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"argument --out: {folder}: another process is using it") from None
    except (ImportError, OSError):
        print(f"{folder}: cannot be locked; start no second process on it", file=sys.stderr)
