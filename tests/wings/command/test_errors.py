"""Any error of the command is one line and exit status 2; nothing that was finished is lost."""

import io
import os
import sys

import pytest

from jlstm import cli


def fail(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(cli.tasks, "run", run)


@pytest.mark.parametrize(
    "error, line",
    [
        (KeyError("x"), "KeyError: 'x'; --traceback shows where"),
        (TypeError("two\nlines"), "two lines"),
        (RecursionError("deep"), "RecursionError: deep; --traceback shows where"),
        (MemoryError("40 GB"), "not enough memory: 40 GB"),
        (ValueError("long " * 1000), ("long " * 200) + "…"),
        (OSError(5, "Input/output error", "a.csv"), "a.csv: Input/output error"),
    ],
)
def test_whatever_escapes_is_one_line(monkeypatch, capsys, error, line):
    fail(monkeypatch, error)
    assert cli.main(["tasks"]) == 2
    assert capsys.readouterr() == ("", f"jlstm: error: {line}\n")
    with pytest.raises(type(error)):
        cli.main(["--traceback", "tasks"])


def test_a_read_error_names_its_file(monkeypatch, tmp_path, capsys):
    path = tmp_path / "series.csv"
    path.mkdir()  # opens as a file nowhere
    assert cli.main(["forward", "--input", str(path)]) == 2
    assert capsys.readouterr().err == f"jlstm: error: {path}: Is a directory\n"

    from jlstm._src import files

    def unreadable(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "_read_csv", unreadable)
    assert cli.main(["forward", "--input", "a.csv"]) == 2
    assert capsys.readouterr().err == "jlstm: error: a.csv: Input/output error\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_signs_that_an_encoding_lacks_lose_no_result(monkeypatch, tmp_path, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    arguments = ["gradients", "flow", "--save", str(tmp_path / "a.npz")]
    assert cli.main(arguments) == 0
    assert os.listdir(tmp_path) == ["a.npz"]
    assert b"h_T" in raw.getvalue() and b"\\u2016" in raw.getvalue()


def test_a_name_that_is_not_utf_8_is_refused_before_computing(tmp_path, capsys):
    name = os.fsdecode(bytes(tmp_path) + b"/\xff")
    given = "--task adding --length 20 --steps 2 --out".split()
    assert cli.main(["train", *given, name]) == 2
    assert "argument --out: expected the name of a file, got" in capsys.readouterr().err
    assert cli.main(["forward", "--save", name + ".npz"]) == 2
    assert "argument --save: expected the name of a file, got" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("digits", ["1_0", "٣", "１０", "0x10", "1e1", "+-1", "", " "])
def test_numbers_are_ascii_digits(digits, capsys):
    assert cli.main(["forward", f"--steps={digits}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jlstm: error: argument --steps: expected a whole number from 1")
    assert error.count("\n") == 1
    assert cli.main(["train", "--task", "adding", "--out", "a", f"--dropout={digits}x"]) == 2
    assert "argument --dropout: expected different numbers" in capsys.readouterr().err


def test_sizes_beyond_the_memory_are_refused_before_anything_is_allocated(tmp_path, capsys):
    huge = str(2**31 - 1)
    for arguments in (
        ["forward", "--hidden-size", huge],
        ["forward", "--steps", huge, "--hidden-size", "1000"],
        ["train", "--task", "adding", "--hidden-size", huge, "--out", str(tmp_path / "out")],
        ["train", "--task", "adding", "--length", "1000000000", "--out", str(tmp_path / "out")],
    ):
        assert cli.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("jlstm: error: not enough memory: ") and error.count("\n") == 1
    assert not os.listdir(tmp_path)
