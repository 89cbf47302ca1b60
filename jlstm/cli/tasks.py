"""`jlstm tasks`: lists the tasks of `jlstm train`."""

import argparse

import numpy as np

HELP, EXAMPLE = "list the tasks for training", "jlstm tasks"
DESCRIPTION = "Lists the tasks, their criteria, and their baselines at the default lengths."


def add(parser) -> None:
    """Declares no options."""


def run(args: argparse.Namespace) -> None:
    """Prints a paragraph for each task."""
    del args
    from jlstm.experiments import tasks

    noise = np.random.default_rng(0).standard_normal((500, 1))
    for name in tasks.NAMES:
        own = name == "forecast"  # its sizes depend on the user's series
        try:
            task = tasks.named(name, series=noise if own else None)
        except ImportError as error:
            print(f"{name}\n  {error}")
            continue
        T, D = tasks.sizes(task)
        sizes, baseline = f"D = {D}, O = {task.output_size}", f"a loss of {task.baseline:.4g}"
        if own:
            sizes, baseline = "D and O of the series of --input", "the loss of persistence"
        answers = "each step" if task.answers == "every" else "the last step"
        print(f"{name}\n  T = {T}, {sizes}; answers at {answers}\n  solved: {task.criterion}")
        print(f"  metric: {task.metric_name}; baseline: {baseline}")
