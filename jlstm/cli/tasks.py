"""`jlstm tasks`: lists the tasks of `jlstm train`."""

import argparse

import numpy as np


def add(commands) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "tasks",
        help="list the tasks for training",
        description="Lists the tasks with their criteria of success and their baselines, at their\n"
        "default lengths.",
        epilog="example:\n  jlstm tasks",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints a paragraph for each task."""
    del args
    from jlstm.experiments import tasks

    for name in tasks.NAMES:
        own = name == "forecast"  # its sizes depend on the user's series
        noise = np.random.default_rng(0).standard_normal((500, 1))
        try:
            task = tasks.named(name, series=noise if own else None)
        except ImportError as error:
            print(f"{name}\n  {error}")
            continue
        T, D = tasks.sizes(task)
        sizes = f"D = {D}, O = {task.output_size}"
        sizes = "D and O as the series that --input names" if own else sizes
        answers = "each step" if task.answers == "every" else "the last step"
        print(f"{name}\n  T = {T}, {sizes}; answers at {answers}")
        print(f"  solved: {task.criterion}")
        baseline = "that of persistence" if own else f"{task.baseline:.4g}"
        print(f"  metric: {task.metric_name}; baseline: a loss of {baseline}")
