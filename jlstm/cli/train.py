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

from jlstm import cells
from jlstm._src import files
from jlstm._src.modules import require
from jlstm.cli import options, outcomes, settings

OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")


def add(commands) -> None:
    """Declares the command and its options."""
    parser = commands.add_parser(
        "train",
        help="train an LSTM on a task, over settings and seeds at once",
        description="Trains an LSTM stack with a linear readout: every combination of the lists\n"
        "of numbers, times every seed, as one compiled program; with several cells, one program\n"
        "each. `jlstm tasks` lists the tasks.\n"
        "DIR receives settings.json, results.csv (a row a run) and results.jsonl, curves.npz,\n"
        "params.npz, and the checkpoints from which --resume continues, bit for bit.",
        epilog="example:\n  jlstm train --task adding --length 100 --seeds 10 --learning-rate 5e-3 "
        "\\\n      --forget-bias 1,chrono --steps 3000 --plot --out adding",
    )
    parser.set_defaults(run=run)
    size = options.size
    group = parser.add_argument_group("the task")
    add = partial(options.add, group)
    add("--task", str, "NAME", "see `jlstm tasks`")
    add("--length", size, "T", "length of its sequences (the task's own)")
    options.add_series(group, "the series of forecast")
    add = partial(options.add, parser.add_argument_group("the program"))
    add("--hidden-size", size, "H", "units of each layer (32)")
    add("--layers", size, "N", "layers of the stack (1)")
    add("--batch-size", size, "B", "new sequences a step (64)")
    add("--steps", size, "N", "training steps (3000)")
    add("--optimizer", str, "NAME", f"{', '.join(OPTIMIZERS)} (adam)")
    several = "Each takes one value or several: 1e-3,3e-3."
    add = partial(options.add, parser.add_argument_group("the runs", several))
    names = partial(options.choices, settings.CELLS)
    add("--cell", names, "NAME", f"cell of all layers: {', '.join(settings.CELLS)} (lstm)")
    positive = partial(options.numbers, "above 0", lambda x: x > 0)
    rate = partial(options.numbers, "from 0 below 1", lambda x: 0 <= x < 1)
    bias = partial(options.numbers, "or chrono", lambda x: True, word="chrono")
    add("--learning-rate", positive, "X", "learning rate of the optimiser (1e-3)")
    add("--forget-bias", bias, "X", "a number or the word chrono (1)")
    add("--clip-norm", positive, "X", "largest norm of the gradient (any)")
    add("--dropout", rate, "X", "dropout rate in training (none)")
    add("--seeds", size, "N", "runs of each setting (1)")
    out = parser.add_argument_group("the results")
    add = partial(options.add, out)
    add("--out", options.path, "DIR", "a new folder", required=True)
    out.add_argument("--resume", action="store_true", help="continue the runs in DIR")
    out.add_argument("--plot", action="store_true", help="draw curves.png and success.png")
    out.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    every = partial(options.whole_number, 2, 2**31 - 1)
    add("--checkpoint-every", every, "N", "steps between checkpoints (100)")
    add("--devices", size, "N", "CPU devices to spread the runs over (1)")


def run(args: argparse.Namespace) -> None:
    """Checks everything, then trains, then writes."""
    require("experiments", "optax", "orbax.checkpoint", "tqdm")
    if args.plot:
        require("plots", "matplotlib")
    if (args.task or "").startswith("digits"):
        require("data", "sklearn")
    chosen = _chosen(args)
    if chosen["devices"]:
        _use_devices(chosen["devices"])
    task, configs, runs = _programs(chosen)
    if not args.resume:
        os.makedirs(args.out, exist_ok=True)
        _write(args.out, {settings.FILE: outcomes.json_writer(chosen)})
    begun = time.monotonic()
    try:
        finished = {
            cell: _train(args, chosen, task, config, runs, cell if len(configs) > 1 else "")
            for cell, config in configs.items()
        }
    except KeyboardInterrupt:
        command = f"jlstm train --resume --out {shlex.quote(args.out)}"
        print(f"interrupted; from the last checkpoint on, `{command}` continues", file=sys.stderr)
        raise
    rows = [{"cell": cell, **row} for cell in configs for row in runs.rows]
    together = outcomes.one_after_another(finished)
    contents = outcomes.tables(chosen, rows, together)
    if args.plot:
        contents |= outcomes.pictures(chosen, task, together)
    _write(args.out, contents)
    if not args.quiet:
        outcomes.print_summary(chosen, task, together)
        print(f"{len(rows)} runs in {time.monotonic() - begun:.0f} s; see {args.out}")


def _chosen(args) -> dict[str, Any]:
    """Returns all settings by name, for settings.json."""
    names = ("task", *settings.DEFAULTS)
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if given.get("input"):
        given["input"] = os.path.abspath(given["input"])
    path = os.path.join(args.out, settings.FILE)
    if args.resume:
        if not os.path.exists(path):
            raise ValueError(f"argument --resume: there is no {path}")
        saved = settings.read(args.out)
        for name, value in given.items():
            if name != "devices" and saved[name] != value:
                option = name.replace("_", "-")
                raise ValueError(f"argument --{option}: {path} has {saved[name]}, got {value}")
        return {**saved, **given}
    if "task" not in given:
        raise ValueError("argument --task: expected the name of a task, see `jlstm tasks`")
    parent = os.path.dirname(os.path.abspath(args.out))
    if os.path.lexists(args.out) and not _is_empty(args.out):
        hint = "; --resume continues what is in it" if os.path.exists(path) else ""
        raise ValueError(f"argument --out: {args.out}: expected a new folder{hint}")
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
        raise ValueError(f"argument --out: {args.out}: no folder can be made in {parent}")
    return {"task": given["task"], **settings.DEFAULTS, **given}


def _is_empty(folder):
    """Whether a folder has nothing except temporary files of a killed process."""
    return os.path.isdir(folder) and all(name.startswith(".jlstm-") for name in os.listdir(folder))


def _use_devices(count):
    """Sets the number of CPU devices, which JAX allows only before it computes anything."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.local_device_count() != count:
            running = f"JAX runs on {jax.local_device_count()} already"
            raise ValueError(f"argument --devices: {running}, got {count}") from None


def _programs(chosen):
    """Makes the task, the `Config` of each cell, and the grid of runs."""
    import optax

    from jlstm.experiments import Config, grid, tasks

    for option, known in {"task": tasks.NAMES, "optimizer": OPTIMIZERS}.items():
        if chosen[option] not in known:
            expected = ", ".join(known)
            raise ValueError(f"argument --{option}: expected {expected}, got {chosen[option]!r}")
    if (chosen["task"] == "forecast") != (chosen["input"] is not None):
        raise ValueError("argument --input: belongs to the task forecast, which needs it")
    given = {name: chosen[name] for name in ("columns", "header", "delimiter")}
    for name, value in given.items():
        if value is not None and not chosen["input"]:
            raise ValueError(f"argument --{name}: needs --input")
    series = options.read_series(chosen["input"], **given) if chosen["input"] else None
    task = tasks.named(chosen["task"], length=chosen["length"], series=series)
    fixed = {name: chosen[name] for name in ("hidden_size", "layers", "batch_size", "steps")}
    fixed["optimizer"] = getattr(optax, chosen["optimizer"])
    configs = {
        name: Config(**fixed, cell=getattr(cells, name), init=getattr(cells, f"init_{name}"))
        for name in chosen["cell"]
    }
    choices = {name: chosen[name] for name in outcomes.NUMBERS if chosen[name] is not None}
    return task, configs, grid(chosen["seeds"], choices)


def _train(args, chosen, task, config, runs, name):
    """Trains the runs of one cell; with a name, its checkpoints have a folder of their own."""
    from tqdm import tqdm

    from jlstm.experiments import segments
    from jlstm.experiments.checkpoints import checkpointing, restore

    folder = os.path.join(args.out, "checkpoints", *[name] * bool(name))
    start = partial(segments.start, task, config=config)
    like: Any = jax.eval_shape(start, runs.hyperparams, runs.keys)
    begin, progress, refused = restore(folder, like) or (0, start(runs.hyperparams, runs.keys), ())
    for line in refused:
        print(line, file=sys.stderr)
    bar = tqdm(
        desc=f"{task.name} {name}".strip(),
        total=config.steps,
        initial=begin,
        unit="step",
        file=sys.stderr,
        disable=args.quiet or not sys.stderr.isatty(),
    )
    every = chosen["checkpoint_every"]
    going = segments.advance(task, runs.hyperparams, progress, config=config, every=every)
    with _interrupts() as interrupted, bar, checkpointing(folder) as save:
        for step, progress in going:
            save(step, progress)
            if not bar.disable:
                loss = np.asarray(progress.curves.loss)[:, max(step - every, 0) : step]
                solved = int((np.asarray(progress.training.solved_at) >= 0).sum())
                bar.set_postfix_str(f"loss {np.median(loss):.2g}, solved {solved}/{len(runs.rows)}")
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
