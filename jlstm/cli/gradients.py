"""`jlstm gradients`: how gradients travel through an LSTM that runs over a series."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

import jlstm
from jlstm import gradients
from jlstm._src import texts
from jlstm._src.stack import is_stack
from jlstm.cli import options, outcomes, system

HELP = "ask how gradients travel through an LSTM"
DESCRIPTION = """Asks how gradients travel through an LSTM that runs over a series: without
options the system of the notebook, else your series, your weights, or a trained run."""
EXAMPLE = "jlstm gradients flow --input wind.csv --standardise --hidden-size 8 --plot flow.png"

LOSSES: dict[str, tuple[str, Callable]] = {
    "last": (
        "½‖h_T‖²",
        lambda state, hs: ((state[-1] if is_stack(state) else state).h ** 2).sum() / 2,
    ),
    "mean": ("½ mean_t ‖h_t‖²", lambda state, hs: (hs**2).sum(axis=-1).mean() / 2),
}
# An answer is a title, a table by column, arrays to save, and a function that plots.
Answer = tuple[str, Mapping[str, np.ndarray], Mapping[str, Any], Callable[[], Any]]


def add(parser) -> None:
    """Declares the questions and their options."""
    questions = parser.add_subparsers(metavar="question", required=True)
    ask = partial(_question, questions)
    flow = ask("flow", _flow, "the norm of the gradient by the states and gates of each step")
    lyapunov = ask("lyapunov", _lyapunov, "how fast small changes of the state grow or fade")
    options.add(lyapunov, "--k", texts.size, "K", "exponents, at most 2H (2H)")
    options.add(lyapunov, "--warmup", texts.index, "N", "steps of the transient (0)", default=0)
    truncation = ask("truncation", _truncation, "the error of a gradient truncated after K steps")
    options.add(truncation, "--longest", texts.size, "K", "the largest K (T)")
    saliency = ask("saliency", _saliency, "the sensitivity of the last output to each input")
    fraction = "of the largest sensitivity, for the memory horizon (0.01)"
    options.add(saliency, "--fraction", texts.fraction, "X", fraction, default=0.01)
    loss = partial(texts.choice, LOSSES, " or ".join(LOSSES))
    for question in (flow, truncation):
        losses = ", ".join(f"{name}: {formula}" for name, (formula, _) in LOSSES.items())
        options.add(question, "--loss", loss, None, f"{losses} (last)", default="last")


def _question(questions, name, answer, what):
    description = f"{what[0].upper()}{what[1:]}. Of more than {outcomes.SHOWN} rows the table\n"
    description += f"shows the first and the last {outcomes.HEAD}; --save keeps all."
    example = f"example:\n  jlstm gradients {name} --steps 200 --hidden-size 8 --plot {name}.png"
    parser = questions.add_parser(name, help=what, description=description, epilog=example)
    parser.set_defaults(answer=answer)
    system.add_options(parser, ("float64", "float32"), "float64 or float32")
    options.add_files(parser, save="numbers: .npz or .csv", plot="a plot: .png")
    return parser


def run(args: argparse.Namespace) -> None:
    """Computes the answer, writes the files, prints the table."""
    system.check_options(args, {"save": (".npz", ".csv"), "plot": (".png",)})
    with system.precision(args.dtype):
        params, xs = system.read_system(args, stacks=True)
        title, *answer = args.answer(args, params, xs)
    outcomes.write(args, *answer)
    outcomes.print_table(title, answer[0])


def _flow(args, params, xs) -> Answer:
    formula, loss = LOSSES[args.loss]
    flow = jax.device_get(
        jax.jit(partial(gradients.gradient_flow, loss))(params, xs, **system.flags_of(xs))
    )
    layers = flow if is_stack(params) else (flow,)
    norms, arrays = {}, {}
    for layer, (h, c, gates) in enumerate(layers):
        of = f"_{layer}" * (len(layers) > 1)  # names of one layer have no number
        norms |= {f"h{of}": h, f"c{of}": c}
        norms |= {f"{gate}{of}": norm for gate, norm in zip("ifgo", gates.T, strict=True)}
        arrays |= {f"h{of}": h, f"c{of}": c, f"gates{of}": gates}
    _check_finite(args, norms)

    def draw():
        lines = {f"z_{name}" if name[0] in "ifgo" else name: norm for name, norm in norms.items()}
        label = "gradient norm (loss per unit)"
        return jlstm.plots.plot_norms(lines, xlabel="step t", ylabel=label)

    title = f"Norm of the gradient of {formula} by h_t, c_t and the gates' pre-activations"
    return title, {"t": np.arange(len(xs)), **norms}, arrays, draw


def _lyapunov(args, params, xs) -> Answer:
    ask = partial(gradients.lyapunov_spectrum, k=args.k, warmup=args.warmup)
    spectrum = jax.jit(ask)(params, xs, **system.flags_of(xs))
    exponents, steps = np.asarray(spectrum.exponents), int(spectrum.steps)
    title = f"Lyapunov exponents in nats per step, the mean over {steps} steps after {args.warmup}"
    table = {"k": 1 + np.arange(len(exponents)), "exponent": exponents}
    saved = {"exponents": exponents, "steps": steps}
    return title, table, saved, lambda: jlstm.plots.plot_lyapunov(exponents)


def _truncation(args, params, xs) -> Answer:
    formula, loss = LOSSES[args.loss]
    ask = partial(gradients.truncation_study, loss, longest=args.longest)
    flags = system.flags_of(xs)
    study = jax.device_get(jax.jit(ask)(params, xs, **flags))
    title = f"Gradient of {formula} truncated after K steps, beside the whole one"
    table = {"K": study.steps, **{n: getattr(study, n) for n in ("bias", "cosine", "norm")}}
    _check_finite(args, table)
    return title, table, study._asdict(), lambda: jlstm.plots.plot_truncation(*study[:3])


def _saliency(args, params, xs) -> Answer:
    flags = system.flags_of(xs)
    norm, saliency, _ = jax.device_get(jax.jit(gradients.input_sensitivity)(params, xs, **flags))
    ask = partial(gradients.memory_horizon, fraction=args.fraction)
    horizon = jax.jit(ask)(params, xs, **flags)
    lag, reached = int(horizon.lag), bool(horizon.reached)
    names = args.columns or [f"x{d}" for d in range(saliency.shape[1])]
    titles = (f"x_{name}" if name in ("t", "norm") else name for name in names)
    columns = dict(zip(titles, saliency.T, strict=True))
    _check_finite(args, columns)
    title = "Norm of the derivative of the last output by each input, and by each of its features\n"
    level, far = f"{args.fraction:g} of its largest", f"as far back as the series goes, {lag} steps"
    title += f"below {level} from lag {lag} on" if reached else f"above {level} {far}"
    arrays = {"norm": norm, "saliency": saliency, "horizon": lag, "reached": reached}
    table = {"t": np.arange(len(xs)), "norm": norm, **columns}
    return title, table, arrays, lambda: jlstm.plots.plot_saliency(saliency, names)


def _check_finite(args, columns):
    if not all(np.isfinite(column).all() for column in columns.values()):
        raise ValueError(f"the gradients are zero or not finite in {args.dtype}")
