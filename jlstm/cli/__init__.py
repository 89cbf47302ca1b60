"""The command `jlstm`, or `python -m jlstm`.

Any error is one line on stderr. Commands write files only after they have computed everything.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence

from jlstm import __version__
from jlstm.cli import forecast, forward, gradients, tasks, train

LONGEST = 1000  # characters of an error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status.

    0 means success, 2 an error, 130 an interrupt, 141 a closed output.

    >>> main(["forward", "--steps", "2", "--hidden-size", "1"])
    <BLANKLINE>
    LSTM Hidden & Cell States:
    <BLANKLINE>
    t=0 | h=[-0.07378504] | c=[-0.10787599]
    t=1 | h=[-0.01543274] | c=[-0.03576512]
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace(traceback=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack "½"
            stream.reconfigure(errors="backslashreplace")
    try:
        with contextlib.suppress(SystemExit):  # from --help and --version
            _parser().parse_args(arguments or ["forward"], args)
            args.run(args)
        print(end="", flush=True)
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if args.traceback and not isinstance(error, BrokenPipeError):
            raise
        return _status(error)


def _status(error: Exception) -> int:
    match error:
        case BrokenPipeError():
            _drop_output()
            return 141
        case OSError():
            if error.filename is None:
                _drop_output()
            text = f"{error.filename or 'standard output'}: {error.strerror or error}"
        case MemoryError():
            text = f"not enough memory: {error}"
        case ImportError() | TypeError() | ValueError():
            text = str(error)
        case _:
            text = f"{type(error).__name__}: {error}; --traceback shows where"
    text = " ".join(text.split())
    print("jlstm: error:", text if len(text) <= LONGEST else f"{text[:LONGEST]}…", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Discards the buffered output, which would raise another error when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors as ValueError; argparse would print them and exit."""

    def __init__(self, **options):
        options |= {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jlstm",
        description="The LSTM for JAX research. With no arguments: the system of the notebook.",
        epilog="example:\n  jlstm forward --steps 300 --hidden-size 8 --plot states.png",
    )
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"jlstm {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (forward, gradients, train, forecast, tasks):
        name, example = command.__name__.split(".")[-1], f"example:\n  {command.EXAMPLE}"
        words = {"help": command.HELP, "description": command.DESCRIPTION, "epilog": example}
        own = commands.add_parser(name, **words)
        own.set_defaults(run=command.run)
        command.add(own)
    return parser
