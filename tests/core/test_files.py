"""Files: what goes in comes out, what is wrong is refused by place, what is written is whole."""

import errno
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jlstm._src import files


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# --- series


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("1,2\n3,4\n", None, [[1, 2], [3, 4]]),
        ("1\n2", None, [[1], [2]]),
        ("a,b\n1,2\n", None, [[1, 2]]),
        ("a,b\n1,2\n3,4\n", ["b"], [[2], [4]]),
        ("a,b\n1,2\n", ["b", "a"], [[2, 1]]),
        ("a,b\n1,2\n", ["1", "a"], [[2, 1]]),
        ("1,2,3\n4,5,6\n", ["2", "0"], [[3, 1], [6, 4]]),
        ("day,x\nMon,1\nTue,\n", ["0"], None),
        ("day,x,y\nMon,1,?\n", ["x"], [[1]]),
        ("\ufeffa,b\r\n1,2\r\n", ["a"], [[1]]),
        ('"a","b, c"\n"1","2"\n', ["b, c"], [[2]]),
        ('"a\nb",c\n1,2\n', ["a\nb"], [[1]]),
        (" a , b \n 1e-3 , -.5 \n", ["a", "b"], [[1e-3, -0.5]]),
        ("a\n1\n\n\n", None, [[1]]),
    ],
)
def test_csv(tmp_path, content, columns, expected):
    path = write(tmp_path, "series.csv", content)
    if expected is None:
        with pytest.raises(ValueError, match="row 2, column 'day'"):
            files.read_series(path, columns)
        return
    series = files.read_series(path, columns)
    assert series.dtype == np.float64
    np.testing.assert_array_equal(series, expected)


NUMBER = "expected a finite number, got"
MISSING = ": a missing cell; pass --missing mask, or leave out its row or column"
REFUSED_CSV = {
    "empty": ("", None, "the file is empty"),
    "blank": ("\n\n", None, "the file is empty"),
    "only a header": ("a,b\n", None, "the file has a header and no rows"),
    "short row": ("a,b\n1,2\n3\n", None, "row 3: expected 2 cells, got 1"),
    "long row": ("1,2\n3,4,5\n", None, "row 2: expected 2 cells, got 3"),
    "empty line": ("a\n1\n\n2\n", None, "row 3: the row is empty"),
    "text": ("a,b\n1,2\n3,x\n", None, "row 3, column 'b': expected a finite number, got 'x'"),
    "text, no header": ("1,2\n3,x\n", None, "row 2, column 1: expected a finite number, got 'x'"),
    "empty cell": ("a,b\n1,\n", None, f"row 2, column 'b': {NUMBER} ''{MISSING}"),
    "nan": ("a\n1\nnan\n", None, f"row 3, column 'a': {NUMBER} 'nan'{MISSING}"),
    "nan, first row": ("1,nan\n", None, f"row 1, column 1: {NUMBER} 'nan'{MISSING}"),
    "inf": ("a\n-inf\n", None, "row 2, column 'a': expected a finite number, got '-inf'"),
    "too large": ("a\n1e999\n", None, "row 2, column 'a': expected a finite number, got '1e999'"),
    "too large, first row": (
        "1e999,+inf\n1,2\n",
        None,
        "row 1, column 0: expected a finite number, got '1e999'",
    ),
    "underscore": ("a\n1_0\n", None, "row 2, column 'a': expected a finite number, got '1_0'"),
    "long text": (
        "a\n" + 50 * "x",
        None,
        f"row 2, column 'a': expected a finite number, got '{37 * 'x'}...'",
    ),
    "after a cell of two lines": (
        'a,b\n1,"x\ny"\n2,z\n',
        ["a", "b"],
        f"row 3, column 'b': {NUMBER} 'x\\ny': a line break inside quotes; is a quote not closed?",
    ),
    "open quote": ('a,b\n"1,2\n', None, "row 2: unexpected end of data"),
    "not UTF-8": (b"a\n\xff\n", None, "not UTF-8 text"),
    "UTF-16": ("a\n1\n".encode("utf-16"), None, "UTF-16 text"),
    "no such name": ("a,b\n1,2\n", ["c"], "no column 'c'; expected a, b, or by place 0 to 1"),
    "no such place": ("1,2\n", ["2"], "no column '2'; expected 0 to 1"),
    "negative place": ("1,2\n", ["-1"], "no column '-1'; expected 0 to 1"),
    "two of a name": ("a,a\n1,2\n", ["a"], "more than one column is named 'a'"),
    "twice": ("a,b\n1,2\n", ["a", "0"], "a column is asked for twice in a, 0"),
}


@pytest.mark.parametrize("case", REFUSED_CSV)
def test_refused_csv(tmp_path, case):
    content, columns, message = REFUSED_CSV[case]
    path = write(tmp_path, "series.csv", content)
    with pytest.raises(ValueError) as refusal:
        files.read_series(path, columns)
    assert str(refusal.value) == f"{path}: {message}"


# --- the first row, delimiters and ends of lines: the options, and the numbers, a note or a message

AMBIGUOUS = "row 1: names or data? pass --header or --no-header"
SEMICOLON = "a semicolon; pass --delimiter ';' if it separates cells, else ','"
TAB = "a tab; pass --delimiter tab if it separates cells, else ','"
COMMA = "a comma; write numbers with a decimal point"
NAMES: dict[str, Any] = {"header": True}
DATA: dict[str, Any] = {"header": False}
SEMICOLONS: dict[str, Any] = {"delimiter": ";"}
TABS: dict[str, Any] = {"delimiter": "\t"}
FIRST_ROWS = [
    # names
    ("a\n1\n", {}, [[1]]),
    ("1.5,x\n2,3\n", {}, [[2, 3]]),
    ("x,\n2,3\n", {}, [[2, 3]]),
    (",x\n2,3\n", {}, [[2, 3]]),
    ("nan,x\n2,3\n", {}, [[2, 3]]),
    ("1_0,2_0\n2,3\n", {}, [[2, 3]]),
    ("\u0661,\u0662\n2,3\n", {}, [[2, 3]]),
    ("2019,2020\n2,3\n", NAMES, [[2, 3]]),
    ("0,1\n2,3\n", NAMES, [[2, 3]]),
    ("nan,nan\n2,3\n", NAMES, [[2, 3]]),
    (",0,1\n0,2,3\n", NAMES, [[0, 2, 3]]),
    # data
    ("1,2\n3,4\n", {}, [[1, 2], [3, 4]]),
    ("1,0\n3,4\n", {}, [[1, 0], [3, 4]]),
    ("1\n2\n", {}, [[1], [2]]),
    ("0,1\n2,3\n", DATA, [[0, 1], [2, 3]]),
    ("0,0\n0,1\n", {}, [[0, 0], [0, 1]]),
    ("0.5,1\n2.5,3\n", {}, [[0.5, 1], [2.5, 3]]),
    ("2019,2020\n0.5,1.5\n", DATA, [[2019, 2020], [0.5, 1.5]]),
    ("0\n1\n", DATA, [[0], [1]]),
    ("3\n", {}, [[3]]),
    # data with a note
    ("0\n1\n", {}, ([[0], [1]], "'0'")),
    ("0\n0.5\n", {}, ([[0], [0.5]], "'0'")),
    ("2019,2020\n0.5,1.5\n", {}, ([[2019, 2020], [0.5, 1.5]], "'2019,2020'")),
    ("7\n0.5\n1.5\n", {}, ([[7], [0.5], [1.5]], "'7'")),
    # neither
    ("0,1\n2,3\n", {}, AMBIGUOUS),
    ("0,1,2\n2,3,4\n", {}, AMBIGUOUS),
    (",0,1\n0,2,3\n", {}, AMBIGUOUS),
    (",2019\n0,2\n", {}, AMBIGUOUS),
    ("nan,NA\n1,2\n", {}, "row 1: all cells are missing; --header takes them as names"),
    ('""\n1\n', {}, "row 1: all cells are missing; --header takes them as names"),
    ("a,b\n1,2\n", DATA, f"row 1, column 0: {NUMBER} 'a'"),
    ("0,1\n", NAMES, "the file has a header and no rows"),
    # delimiters
    ("a;b\n1;2\n", SEMICOLONS, [[1, 2]]),
    ("a\tb\n1\t2\n", TABS, [[1, 2]]),
    ("1|2\n3|4\n", {"delimiter": "|"}, [[1, 2], [3, 4]]),
    ("1 2\n3 4\n", {"delimiter": " "}, [[1, 2], [3, 4]]),
    ("a; in m\n1\n", {"delimiter": ","}, [[1]]),
    ("a;b\n1;2\n", {}, f"row 1, column 0: got 'a;b': {SEMICOLON}"),
    ("1;2\n3;4\n", {}, f"row 1, column 0: got '1;2': {SEMICOLON}"),
    ("1,5;2,5\n", {}, f"row 1, column 1: got '5;2': {SEMICOLON}"),
    ("a\tb\n1\t2\n", {}, f"row 1, column 0: got 'a\\tb': {TAB}"),
    ("a\n1;2\n", {}, f"row 2, column 'a': {NUMBER} '1;2': {SEMICOLON}"),
    ("a\n1\t2\n", {}, f"row 2, column 'a': {NUMBER} '1\\t2': {TAB}"),
    ("sep=;\na;b\n1;2\n", {}, "row 1: remove 'sep=;', and pass --delimiter"),
    ("sep=;\na;b\n1;2\n", SEMICOLONS, "row 1: remove 'sep=', and pass --delimiter"),
    ("sep=,\na,b\n1,2\n", {}, "row 1: remove 'sep=', and pass --delimiter"),
    # decimal commas
    ("a;b\n1,5;2\n", SEMICOLONS, f"row 2, column 'a': {NUMBER} '1,5': {COMMA}"),
    ("1,5;2\n3;4\n", SEMICOLONS, f"row 1, column 0: got '1,5': {COMMA}"),
    ('"1,5"\n2\n', {}, f"row 1, column 0: got '1,5': {COMMA}"),
    ("a;b,5\n1;2\n", SEMICOLONS, [[1, 2]]),
    # ends of lines, encodings, breaks inside cells
    ("a\r\n1\r\n", {}, [[1]]),
    ("a\r1\r2\r", {}, [[1], [2]]),
    ("a\r\r\n1\r\r\n", {}, r"row 2: lines end in \r\r\n; expected \r\n or \n"),
    ("\ufeff0.5,b\n1,2\n", {}, [[1, 2]]),
    ("\ufeff3\n4\n", {}, [[3], [4]]),
    ("a\n1\n".encode("utf-16-be"), {}, "row 1: a zero byte; expected UTF-8 text"),
    (b"\xfe\xff" + "a\n1\n".encode("utf-16-be"), {}, "UTF-16 text"),
    (
        'a\n"1\n"\n',
        {},
        f"row 3, column 'a': {NUMBER} '1\\n': a line break inside quotes; is a quote not closed?",
    ),
    # numbers
    ("a\n+1e-3\n.5\n5.\n", {}, [[1e-3], [0.5], [5]]),
    ("a\n\u0661\n", {}, f"row 2, column 'a': {NUMBER} '\u0661'"),
    ("a\n1_000\n", {}, f"row 2, column 'a': {NUMBER} '1_000'"),
    ("a\n0x10\n", {}, f"row 2, column 'a': {NUMBER} '0x10'"),
    ("a\n1e\n", {}, f"row 2, column 'a': {NUMBER} '1e'"),
    ("a\n?\n", {}, f"row 2, column 'a': {NUMBER} '?'{MISSING}"),
    ("a\nN/A\n", {}, f"row 2, column 'a': {NUMBER} 'N/A'{MISSING}"),
]


@pytest.mark.parametrize(("content", "options", "expected"), FIRST_ROWS)
def test_first_rows_and_delimiters(tmp_path, content, options, expected):
    path, notes = write(tmp_path, "series.csv", content), []
    if isinstance(expected, str):
        with pytest.raises(ValueError) as refusal:
            files.read_series(path, **options)
        assert str(refusal.value) == f"{path}: {expected}"
        return
    numbers, row = expected if isinstance(expected, tuple) else (expected, None)
    np.testing.assert_array_equal(files.read_series(path, **options, note=notes.append), numbers)
    advice = "is read as data; pass --header if it has names, or --no-header"
    assert notes == [f"{path}: row 1, {row}, {advice}"] * (row is not None)


CELLS = st.sampled_from(["0", "1", "2", "-3", "1.5", "1e3", ".25", "", "nan", "x", "a b", "7,5"])
TABLES = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=4)
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(TABLES, st.sampled_from([True, False, None]), st.sampled_from([",", ";", "\t"]))
def test_series_of_pandas_with_the_same_options_or_an_error(tmp_path, rows, header, delimiter):
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    path = write(tmp_path, "series.csv", text)
    try:
        ours = files.read_series(path, header=header, delimiter=delimiter)
    except ValueError:
        return
    if header is None:  # then a header has text
        header = any(cell in ("x", "a b") for cell in rows[0])
    first = 0 if header else None
    table = pandas.read_csv(path, header=first, sep=delimiter)
    np.testing.assert_array_equal(ours, table.to_numpy(float))


def test_header_and_delimiter_are_of_csv(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    for options in (NAMES, DATA, TABS):
        with pytest.raises(ValueError, match=r"a.npy: a .npy file has no header and no delimiter"):
            files.read_series(str(tmp_path / "a.npy"), **options)


def test_csv_and_npy_of_the_same_numbers_are_the_same_series(tmp_path):
    series = np.random.RandomState(0).randn(50, 3) * 10.0 ** np.arange(-150, 150, 100)
    rows = [",".join(map(repr, row)) for row in series.tolist()]
    np.save(tmp_path / "a.npy", series)
    for path in (write(tmp_path, "a.csv", "\n".join(rows)), str(tmp_path / "a.npy")):
        np.testing.assert_array_equal(files.read_series(path), series)
        np.testing.assert_array_equal(files.read_series(path, ["2", "0"]), series[:, [2, 0]])


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "f2", "i8", "u1"])
def test_npy(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.arange(4, dtype=dtype))
    series = files.read_series(str(tmp_path / "a.npy"))
    assert series.dtype == np.float64
    np.testing.assert_array_equal(series, [[0], [1], [2], [3]])


EXPECTED = "expected floats or ints of shape [T, D] or [T], got"
BROKEN = "it is broken, or holds Python objects"
REFUSED_NPY = {
    "complex": (np.zeros(3, complex), f"{EXPECTED} complex128[3]"),
    "bool": (np.zeros(3, bool), f"{EXPECTED} bool[3]"),
    "text": (np.array(["1", "2"]), f"{EXPECTED} <U1[2]"),
    "rank 0": (np.array(1.0), f"{EXPECTED} float64[]"),
    "rank 3": (np.zeros((2, 2, 2)), f"{EXPECTED} float64[2, 2, 2]"),
    "no rows": (np.zeros((0, 2)), f"{EXPECTED} float64[0, 2]"),
    "no columns": (np.zeros((2, 0)), f"{EXPECTED} float64[2, 0]"),
    "nan": (np.array([[1.0, np.nan]]), f"row 0, column 1: {NUMBER} nan{MISSING}"),
    "inf": (np.array([[1.0], [np.inf]]), "row 1, column 0: expected a finite number, got inf"),
    "-inf": (np.array([1.0, -np.inf]), "row 1, column 0: expected a finite number, got -inf"),
    "objects": (np.array([{}, {}], object), f"not a readable .npy file: {BROKEN}"),
}


@pytest.mark.parametrize("case", REFUSED_NPY)
def test_refused_npy(tmp_path, case):
    array, message = REFUSED_NPY[case]
    path = str(tmp_path / "series.npy")
    np.save(path, array, allow_pickle=True)
    with pytest.raises(ValueError) as refusal:
        files.read_series(path)
    assert str(refusal.value) == f"{path}: {message}"


def test_what_is_not_finite_in_npy_is_seen_in_the_columns_taken_alone(tmp_path):
    path = str(tmp_path / "series.npy")
    np.save(path, np.array([[1.0, np.nan, 3.0], [np.inf, 5.0, 6.0]]))
    np.testing.assert_array_equal(files.read_series(path, ["2"]), [[3], [6]])
    with pytest.raises(ValueError, match="row 1, column 0: expected a finite number, got inf"):
        files.read_series(path, ["2", "0"])


@pytest.mark.parametrize("kept", [0, 4, 20, 128, -8])
def test_truncated_npy(tmp_path, kept):
    np.save(tmp_path / "whole.npy", np.arange(4.0))
    path = write(tmp_path, "part.npy", (tmp_path / "whole.npy").read_bytes()[:kept])
    with pytest.raises(ValueError) as refusal:
        files.read_series(path)
    assert str(refusal.value) == f"{path}: not a readable .npy file: {BROKEN}"


def test_a_name_of_another_ending_is_refused():
    with pytest.raises(ValueError) as refusal:
        files.read_series("series.txt")
    assert str(refusal.value) == "series.txt: expected a name that ends in .csv or .npy"


# --- histories


@pytest.mark.parametrize("dtype", files.FLOATS)
@pytest.mark.parametrize("name", ["states.npz", "states.csv"])
def test_histories_come_back_exactly(tmp_path, dtype, name):
    H, C = np.random.RandomState(0).randn(2, 5000, 2).astype(jnp.dtype(dtype))
    path = str(tmp_path / name)
    files.atomic_write({path: files.states_writer(path, H, C)})
    if name == "states.npz":
        with np.load(path) as stored:
            assert list(stored) == ["H", "C"]
            again = stored["H"], stored["C"]
        assert again[0].dtype.name == ("float32" if dtype == "bfloat16" else dtype)
    else:
        again = [files.read_series(path, columns) for columns in (["h0", "h1"], ["c0", "c1"])]
    for expected, got in zip((H, C), again, strict=True):
        np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))


# --- writing


def fail(error):
    def write(file):
        file.write(b"half")
        raise error

    return write


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError()])
def test_a_failed_write_leaves_every_file_as_it_was(tmp_path, error):
    first, second = str(tmp_path / "first"), write(tmp_path, "second", "old")
    with pytest.raises(type(error)) as failure:
        files.atomic_write({first: lambda file: file.write(b"new"), second: fail(error)})
    if isinstance(failure.value, OSError):
        assert (failure.value.filename, failure.value.errno) == (second, errno.ENOSPC)
    assert os.listdir(tmp_path) == ["second"]
    assert (tmp_path / "second").read_bytes() == b"old"


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write({str(tmp_path / "a"): fail(KeyboardInterrupt())})
    assert not os.listdir(tmp_path)


def test_a_failure_of_the_disk_is_seen_before_the_file_takes_its_place(tmp_path, monkeypatch):
    path = write(tmp_path, "a", "old")

    def fsync(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        files.atomic_write({path: lambda file: file.write(b"new")})
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_links_and_permissions_stay(tmp_path):
    path = write(tmp_path, "a", "old")
    os.chmod(path, 0o640)
    os.symlink("a", tmp_path / "link")
    files.atomic_write({str(tmp_path / "link"): lambda file: file.write(b"new")})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.stat(path).st_mode & 0o777 == 0o640


def test_check_writable(tmp_path, monkeypatch):
    there = write(tmp_path, "there.csv", "old")
    os.mkdir(tmp_path / "folder.csv")
    refused = {
        str(tmp_path / "folder.csv"): "cannot be written: it is not a file",
        str(tmp_path / "no" / "a.csv"): f"cannot be written: there is no folder {tmp_path / 'no'}",
        str(tmp_path / "there.csv" / "a.csv"): f"cannot be written: there is no folder {there}",
        str(tmp_path / "a.txt"): "expected a name that ends in .csv",
    }
    files.check_writable(there, ".csv")
    files.check_writable(str(tmp_path / "new.csv"), ".csv")
    for path, message in refused.items():
        with pytest.raises(ValueError) as refusal:
            files.check_writable(path, ".csv")
        assert str(refusal.value) == f"{path}: {message}"
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError) as refusal:
        files.check_writable(there, ".csv")
    assert str(refusal.value) == f"{there}: cannot be written: permission denied"
