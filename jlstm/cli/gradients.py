"""`jlstm gradients`: how gradients travel through an LSTM that runs over a series."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jlstm import gradients
from jlstm._src import files
from jlstm.cli import options, outcomes, system

SHOWN, HEAD = 100, 10  # a table of more rows is cut to its head and tail
LOSSES: dict[str, tuple[str, Callable]] = {
    "last": ("½‖h_T‖²", lambda state, hs: (state.h**2).sum() / 2),
    "mean": ("½ mean_t ‖h_t‖²", lambda state, hs: (hs**2).sum(axis=-1).mean() / 2),
}


class Answer(NamedTuple):
    """The answer to a question: a table by column, arrays to save, and a function that draws."""

    title: str
    table: Mapping[str, np.ndarray]
    arrays: Mapping[str, Any]
    draw: Callable[[Any], Any]


def add(commands) -> None:
    """Declares the command, its questions and their options."""
    parser = commands.add_parser(
        "gradients",
        help="ask how gradients travel through an LSTM",
        description="Asks how gradients travel through an LSTM that runs over a series: without\n"
        "options the system of the notebook, else your series, your weights, or a trained run.",
        epilog="example:\n  jlstm gradients flow --input wind.csv --standardise "
        "--hidden-size 8 --plot flow.png",
    )
    questions = parser.add_subparsers(metavar="question", required=True)
    count = partial(options.whole_number, 1, 2**31 - 1)
    flow = _question(
        questions, _flow, "flow", "the norm of the gradient by the states and gates of each step"
    )
    lyapunov = _question(
        questions, _lyapunov, "lyapunov", "how fast small changes of the state grow or fade"
    )
    lyapunov.add_argument("--k", type=count, metavar="K", help="exponents, at most 2H (2H)")
    transient = "steps of the transient, which are not counted (0)"
    steps = partial(options.whole_number, 0, 2**31 - 1)
    lyapunov.add_argument("--warmup", type=steps, default=0, metavar="N", help=transient)
    truncation = _question(
        questions,
        _truncation,
        "truncation",
        "the error of a gradient that is truncated after K steps",
    )
    truncation.add_argument("--longest", type=count, metavar="K", help="the largest K (T)")
    saliency = _question(
        questions, _saliency, "saliency", "the sensitivity of the last output to each input"
    )
    fraction = "of the largest sensitivity, for the memory horizon (0.01)"
    saliency.add_argument("--fraction", type=_fraction, default=0.01, metavar="X", help=fraction)
    for question in (flow, truncation):
        losses = ", ".join(f"{name}: {formula}" for name, (formula, _) in LOSSES.items())
        question.add_argument("--loss", type=_loss, default="last", help=f"{losses} (last)")


def _question(questions, answer, name, what):
    """Declares a question with the options that all questions share."""
    description = f"{what[0].upper()}{what[1:]}. Of more than {SHOWN} rows the table\n"
    description += f"shows the first and the last {HEAD}; --save keeps all."
    example = f"example:\n  jlstm gradients {name} --steps 200 --hidden-size 8 --plot {name}.png"
    parser = questions.add_parser(name, help=what, description=description, epilog=example)
    parser.set_defaults(run=run, answer=answer)
    system.add_options(parser)
    out = parser.add_argument_group("what is written", "Files are written whole or not at all.")
    out.add_argument("--save", type=options.path, metavar="FILE", help="numbers: .npz or .csv")
    out.add_argument("--plot", type=options.path, metavar="FILE", help="a picture: .png")
    return parser


def run(args: argparse.Namespace) -> None:
    """Computes the answer, writes the files, prints the table."""
    system.check_options(args, {"save": (".npz", ".csv"), "plot": (".png",)})
    if args.dtype not in ("float64", "float32"):
        raise ValueError(f"argument --dtype: expected float64 or float32, got {args.dtype!r}")
    with system.precision(args.dtype):
        params, xs = system.read_system(args)
        answer = args.answer(args, params, xs)
    writers: dict[str, files.Writer] = {}
    if args.save:
        writers[args.save] = _writer(args.save, answer)
    if args.plot:
        from jlstm import plots

        writers[args.plot] = partial(answer.draw(plots).savefig, format="png")
    files.atomic_write(writers)
    _print_table(answer)


# --- the questions


def _flow(args, params, xs) -> Answer:
    formula, loss = LOSSES[args.loss]
    flow = jax.jit(partial(gradients.gradient_flow, loss))(params, xs)
    h, c, gates = (np.asarray(norm) for norm in flow)
    norms = {"h": h, "c": c} | dict(zip("ifgo", gates.T, strict=True))
    _check_finite(args, norms)

    def draw(plots):
        label = "gradient norm (loss per unit)"
        names = {name: f"z_{name}" if name in "ifgo" else name for name in norms}
        lines = {names[name]: norm for name, norm in norms.items()}
        return plots.plot_norms(lines, xlabel="step t", ylabel=label)

    title = f"Norm of the gradient of {formula} by h_t, c_t and the gates' pre-activations"
    return Answer(title, {"t": np.arange(len(xs)), **norms}, {"h": h, "c": c, "gates": gates}, draw)


def _lyapunov(args, params, xs) -> Answer:
    ask = partial(gradients.lyapunov_spectrum, k=args.k, warmup=args.warmup)
    spectrum = jax.jit(ask)(params, xs)
    exponents, steps = np.asarray(spectrum.exponents), int(spectrum.steps)
    title = f"Lyapunov exponents in nats per step, the mean over {steps} steps after {args.warmup}"
    table = {"k": 1 + np.arange(len(exponents)), "exponent": exponents}
    arrays = {"exponents": exponents, "steps": steps}
    return Answer(title, table, arrays, lambda plots: plots.plot_lyapunov(exponents))


def _truncation(args, params, xs) -> Answer:
    formula, loss = LOSSES[args.loss]
    ask = partial(gradients.truncation_study, loss, longest=args.longest)
    study = jax.tree.map(np.asarray, jax.jit(ask)(params, xs))
    title = f"Gradient of {formula} truncated after K steps, beside the whole one"
    table = {"K": study.steps, **{n: getattr(study, n) for n in ("bias", "cosine", "norm")}}
    _check_finite(args, table)
    return Answer(title, table, study._asdict(), lambda plots: plots.plot_truncation(*study[:3]))


def _saliency(args, params, xs) -> Answer:
    norm, saliency, _ = jax.jit(gradients.input_sensitivity)(params, xs)
    norm, saliency = np.asarray(norm), np.asarray(saliency)
    ask = partial(gradients.memory_horizon, fraction=args.fraction)
    horizon = jax.jit(ask)(params, xs)
    lag, reached = int(horizon.lag), bool(horizon.reached)
    names = args.columns or [f"x{d}" for d in range(saliency.shape[1])]
    columns = dict(zip(names, saliency.T, strict=True))
    _check_finite(args, columns)
    title = "Norm of the derivative of the last output by each input, and by each of its features\n"
    title += f"below {args.fraction:g} of its largest from lag {lag} on" if reached else (
        f"above {args.fraction:g} of its largest as far back as the series goes, {lag} steps"
    )  # fmt: skip
    arrays = {"norm": norm, "saliency": saliency, "horizon": lag, "reached": reached}
    table = {"t": np.arange(len(xs)), "norm": norm, **columns}
    return Answer(title, table, arrays, lambda plots: plots.plot_saliency(saliency, names))


def _check_finite(args, columns):
    if not all(np.isfinite(column).all() for column in columns.values()):
        raise ValueError(f"the gradients are zero or not finite in {args.dtype}")


# --- options and tables


def _loss(text: str) -> str:
    if text not in LOSSES:
        raise argparse.ArgumentTypeError(f"expected {' or '.join(LOSSES)}, got {text!r}")
    return text


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return fraction


def _print_table(answer: Answer) -> None:
    columns = list(answer.table.values())
    rows = len(columns[0])
    shown = range(rows) if rows <= SHOWN else [*range(HEAD), None, *range(rows - HEAD, rows)]
    print(f"{answer.title}\n")
    widths = [max(11, len(name) + 2) for name in answer.table]
    print("".join(f"{name:>{w}}" for name, w in zip(answer.table, widths, strict=True)).rstrip())
    for row in shown:
        if row is None:
            print(f"... ({rows - 2 * HEAD} of {rows} rows are not shown; --save FILE keeps all)")
            continue
        cells = (f"{column[row]:>{w}.4g}" for column, w in zip(columns, widths, strict=True))
        print("".join(cells))


def _writer(path: str, answer: Answer) -> files.Writer:
    if files.suffix(path) == ".npz":
        return lambda file: np.savez(file, **answer.arrays)
    columns = (column.tolist() for column in answer.table.values())
    rows = zip(*columns, strict=True)
    return outcomes.csv_writer([dict(zip(answer.table, row, strict=True)) for row in rows])
