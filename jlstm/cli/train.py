"""`jlstm train`: trains a grid of settings and seeds as one compiled program."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jlstm._src import files, texts
from jlstm._src.checks import is_key
from jlstm._src.modules import require
from jlstm._src.settings import DEFAULTS, DEVICES, FORECAST, PROGRAM, RUNS, SERIES, TASK
from jlstm.cli import options, outcomes


def add(commands) -> None:
    """Declares the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train an LSTM on a task, over settings and seeds at once",
        description="Trains an LSTM stack with a linear readout: every combination of the lists\n"
        "of numbers, times every seed, as one compiled program; with several cells, one program\n"
        "each. `jlstm tasks` lists the tasks.\n"
        "DIR receives settings.json, the series, results.csv (a row a run) and results.jsonl,\n"
        "curves.npz, params.npz, and the checkpoints from which --resume continues, bit for bit.",
        epilog="example:\n  jlstm train --task adding --length 100 --seeds 10 --learning-rate 5e-3 "
        "\\\n      --forget-bias 1,chrono --steps 3000 --plot --out adding",
    )
    parser.set_defaults(run=run)
    several = "Each takes one value or several: 1e-3,3e-3."
    options.add_settings(parser.add_argument_group("the task"), TASK | SERIES | FORECAST)
    options.add_settings(parser.add_argument_group("the program"), PROGRAM)
    options.add_settings(parser.add_argument_group("the runs", several), RUNS)
    out = parser.add_argument_group("the results")
    options.add(out, "--out", texts.path, "DIR", "a new folder", required=True)
    resume = "continue the runs in DIR; a larger --steps extends them"
    out.add_argument("--resume", action="store_true", help=resume)
    out.add_argument("--plot", action="store_true", help="draw curves.png and success.png")
    out.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    options.add_settings(out, DEVICES)


def run(args: argparse.Namespace) -> None:
    """Checks everything, then trains, then writes."""
    require("experiments", "optax", "orbax.checkpoint", "tqdm")
    if args.plot:
        require("plots", "matplotlib")
    if (args.task or "").startswith("digits"):
        require("data", "sklearn")
    saved, series = _resumed(args) if args.resume else _chosen(args)
    if saved["devices"]:
        _use_devices(saved["devices"])
    from jlstm.experiments.runs import programs

    task, configs, runs = programs(saved, series)
    _check_memory(task, configs, runs)
    if not args.resume:
        os.makedirs(args.out, exist_ok=True)
    with _locked(args.out):
        if not args.resume:
            _check_new(args.out)  # another process may have finished by now
        _train_all(args, saved, series, task, configs, runs)


def _check_memory(task, configs, runs) -> None:
    """Refuses runs whose states and one batch do not fit into the memory."""
    from jlstm.experiments import segments

    for config in configs.values():
        start = partial(segments.start, task, config=config)
        states = jax.eval_shape(start, runs.hyperparams, runs.keys).training
        batch = jax.eval_shape(lambda key: task.sample(key, config.batch_size), runs.keys[0])  # noqa: B023
        leaves = [leaf for leaf in jax.tree.leaves((states, batch)) if not is_key(leaf)]
        options.check_memory(leaves)


def _train_all(args, saved, series, task, configs, runs) -> None:
    """Trains the runs of all cells, and writes their files."""
    from jlstm.experiments import runs as folders

    for name in os.listdir(args.out):
        if name.startswith(files.TEMPORARY):  # of a process that was killed
            os.unlink(os.path.join(args.out, name))
    contents = {folders.SETTINGS: outcomes.json_writer({**saved, "digests": None})}
    if series is not None and not args.resume:
        contents[folders.SERIES] = folders.series_writer(series, saved["difference"])
    _write(args.out, contents)
    begun = time.monotonic()
    try:
        finished = {
            cell: _train(args, saved, task, config, runs, cell) for cell, config in configs.items()
        }
    except KeyboardInterrupt:
        command = f"jlstm train --resume --out {shlex.quote(args.out)}"
        print(f"interrupted; from the last checkpoint on, `{command}` continues", file=sys.stderr)
        raise
    rows = [{"cell": cell, **row} for cell in configs for row in runs.rows]
    together = outcomes.one_after_another(finished)
    contents = outcomes.tables(saved, rows, finished, together)
    digests = {name: folders.sha256(contents[name]) for name in (folders.PARAMS, folders.ROWS)}
    digests[folders.SETTINGS] = folders.fingerprint(saved).tobytes().hex()
    contents[folders.SETTINGS] = outcomes.json_writer({**saved, "digests": digests})
    if args.plot:
        contents |= outcomes.pictures(saved, task, together)
    _write(args.out, contents)
    if not args.quiet:
        outcomes.print_summary(saved, task, together)
        print(f"{len(rows)} runs in {time.monotonic() - begun:.0f} s; see {args.out}")


def _chosen(args) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns the settings of a new folder, and the series."""
    from jlstm.experiments import runs as folders
    from jlstm.experiments import tasks

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
    for name in ("columns", "header", "delimiter", *FORECAST):
        if name in given and not chosen["input"]:
            raise ValueError(f"argument --{name}: needs --input")
    series = options.read_series(chosen) if chosen["input"] else None
    return folders.new_settings(chosen, series), series


def _resumed(args) -> tuple[dict[str, Any], np.ndarray | None]:
    """Returns the settings and the series of a folder, in which only a few settings may change."""
    from jlstm.experiments import runs as folders

    path = os.path.join(args.out, folders.SETTINGS)
    if not os.path.exists(path):
        raise ValueError(f"argument --resume: there is no {path}")
    saved, given = folders.read_settings(args.out), _given(args)
    series = folders.read_series(args.out, saved)
    for name, value in given.items():
        longer = name == "steps" and value > saved["steps"]
        if name not in ("devices", *SERIES) and saved[name] != value and not longer:
            option = name.replace("_", "-")
            raise ValueError(f"argument --{option}: {path} has {saved[name]}, got {value}")
    if "input" in given:
        again = options.read_series({**saved, **given})
        if series is None or not np.array_equal(again, series):
            raise ValueError(f"argument --input: {given['input']} is not the series of {args.out}")
    now = {**saved["versions"], "devices": saved["devices"]}
    for name, value in {
        **folders.versions(),
        "devices": given.get("devices", saved["devices"]),
    }.items():
        if now[name] != value:
            print(
                f"{args.out}: begun with {name} {now[name]}, now {value}: bits may differ",
                file=sys.stderr,
            )
    kept = {name: given[name] for name in ("steps", "devices") if name in given}
    return {**saved, **kept}, series


def _given(args) -> dict[str, Any]:
    """Returns the settings that have an option, the path of the series absolute."""
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
def _locked(folder: str) -> Iterator[None]:
    """Holds an advisory lock on a folder, which ends with this process and leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"argument --out: {folder}: another process trains there") from None
        except (ImportError, OSError):
            print(f"{folder}: cannot be locked; start no second process on it", file=sys.stderr)
        yield
    finally:
        os.close(descriptor)


def _use_devices(count):
    """Sets the number of CPU devices, which JAX allows only before it computes anything."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.local_device_count() != count:
            running = f"JAX runs on {jax.local_device_count()} already"
            raise ValueError(f"argument --devices: {running}, got {count}") from None


def _train(args, saved, task, config, runs, name):
    """Trains the runs of one cell, whose checkpoints have a folder of their own."""
    from tqdm import tqdm

    from jlstm.experiments import segments
    from jlstm.experiments.checkpoints import checkpointing, restore
    from jlstm.experiments.runs import fingerprint

    folder, mark = os.path.join(args.out, "checkpoints", name), fingerprint(saved)
    start = partial(segments.start, task, config=config)
    training: Any = jax.eval_shape(start, runs.hyperparams, runs.keys).training

    def like(step):
        return mark, segments.Progress(training, segments.blank_curves(len(runs.rows), step))

    found = restore(folder, like)
    if found and not np.array_equal(found.tree[0], mark):
        raise ValueError(f"{folder}: checkpoints of other settings than those of {args.out}")
    begin, progress = (
        (found.step, found.tree[1]) if found else (0, start(runs.hyperparams, runs.keys))
    )
    for line in found.refused if found else ():
        print(line, file=sys.stderr)
    if begin > config.steps:
        raise ValueError(f"{folder}: has {begin} steps, expected at most {config.steps}")
    bar = tqdm(
        desc=f"{task.name} {name}".strip(),
        total=config.steps,
        initial=begin,
        unit="step",
        file=sys.stderr,
        disable=args.quiet or not sys.stderr.isatty(),
    )
    going = segments.advance(task, runs.hyperparams, progress, config=config)
    with _interrupts() as interrupted, bar, checkpointing(folder) as save:
        for step, progress in going:
            save(step, (mark, progress))
            if not bar.disable:
                loss = np.median(progress.curves.validation[:, -1])
                solved = int((np.asarray(progress.training.solved_at) >= 0).sum())
                bar.set_postfix_str(f"validation {loss:.2g}, solved {solved}/{len(runs.rows)}")
                bar.update(step - bar.n)
            if interrupted():
                break
    if interrupted():
        raise KeyboardInterrupt
    return segments.finish(task, progress, config=config)


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Provides a function that tells whether Ctrl-C was pressed; a second one interrupts."""
    pressed = []

    def note(*_):
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)
        print("stopping at the next checkpoint; Ctrl-C again stops at once", file=sys.stderr)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a shell ignores it in the background
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _write(folder, contents):
    """Writes the files of a folder, all or none of them."""
    files.atomic_write({os.path.join(folder, name): write for name, write in contents.items()})
