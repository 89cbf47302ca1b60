"""`save`: onnxruntime runs what it writes, and `load_all` reads it back to the bit."""

from functools import partial
from typing import Any

import jax
import numpy as np
import onnx
import pytest

import jlstm
from jlstm import Bidirectional, cells
from jlstm.cells import Activation, Options, PeepholeParams
from jlstm.interop.onnx import load_all, save
from tests.helpers.draws import draw_array, draw_params, draw_state
from tests.peers.onnx_models import onnxruntime_session

T, B, D = 6, 4, 3
LENGTHS = np.array([6, 0, 2, 5])
SIZES = (4, 2)
OPTIONS = Options(
    f=Activation("hard_sigmoid", beta=0.4),
    g=Activation("scaled_tanh", 1.2, 0.7),
    h=Activation("softsign"),
    clip=0.9,
)


def draw_peepholes(seed, input_size, hidden_size, coupled=False):
    D, H, k = input_size, hidden_size, 3 if coupled else 4
    shapes = (D, k * H), (H, k * H), (k * H,), ((k - 1) * H,)
    return PeepholeParams(*(draw_array((seed, n), shape) for n, shape in enumerate(shapes)))


def draw_stack(bidirectional, draw: Any = draw_params):
    """Two layers of different sizes, and states to begin in, one entry a layer."""

    def both(make, *seeds):
        made = [make(seed) for seed in seeds]
        return Bidirectional(*made) if bidirectional else made[0]

    params, states, width = [], [], D
    for k, size in enumerate(SIZES):
        params.append(both(partial(draw, input_size=width, hidden_size=size), 2 * k, 2 * k + 1))
        states.append(both(partial(draw_state, shape=(B, size)), 2 * k, 2 * k + 1))
        width = 2 * size if bidirectional else size
    return tuple(params), tuple(states)


def directions_of(entry) -> tuple:
    return tuple(entry) if isinstance(entry, Bidirectional) else (entry,)


def run_session(path, xs, lengths, states):
    """The outputs of the model by name. Inputs are those that it declares."""
    session = onnxruntime_session(path.read_bytes())
    feeds = {"X": xs, "sequence_lens": lengths.astype(np.int32)}
    for k, entry in enumerate(states):
        for name in "hc":
            parts = [getattr(state, name) for state in directions_of(entry)]
            feeds[f"initial_{name}_{k}"] = np.stack(parts)
    declared = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    came = session.run(None, {name: np.asarray(feeds[name]) for name in declared})
    return dict(zip(names, came, strict=True))


def assert_same_as_session(ours, came, empty=None):
    """`(states, ys)` of ours beside a session's outputs; there an empty row ends in zeros."""
    states, ys = ours
    np.testing.assert_allclose(ys, came.pop("Y"), rtol=1e-6, atol=1e-6)
    for k, entry in enumerate(states):
        for name in "hc":
            stacked = np.stack([getattr(state, name) for state in directions_of(entry)])
            if empty is not None:
                stacked[:, empty] = 0
            np.testing.assert_allclose(stacked, came.pop(f"Y_{name}_{k}"), rtol=1e-6, atol=1e-6)
    assert not came


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_onnxruntime_runs_a_stack(tmp_path, bidirectional, ragged):
    params, states = draw_stack(bidirectional)
    xs, path = np.asarray(draw_array(9, (T, B, D))), tmp_path / "stack.onnx"
    save(path, params, lengths=ragged, initial_states=ragged)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    came = run_session(path, xs, LENGTHS, states)
    if not ragged:
        return assert_same_as_session(jax.jit(jlstm.unroll_stack)(params, xs), came)
    mask = jlstm.length_mask(LENGTHS, T)
    ours = jax.jit(jlstm.unroll_stack)(params, xs, states, mask=mask)
    assert_same_as_session(ours, came, empty=1)


@pytest.mark.parametrize("coupled", [False, True])
def test_onnxruntime_runs_a_stack_with_options(tmp_path, coupled):
    """Peepholes, a bound and other activations; a direction without peepholes beside one with."""
    options = Options(OPTIONS.f, OPTIONS.g, OPTIONS.h, OPTIONS.clip, coupled)
    params, states = draw_stack(True, partial(draw_peepholes, coupled=coupled))
    first, second = params
    params = first._replace(backward=first.backward._replace(P=None)), second
    xs, path = np.asarray(draw_array(9, (T, B, D))), tmp_path / "stack.onnx"
    save(path, params, options=options, initial_states=True)
    came = run_session(path, xs, LENGTHS, states)
    run = partial(jlstm.unroll_stack, cell=cells.general(options))
    ours = jax.jit(run)(params, xs, states)
    assert_same_as_session(ours, came)
    ys = xs
    for node, entry in zip(load_all(path).values(), states, strict=True):
        h, c = (np.stack([getattr(one, name) for one in entry]) for name in "hc")
        Y, _, _ = node.apply(node.params, ys, initial_h=h, initial_c=c)
        ys = Y.swapaxes(1, 2).reshape(T, B, -1)
    np.testing.assert_allclose(ys, ours[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_there_and_back_is_exact_to_the_bit(x64, tmp_path, dtype, bidirectional):
    params, _ = draw_stack(bidirectional)
    params = jax.tree.map(lambda p: np.array(p.astype(dtype)), params)
    for one in directions_of(params[0]):
        one.b[:3] = 0.0, -0.0, np.inf
    save(tmp_path / "stack.onnx", params)
    nodes = load_all(tmp_path / "stack.onnx")
    assert list(nodes) == ["lstm_0", "lstm_1"]
    again = tuple(node.params.weights for node in nodes.values())
    assert jax.tree.structure(again) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("coupled", [False, True])
def test_peepholes_come_back_to_the_bit(tmp_path, coupled):
    params, _ = draw_stack(True, partial(draw_peepholes, coupled=coupled))
    save(tmp_path / "stack.onnx", params, options=Options(coupled=coupled))
    nodes = load_all(tmp_path / "stack.onnx").values()
    jax.tree.map(
        np.testing.assert_array_equal, tuple(node.params.weights for node in nodes), params
    )


def test_times_and_rows_are_left_open(tmp_path):
    params, _ = draw_stack(True)
    save(tmp_path / "stack.onnx", params)
    session = onnxruntime_session((tmp_path / "stack.onnx").read_bytes())
    shapes = {value.name: value.shape for value in session.get_outputs()}
    assert shapes["Y"] == ["T", "B", 4] and shapes["Y_h_0"] == [2, "B", 4]
    for steps, rows in [(1, 1), (7, 2)]:
        Y: Any = session.run(["Y"], {"X": np.ones((steps, rows, D), np.float32)})[0]
        assert Y.shape == (steps, rows, 4)


LAYER = draw_params(0, D, 4)


@pytest.mark.parametrize(
    "params, options, kind, message",
    [
        (LAYER, Options(), TypeError, "params: expected a tuple with an entry a layer"),
        ((), Options(), ValueError, "params: expected one or more entries"),
        ((LAYER, LAYER), Options(), ValueError, r"params\[1\]: expected 4 input features after"),
        (({"W": 1},), Options(), TypeError, r"params\[0\]: expected LSTMParams or PeepholeParams"),
        ((LAYER._replace(b=LAYER.W),), Options(), ValueError, r"params\[0\]: expected PeepholePar"),
        ((LAYER,), Options(coupled=True), ValueError, r"params\[0\]: expected PeepholeParams"),
        ((LAYER,), {"clip": 1.0}, TypeError, "options: expected Options"),
        (
            (Bidirectional(LAYER, draw_params(1, D, 2)),),
            Options(),
            ValueError,
            r"params\[0\]: expected two directions of one size",
        ),
        (
            (LAYER._replace(W=np.broadcast_to(np.float32(0), (2**26, 16))),),
            Options(),
            ValueError,
            "params: a file of ONNX holds less than 2 GiB",
        ),
    ],
)
def test_what_cannot_be_written_is_named_and_touches_nothing(
    tmp_path, params, options, kind, message
):
    path = tmp_path / "stack.onnx"
    path.write_bytes(b"what was there")
    with pytest.raises(kind, match=message):
        save(path, params, options=options)
    assert path.read_bytes() == b"what was there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["stack.onnx"]


def test_flags_that_are_none():
    for name in ("lengths", "initial_states"):
        flags: Any = {name: 1}
        with pytest.raises(TypeError, match=f"{name}: expected True or False"):
            save("stack.onnx", (LAYER,), **flags)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="missing"):
        save(tmp_path / "missing" / "stack.onnx", (LAYER,))
