"""Each task against its definition, by slow checkers in plain Python that share no code with it."""

import itertools
import re
from functools import cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jlstm.experiments import tasks
from jlstm.experiments.tasks.task import Batch
from tests.helpers.keys import keys_of

MANY = 2000


@cache
def sampler(name, length=None):
    """`(task, key -> batch)`, the batch as NumPy's."""
    task = tasks.named(name, length=length)
    sample = jax.jit(lambda key: task.sample(key, MANY))
    return task, lambda key: jax.tree.map(np.asarray, sample(key))


@cache
def drawn(name, length=None):
    """`(task, batch)`."""
    task, sample = sampler(name, length)
    return task, sample(jax.random.key(7))


def sequences(batch):
    """Row by row, cut to its length: `(xs [T, D], place)`."""
    xs, mask = batch.xs, batch.mask
    for place in range(xs.shape[1]):
        steps = len(xs) if mask is None else int(mask[:, place].sum())
        if mask is not None:
            assert mask[:steps, place].all() and not mask[steps:, place].any()
            assert not xs[steps:, place].any()
        yield xs[:steps, place], place


def judge(task, outputs, batch):
    """Loss, metric and which are correct, as NumPy's."""
    judgement = jax.jit(
        lambda *given: (task.loss(*given), task.metric(*given), task.correct(*given))
    )
    loss, metric, correct = judgement(jnp.asarray(outputs, jnp.float32), batch)
    return float(loss), float(metric), np.asarray(correct)


# --- adding


def test_adding_of_1997_against_its_definition():
    task, batch = drawn("adding", 40)
    lengths, firsts, seconds = [], set(), set()
    for xs, place in sequences(batch):
        numbers, markers = xs.T
        lengths.append(len(xs))
        assert (abs(numbers) <= 1).all()
        assert markers[0] == markers[-1] == -1 and set(markers[1:-1]) <= {0, 1}
        marked = [t for t, marker in enumerate(markers) if marker == 1]
        assert 1 <= len(marked) <= 2 and marked[-1] < 20
        target = 0.5 + sum(float(numbers[t]) for t in marked) / 4
        np.testing.assert_allclose(batch.targets[place], target, atol=1e-6)
        if len(marked) == 2:
            assert marked[0] < 10
            firsts.add(marked[0])
            seconds.add(marked[1])
    assert set(lengths) == set(range(40, 45))
    assert firsts == set(range(1, 10)) and seconds == set(range(2, 20))
    numbers = batch.xs[..., 0][batch.mask]
    assert abs(numbers.mean()) < 0.02 and abs(numbers.var() - 1 / 3) < 0.01


def test_the_trivial_answer_to_adding_scores_its_baseline():
    for name, mean, tolerance in (("adding", 0.5, 0.002), ("adding-2016", 1.0, 0.01)):
        task, batch = drawn(name, 40)
        loss, _, _ = judge(task, np.full((MANY, 1), mean), batch)
        assert abs(loss - task.baseline) < tolerance
    assert tasks.adding(100, form="2016").baseline == 1 / 6


def test_adding_of_2016_against_its_definition():
    _, batch = drawn("adding-2016", 40)
    firsts, seconds = set(), set()
    for xs, place in sequences(batch):
        numbers, markers = xs.T
        first, second = (t for t, marker in enumerate(markers) if marker == 1)
        assert np.count_nonzero(markers) == 2 and first < 20 <= second
        assert ((numbers >= 0) & (numbers < 1)).all()
        np.testing.assert_allclose(batch.targets[place], numbers[first] + numbers[second], 1e-6)
        firsts.add(first)
        seconds.add(second)
    assert firsts == set(range(20)) and seconds == set(range(20, 40))


def test_adding_is_correct_below_an_error_of_4_hundredths():
    task, batch = drawn("adding", 40)
    errors = np.resize([0.0, 0.039, -0.039, 0.041, -0.041], MANY)
    loss, metric, correct = judge(task, (batch.targets + errors)[:, None], batch)
    np.testing.assert_array_equal(correct, abs(errors) < 0.04)
    np.testing.assert_allclose([loss, metric], [float(np.mean(errors**2)), 0.6], rtol=1e-4)


# --- copy memory


def test_copy_memory_against_its_definition():
    _, batch = drawn("copy", 7)
    assert batch.xs.shape == (27, MANY, 10) and batch.mask is None
    for xs, place in sequences(batch):
        symbols = xs.argmax(axis=1).tolist()
        assert (xs.sum(axis=1) == 1).all() and (xs.max(axis=1) == 1).all()
        shown = symbols[:10]
        assert max(shown) < 8 and symbols[10:] == [8] * 6 + [9] + [8] * 10
        assert batch.targets[:, place].tolist() == [8] * 17 + shown
    assert set(np.unique(batch.targets)) == set(range(9))


def test_copy_without_a_memory_scores_its_baseline():
    task, batch = drawn("copy", 7)
    outputs = np.zeros((27, MANY, 9))
    outputs[:17, :, 8] = 100  # the blank, surely; then any symbol but the blank
    outputs[17:, :, 8] = -100
    loss, metric, correct = judge(task, outputs, batch)
    np.testing.assert_allclose(loss, task.baseline, rtol=1e-5)
    assert task.baseline == pytest.approx(10 * np.log(8) / 27)
    assert abs(metric - 1 / 8) < 0.01 and not correct.any()
    right = 10 * np.eye(9)[batch.targets]
    right[-1, 0] = np.roll(right[-1, 0], 1)  # one symbol of one sequence is wrong
    _, metric, correct = judge(task, right, batch)
    assert metric == pytest.approx(1 - 0.1 / MANY) and correct.sum() == MANY - 1


# --- temporal order

SPANS = {"order-6a": [(10, 20), (50, 60)], "order-6b": [(10, 20), (33, 43), (66, 76)]}


@pytest.mark.parametrize("name", SPANS)
def test_temporal_order_against_its_definition(name):
    task, batch = drawn(name)
    places: list[set] = [set() for _ in SPANS[name]]
    seen, lengths = set(), set()
    for xs, place in sequences(batch):
        assert (xs.sum(axis=1) == 1).all() and (xs.max(axis=1) == 1).all()
        symbols = "".join("EBabcdXY"[k] for k in xs.argmax(axis=1))
        assert re.fullmatch("E[abcdXY]+B", symbols)
        at = [match.start() for match in re.finditer("[XY]", symbols)]
        assert len(at) == len(places)
        for t, found, (low, high) in zip(at, places, SPANS[name], strict=True):
            assert low <= t <= high
            found.add(t)
        order = "".join(symbols[t] for t in at)
        classes = ["".join(letters) for letters in itertools.product("XY", repeat=len(at))]
        assert batch.targets[place] == classes.index(order)
        seen.add(order)
        lengths.add(len(xs))
    assert len(seen) == task.output_size and lengths == set(range(100, 111))
    assert [(min(found), max(found)) for found in places] == SPANS[name]


@pytest.mark.parametrize("name", SPANS)
def test_temporal_order_is_correct_within_3_tenths(name):
    task, batch = drawn(name)
    classes = task.output_size
    wanted = np.eye(classes)[batch.targets]
    off = np.resize([0.29, 0.31], MANY)[:, None]
    outputs = np.where(wanted > 0, 1 - off, off)
    _, metric, correct = judge(task, np.log(outputs / (1 - outputs)), batch)
    np.testing.assert_array_equal(correct, off[:, 0] < 0.3)
    assert metric == pytest.approx(0.5)
    chance = np.full(
        (MANY, classes), np.log(1 / (classes - 1))
    )  # 1 / classes behind the logistic function
    loss, _, _ = judge(task, chance, batch)
    np.testing.assert_allclose(loss, task.baseline, rtol=0.02)


# --- embedded Reber grammar

_TAIL = "(?:X(?:T)*VP)*(?:S|XT*VV)"  # from where both branches of the grammar meet
REBER = f"B(?:TS*X{_TAIL}|PT*V(?:V|P{_TAIL}))E"
EMBEDDED = re.compile(f"B(?:T{REBER}T|P{REBER}P)E")


@cache
def grammar_strings(longest):
    """All strings of the grammar up to a length, found without its graph."""
    inner, whole = re.compile(REBER), []
    middle: list[str] = [""]
    for _ in range(longest - 6):
        middle = [start + symbol for start in middle for symbol in "TPSXV"]
        strings = [f"B{text}E" for text in middle]
        whole += [f"B{e}{s}{e}E" for s in strings if inner.fullmatch(s) for e in "TP"]
    return whole


def test_reber_strings_against_a_regular_expression():
    task, batch = drawn("reber")
    lengths = []
    for xs, place in sequences(batch):
        assert (xs.sum(axis=1) == 1).all() and (xs.max(axis=1) == 1).all()
        following = batch.targets.symbol[: len(xs), place]
        text = "".join("BTPSXVE"[k] for k in [*xs.argmax(axis=1), following[-1]])
        assert [text.index(text[0]), *("BTPSXVE".index(s) for s in text[1:])][1:] == list(following)
        assert len(text) == 41 or EMBEDDED.fullmatch(text)
        lengths.append(len(text))
    assert min(lengths) == 9 and np.mean(np.array(lengths) == 41) < 0.01
    assert task.baseline == pytest.approx(np.log(7))


def test_reber_s_legal_symbols_against_all_strings():
    """What may follow the first symbols of a string is what follows them in some string."""
    strings = grammar_strings(13)
    followers: dict[str, set] = {}
    for text in strings:
        for t in range(1, len(text)):
            followers.setdefault(text[:t], set()).add(text[t])
    _, batch = drawn("reber")
    for xs, place in sequences(batch):
        text = "".join("BTPSXVE"[k] for k in xs.argmax(axis=1))
        for t in range(1, 8):  # whatever comes next, a string may end with the thirteenth
            legal = batch.targets.legal[t - 1, place]
            assert {"BTPSXVE"[k] for k in np.flatnonzero(legal)} == followers[text[:t]]


def test_reber_is_correct_when_the_legal_symbols_are_largest():
    task, batch = drawn("reber")
    outputs = batch.targets.legal + 0.1 * np.random.default_rng(0).standard_normal((40, MANY, 7))
    _, metric, correct = judge(task, outputs, batch)
    assert correct.all() and metric == 1
    wrong = outputs.copy()
    last = int(batch.mask[:, 0].sum()) - 1
    wrong[last, 0, 0] = 5  # B never comes last
    wrong[last + 1 :, 1] = 0  # behind the end of most strings; nobody looks there
    wrong[~batch.mask] = np.nan
    loss, _, correct = judge(task, wrong, batch)
    assert not correct[0] and np.isfinite(loss)
    loss, _, _ = judge(task, np.zeros_like(outputs), batch)
    np.testing.assert_allclose(loss, task.baseline, rtol=1e-5)


def test_reber_remembers_the_second_symbol():
    _, batch = drawn("reber")
    for xs, place in sequences(batch):
        symbols = xs.argmax(axis=1)
        if len(xs) < 40:  # not cut
            assert batch.targets.legal[len(xs) - 2, place].sum() == 1
            assert batch.targets.legal[len(xs) - 2, place, symbols[1]]


# --- data


@pytest.mark.parametrize("name, T, D", [("digits-rows", 8, 8), ("digits-pixels", 64, 1)])
def test_digits_are_scikit_learn_s(name, T, D):
    task, batch = drawn(name)
    images, labels = load_digits(return_X_y=True)
    own = {image.tobytes(): k for k, image in enumerate((images / 16).astype(np.float32))}
    assert batch.xs.shape == (T, MANY, D)
    held_out = set()
    both: Any = task.validation, task.test
    for part in (batch, *(jax.tree.map(np.asarray, draw(None)) for draw in both)):
        kept = set()
        for place in range(part.xs.shape[1]):
            k = own[part.xs[:, place].tobytes()]
            assert part.targets[place] == labels[k]
            kept.add(k)
        assert len(kept) > 800 if part is batch else len(kept) in (359, 360)
        assert not kept & held_out and min(np.bincount(part.targets)) >= 20
        held_out |= kept


def test_digits_are_judged_by_the_largest_output():
    task, batch = drawn("digits-rows")
    outputs = np.eye(10)[batch.targets]
    outputs[: MANY // 4] = np.roll(outputs[: MANY // 4], 1, axis=1)
    _, metric, correct = judge(task, outputs, batch)
    assert metric == pytest.approx(0.75) and correct.sum() == MANY * 3 // 4
    loss, _, _ = judge(task, np.zeros((MANY, 10)), batch)
    np.testing.assert_allclose(loss, task.baseline, rtol=1e-5)


@pytest.mark.parametrize("difference", [False, True])
def test_forecasts_are_of_the_next_value_and_never_of_what_is_held_out(difference):
    N, window = 300, 10
    series = np.random.default_rng(0).standard_normal((N, 2)).cumsum(axis=0)
    series[:, 1] = 5 + 3 * series[:, 1]
    task = tasks.forecast(series, window=window, difference=difference)
    read = np.diff(series, axis=0, prepend=np.nan) if difference else series
    deviation = np.nanstd(read[:180], axis=0)
    inputs = (read - np.nanmean(read[:180], axis=0)) / deviation
    targets = np.append(np.diff(series, axis=0), [[np.nan, np.nan]], axis=0) / deviation

    def starts_of(batch, steps):
        batch = jax.tree.map(np.asarray, batch)
        for xs, place in sequences(batch):
            (start,) = np.flatnonzero(abs(inputs - xs[0]).max(axis=1) < 1e-6)
            np.testing.assert_allclose(xs, inputs[start : start + steps], atol=1e-5)
            expected = targets[start : start + steps]
            np.testing.assert_allclose(batch.targets[:, place], expected, atol=1e-5)
            yield int(start)

    learnt = set(starts_of(jax.jit(lambda k: task.sample(k, 2000))(jax.random.key(0)), window))
    assert min(learnt) < 10 and 160 < max(learnt) < 180 - window
    for held_out, begin in ((task.validation, 180), (task.test, 240)):
        found = list(starts_of(cast(Any, held_out)(None), 2 * window))  # a window to warm up
        assert found == [begin - 1 - window + window * k for k in range(6)]
        assert found[-1] + 2 * window == begin + 59  # the last target is the last value of the part


def test_a_forecast_is_scored_beside_simple_methods():
    """Persistence, a period ago, and a ridge regression, written out for one column."""
    N, window = 400, 8
    t = np.arange(N)
    noise = np.random.default_rng(1).standard_normal(N)
    x = np.sin(2 * np.pi * t / 7) + 0.2 * noise
    task = tasks.forecast(x[:, None], window=window)
    deviation, first = x[:240].std(), slice(window, 240)
    lags = np.stack([np.roll(x, k) for k in range(window, 0, -1)], axis=1)
    X = np.c_[np.ones(N), (lags - x[:240].mean()) / deviation]
    change = (x - lags[:, -1]) / deviation
    fits = [
        np.linalg.lstsq(
            np.r_[X[first], np.sqrt(penalty * 232) * np.eye(window + 1)],
            np.r_[change[first], np.zeros(window + 1)],
            rcond=None,
        )[0]
        for penalty in 10.0 ** np.arange(-4, 3)
    ]
    ridge = min(fits, key=lambda w: ((X[240:320] @ w - change[240:320]) ** 2).mean())
    guesses = {"persistence": lags[:, -1], "seasonal naive (7)": np.roll(x, 7)}
    guesses["ridge"] = lags[:, -1] + X @ ridge * deviation
    assert list(task.baselines) == list(guesses)
    for name, guess in guesses.items():
        error = ((guess - x) / deviation) ** 2
        expected = error[240:320].mean(), error[320:400].mean()
        np.testing.assert_allclose(task.baselines[name], expected, rtol=1e-6)
    assert task.solved_below == min(validation for validation, _ in task.baselines.values())
    assert task.baseline == task.baselines["persistence"][1]
    batch = cast(Any, task.test)(None)
    scored = jax.tree.map(lambda leaf: leaf[window:], batch)
    loss, metric, correct = judge(task, np.zeros((window, 10, 1)), scored)
    np.testing.assert_allclose([loss, metric], [task.baseline, 1], rtol=1e-5)
    assert not correct.any()
    loss, metric, correct = judge(task, scored.targets, scored)
    assert loss == metric == 0 and correct.all()


@pytest.mark.parametrize("difference", [False, True])
def test_a_series_with_missing_rows_is_masked(difference):
    """Rows with a NaN are skipped, and no target is scored that needs one."""
    N, window = 200, 10
    whole = np.random.default_rng(0).standard_normal((N, 2)).cumsum(axis=0)
    series = whole.copy()
    series[[7, 50, 51, 130, 170]] = np.nan
    series[[20, 150], 1] = np.nan
    task = tasks.forecast(series, window=window, difference=difference, missing=True)
    batch = jax.tree.map(np.asarray, cast(Any, task.test)(None))
    there = np.isfinite(batch.xs).all(axis=-1)
    np.testing.assert_array_equal(batch.mask, there)
    known = np.isfinite(batch.targets) & there[..., None]
    assert 0 < (~known).sum() < 40
    outputs = np.random.default_rng(1).standard_normal(batch.targets.shape)
    squares = np.where(known, (outputs - batch.targets) ** 2, 0)
    trivial = np.where(known, batch.targets**2, 0)
    loss, metric, correct = judge(task, outputs, batch)
    np.testing.assert_allclose(loss, squares.sum() / known.sum(), rtol=1e-5)
    np.testing.assert_allclose(metric, squares.sum() / trivial.sum(), rtol=1e-5)
    np.testing.assert_array_equal(correct, squares.sum(axis=(0, 2)) < trivial.sum(axis=(0, 2)))
    slope = jax.grad(task.loss)(jnp.asarray(outputs, jnp.float32), batch)
    assert np.isfinite(slope).all() and not np.asarray(slope)[~known].any()
    assert all(np.isfinite(losses).all() for losses in task.baselines.values())
    plain = tasks.forecast(whole, window=window, difference=difference)
    masked = tasks.forecast(whole, window=window, difference=difference, missing=True)
    assert masked.baselines == plain.baselines
    both = [judge(t, outputs, cast(Any, t.test)(None))[:2] for t in (plain, masked)]
    np.testing.assert_allclose(*both, rtol=1e-5)


# --- all of them


LENGTHS = {"adding": 40, "adding-2016": 40, "copy": 7}


# --- flip-flop


def test_a_flip_flop_holds_the_sign_of_the_last_pulse():
    task, batch = drawn("flip-flop")
    pulses = np.where(abs(batch.xs) > 0.5, np.sign(batch.xs), 0)  # beside noise of 0.1
    assert pulses[0].all()
    held = np.zeros_like(pulses[0])
    for t, now in enumerate(pulses):
        held = np.where(now == 0, held, now)
        np.testing.assert_array_equal(batch.targets[t], held)
    later = pulses[1:]
    assert abs((later != 0).mean() - 0.1) < 0.002 and abs(later.mean()) < 0.002
    noise = batch.xs - pulses
    assert abs(noise.std() - 0.1) < 0.001 and abs(noise.mean()) < 0.001
    clean = tasks.flip_flop(5, bits=2, rate=1.0, noise=0.0).sample(jax.random.key(0), 4)
    np.testing.assert_array_equal(clean.xs, clean.targets)


def test_a_flip_flop_is_correct_within_a_half():
    task, batch = drawn("flip-flop")
    errors = np.zeros(batch.targets.shape)
    errors[3, :, 1] = np.resize([0.0, 0.49, -0.49, 0.51, -0.51], MANY)
    loss, metric, correct = judge(task, batch.targets + errors, batch)
    np.testing.assert_array_equal(correct, abs(errors[3, :, 1]) < 0.5)
    assert metric == pytest.approx(0.6) and loss == pytest.approx((errors**2).mean(), rel=1e-4)
    assert judge(task, 0 * errors, batch)[0] == task.baseline == 1


@pytest.mark.parametrize("name", [name for name in tasks.NAMES if name != "forecast"])
def test_tasks_say_what_they_are(name):
    drawn_at = (name, LENGTHS[name]) if name in LENGTHS else (name,)
    task, batch = drawn(*drawn_at)
    assert task.name == name and 0 < task.share <= 1 and task.recent >= 100
    T, D = tasks.sizes(task)
    assert batch.xs.shape == (T, MANY, D)
    assert batch.xs.dtype == np.float32
    for held_out in filter(None, (task.validation, task.test)):
        assert jax.eval_shape(held_out, jax.random.key(0)).xs.shape[::2] == batch.xs.shape[::2]
    _, sample = sampler(*drawn_at)
    again, other = sample(jax.random.key(7)), sample(jax.random.key(8))
    np.testing.assert_array_equal(again.xs, batch.xs)
    assert not (other.xs == batch.xs).all()


@pytest.mark.parametrize("name", [name for name in tasks.NAMES if name != "forecast"])
def test_no_two_draws_of_a_batch_share_a_key(name):
    keys = keys_of(lambda key: tasks.named(name).sample(key, 2))
    assert set(keys.drawn.values()) == {1} and not keys.drawn.keys() & keys.split.keys()


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_a_series_of_ints_is_one_of_floats(dtype):
    series = (np.arange(120) % 7)[:, None]
    both = [tasks.forecast(s, window=5) for s in (series.astype(dtype), series.astype(float))]
    ours, theirs = (task.sample(jax.random.key(0), 3) for task in both)
    np.testing.assert_array_equal(ours.xs, theirs.xs)


REFUSED: dict[str, tuple[Any, type, str]] = {
    "length": (partial(tasks.adding, 19), ValueError, "length: expected at least 20, got 19"),
    "size": (
        partial(tasks.copy_memory, cast(int, 2.0)),
        TypeError,
        "length: expected an int, got float 2.0",
    ),
    "order": (partial(tasks.temporal_order, length=9), ValueError, "length: expected at least 20"),
    "form": (partial(tasks.adding, form="1998"), ValueError, "form: expected '1997' or '2016'"),
    "rate": (partial(tasks.flip_flop, rate=1.5), ValueError, "rate: expected a probability"),
    "by": (partial(tasks.digits, "columns"), ValueError, "by: expected 'rows' or 'pixels'"),
    "name": (partial(tasks.named, "xor"), ValueError, "name: expected 'adding' or"),
    "fixed": (partial(tasks.named, "digits-rows", length=9), ValueError, "length: the task digits"),
    "no series": (partial(tasks.named, "forecast"), ValueError, "series: is missing"),
    "a series": (
        partial(tasks.named, "copy", series=np.ones((9, 1))),
        ValueError,
        "series: does not belong",
    ),
    "rank": (partial(tasks.forecast, np.ones(9)), ValueError, r"series: expected shape \[N, D\]"),
    "short": (
        partial(tasks.forecast, np.ones((100, 1))),
        ValueError,
        "series: expected at least 50 values in each fifth for windows of 50, got 20",
    ),
    "nan": (
        partial(tasks.forecast, np.array([[1.0], [np.nan]])),
        ValueError,
        r"series: expected finite numbers, got nan at \[1, 0\]",
    ),
    "inf": (
        partial(tasks.forecast, np.array([[1.0, -np.inf]])),
        ValueError,
        r"series: expected finite numbers, got -inf at \[0, 1\]",
    ),
    "period": (
        partial(tasks.forecast, np.ones((100, 1)), window=5, period=31),
        ValueError,
        "period: expected at most half of the 60 training values, got int 31",
    ),
    "constant": (
        partial(tasks.forecast, np.ones((100, 1)), window=5),
        ValueError,
        "series: a column is constant",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_task_is_refused(name):
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        make()


def test_a_batch_is_a_plain_tuple():
    assert Batch._fields == ("xs", "targets", "mask")
