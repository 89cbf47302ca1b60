"""`jlstm forward`: runs an LSTM over a series; prints, saves and plots its states."""

import argparse
import sys
from functools import partial

import jax
import numpy as np

import jlstm
from jlstm._src import files
from jlstm._src.unroll import unroll
from jlstm.cli import options, system
from jlstm.cli.outcomes import HEAD, SHOWN, png_writer, print_rows
from jlstm.interop import files as parameter_files

ENDINGS = {"save": (".npz", ".csv"), "plot": (".png",), "save-params": (".npz", ".safetensors")}


HELP = "run an LSTM over a series; print, save and plot its states"
DESCRIPTION = f"""Runs an LSTM over a series and prints h and c of every step. Without options
it runs the system of the notebook. With more than {SHOWN} steps the table shows the
first and the last {HEAD}; --save keeps all."""
EXAMPLE = r"""jlstm forward --input wind.csv --columns speed,gusts --standardise \
      --hidden-size 8 --save states.npz --plot states.png"""


def add(parser) -> None:
    """Declares the options."""
    system.add_options(parser, files.FLOATS, f"one of {', '.join(files.FLOATS)}")
    files_of = {"save": "H and C: .npz or .csv", "save_params": "weights: .npz or .safetensors"}
    options.add_files(parser, **files_of, plot="a plot of H and C over time: .png")


def run(args: argparse.Namespace) -> None:
    """Computes the states, writes the files, prints the table."""
    system.check_options(args, ENDINGS)
    with system.precision(args.dtype):
        params, xs = system.read_system(args)
        flags = system.flags_of(xs)
        _, (H, C) = jax.jit(partial(unroll, return_states=True))(params, xs, **flags)
    H, C = np.asarray(H), np.asarray(C)
    if not (np.isfinite(H).all() and np.isfinite(C).all()):
        raise ValueError(f"the states are not finite in {args.dtype}: the series is too large")
    writers = {}
    if args.save:
        writers[args.save] = files.states_writer(args.save, H, C)
    if args.save_params:
        writers[args.save_params] = parameter_files.params_writer(args.save_params, params)
    if args.plot:
        writers[args.plot] = png_writer(jlstm.plots.plot_states(H, C))
    files.atomic_write(writers)
    print("\nLSTM Hidden & Cell States:\n")
    with np.printoptions(linewidth=sys.maxsize):  # a line a step for any number of units
        print_rows(len(H), "steps", lambda t: f"t={t} | h={H[t]} | c={C[t]}")
