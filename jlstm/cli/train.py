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

import jax
import numpy as np

from jlstm._src import files, texts
from jlstm._src.checks import is_key
from jlstm._src.modules import require
from jlstm._src.settings import DEVICES, FORECAST, PROGRAM, RUNS, SERIES, TASK
from jlstm.cli import folder, options, outcomes

HELP = "train an LSTM on a task, over settings and seeds at once"
DESCRIPTION = """Trains an LSTM stack with a linear readout: every combination of the lists of
numbers, times every seed, as one compiled program; with several cells, one program
each. `jlstm tasks` lists the tasks. DIR receives settings.json, the series,
results.csv (a row a run), results.jsonl, curves.npz, params.npz, and the checkpoints
from which --resume continues, bit for bit."""
EXAMPLE = r"""jlstm train --task adding --length 100 --seeds 10 --learning-rate 5e-3 \
      --forget-bias 1,chrono --steps 3000 --plot --out adding"""


def add(parser) -> None:
    """Declares the options."""
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
    saved, series = folder.resume(args) if args.resume else folder.choose(args)
    if saved["devices"]:
        _use_devices(saved["devices"])
    from jlstm.experiments import runs

    task, configs, grid = runs.programs(saved, series)
    _check_memory(task, configs, grid)
    with folder.held(args.out, new=not args.resume):
        contents = {runs.SETTINGS: outcomes.json_writer({**saved, "digests": None})}
        if series is not None and not args.resume:
            contents[runs.SERIES] = runs.series_writer(series, saved["difference"])
        _write(args.out, contents)
        begun = time.monotonic()
        try:
            finished = {
                cell: _train(args, saved, task, grid, cell, c) for cell, c in configs.items()
            }
        except KeyboardInterrupt:
            command = f"jlstm train --resume --out {shlex.quote(args.out)}"
            note = f"interrupted; from the last checkpoint on, `{command}` continues"
            print(note, file=sys.stderr)
            raise
        rows = [{"cell": cell, **row} for cell in configs for row in grid.rows]
        together = outcomes.one_after_another(finished)
        contents = outcomes.tables(saved, rows, finished, together)
        contents[runs.SETTINGS] = outcomes.json_writer(runs.finished_settings(saved, contents))
        if args.plot:
            contents |= outcomes.pictures(saved, task, together)
        _write(args.out, contents)
    if not args.quiet:
        outcomes.print_summary(saved, task, together)
        print(f"{len(rows)} runs in {time.monotonic() - begun:.0f} s; see {args.out}")


def _write(out: str, contents: dict[str, files.Writer]) -> None:
    files.atomic_write({os.path.join(out, name): write for name, write in contents.items()})


def _use_devices(count: int) -> None:
    """Sets the number of CPU devices, which JAX allows only before it computes anything."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.local_device_count() != count:
            running = f"JAX runs on {jax.local_device_count()} already"
            raise ValueError(f"argument --devices: {running}, got {count}") from None


def _check_memory(task, configs, grid) -> None:
    """Checks that the states of the runs and one batch fit into the memory."""
    from jlstm.experiments import segments

    for config in configs.values():
        states = segments.shapes(task, grid.hyperparams, grid.keys, config=config)
        batch = jax.eval_shape(partial(task.sample, batch_size=config.batch_size), grid.keys[0])
        leaves = jax.tree.leaves((states, batch))
        options.check_memory([leaf for leaf in leaves if not is_key(leaf)])


def _train(args, saved, task, grid, cell, config):
    """Trains the runs of one cell; each cell has its own folder of checkpoints."""
    from tqdm import tqdm

    from jlstm.experiments import checkpointing, restore, segments
    from jlstm.experiments.runs import fingerprint

    out, mark = os.path.join(args.out, "checkpoints", cell), fingerprint(saved)
    shapes = segments.shapes(task, grid.hyperparams, grid.keys, config=config)

    def like(step):
        return mark, segments.Progress(shapes, segments.blank_curves(len(grid.rows), step))

    if found := restore(out, like):
        begin, (saved_mark, progress), refused = found
        if not np.array_equal(saved_mark, mark):
            raise ValueError(f"{out}: its settings differ from {args.out}")
        for line in refused:
            print(line, file=sys.stderr)
    else:
        begin, progress = 0, segments.start(task, grid.hyperparams, grid.keys, config=config)
    if begin > config.steps:
        raise ValueError(f"{out}: has {begin} steps, expected at most {config.steps}")
    hidden = args.quiet or not sys.stderr.isatty()
    bar = tqdm(
        desc=f"{task.name} {cell}", total=config.steps, initial=begin, unit="step", disable=hidden
    )
    going = segments.advance(task, grid.hyperparams, progress, config=config)
    with _interrupts() as interrupted, bar, checkpointing(out) as save:
        for step, progress in going:
            save(step, (mark, progress))
            if not hidden:
                loss = np.median(progress.curves.validation[:, -1])
                solved = int((np.asarray(progress.training.solved_at) >= 0).sum())
                bar.set_postfix_str(f"validation {loss:.2g}, solved {solved}/{len(grid.rows)}")
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
