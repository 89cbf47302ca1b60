"""Tasks from data: handwritten digits, and one-step forecasts of your own series."""

import jax
import jax.numpy as jnp
import numpy as np
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from jlstm._src.checks import check_choice, check_floats, check_size, describe
from jlstm._src.dtypes import Array
from jlstm._src.modules import extra
from jlstm.experiments.tasks.task import Batch, Task, share_correct


def digits(by: str = "rows") -> Task:
    """Makes the task of classifying handwritten digits, read as a sequence.

    The data are the 1,797 images of 8 x 8 pixels of scikit-learn (extra `[data]`), read by "rows",
    `xs [8, B, 8]`, or by "pixels", `xs [64, B, 1]`, with values from 0 to 1. Every fifth image is
    in the test. Sequential reading follows Le, Jaitly & Hinton, "A simple way to initialize
    recurrent networks of rectified linear units", 2015.

    >>> import jax
    >>> task = digits()
    >>> task.test(jax.random.key(0)).xs.shape
    (8, 360, 8)
    """
    check_choice("by", by, ("rows", "pixels"))
    with extra("data"):
        from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    shape = (len(images), 8, 8) if by == "rows" else (len(images), 64, 1)
    sequences = (images / 16).reshape(shape).swapaxes(0, 1).astype(np.float32)  # [T, N, D]
    labels = labels.astype(np.int32)
    kept = np.arange(len(labels)) % 5 == 0

    def sample(key, batch_size):
        rows = jax.random.randint(key, (batch_size,), 0, int((~kept).sum()))
        return Batch(jnp.asarray(sequences[:, ~kept])[:, rows], jnp.asarray(labels[~kept])[rows])

    def correct(outputs, batch):
        return outputs.argmax(axis=-1) == batch.targets

    return Task(
        name=f"digits-{by}",
        steps=shape[1],
        input_size=shape[2],
        output_size=10,
        answers="last",
        sample=sample,
        test=lambda key: Batch(jnp.asarray(sequences[:, kept]), jnp.asarray(labels[kept])),
        loss=lambda outputs, batch: cross_entropy(outputs, batch.targets).mean(),
        correct=correct,
        metric=share_correct(correct),
        metric_name="share of the test images that are recognised",
        recent=1000,
        share=0.95,
        criterion="950 of the last 1,000 training images recognised (of jlstm)",
        baseline=float(np.log(10)),
    )


def forecast(series: Array, *, window: int = 50) -> Task:
    """Makes the task of forecasting a series: its values at t + 1 from those up to t.

    The model learns from random windows in the first four fifths of the series; the test has
    adjacent windows in the rest. Both are standardised by the mean and standard deviation of the
    first part. The outputs are differences to the value at t. The trivial answer, zero, is
    persistence, and its mean squared error is the baseline.

    Args:
      series: `[N, D]`, of finite floats or ints.
      window: T, the number of forecasts in a window.

    Raises:
      TypeError, ValueError: the series is not an array of numbers, has a number that is not finite,
        is too short for a window in both parts, or is constant in a column.

    >>> import jax, numpy as np
    >>> task = forecast(np.sin(np.arange(500.0))[:, None], window=20)
    >>> task.sample(jax.random.key(0), 64).xs.shape, task.test(jax.random.key(0)).xs.shape
    ((20, 64, 1), (20, 4, 1))
    """
    if getattr(getattr(series, "dtype", None), "kind", "") not in tuple("iu"):
        check_floats("series", series)
    check_size("window", window)
    if series.ndim != 2:
        raise ValueError(f"series: expected shape [N, D], got {describe(series)}")
    series = np.asarray(series, np.float64)
    if not np.isfinite(series).all():
        row, column = np.argwhere(~np.isfinite(series))[0]
        got = f"{series[row, column]} at [{row}, {column}]"
        raise ValueError(f"series: expected finite numbers, got {got}")
    split = len(series) * 4 // 5
    if len(series) - split < window + 1:
        least = f"at least {window + 1} values in its last fifth for windows of {window}"
        raise ValueError(f"series: expected {least}, got {len(series) - split}")
    mean, deviation = series[:split].mean(axis=0), series[:split].std(axis=0)
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        raise ValueError("series: a column is constant, or too large, where it is learnt from")
    learnt, kept = np.split(((series - mean) / deviation).astype(np.float32), [split])
    D = series.shape[1]

    def windows(values, starts):
        steps = starts[None] + jnp.arange(window + 1)[:, None]
        values = jnp.asarray(values)[steps]  # [T + 1, B, D]
        return Batch(values[:-1], values[1:] - values[:-1])

    def errors(outputs, batch):
        """Computes the mean squared error of each window, `[B]`; the output 0 is persistence."""
        return ((outputs - batch.targets) ** 2).mean(axis=(0, 2))

    tests = (len(kept) - 1) // window
    return Task(
        name="forecast",
        steps=window,
        input_size=D,
        output_size=D,
        answers="every",
        sample=lambda key, batch_size: windows(
            learnt, jax.random.randint(key, (batch_size,), 0, split - window)
        ),
        test=lambda key: windows(kept, window * jnp.arange(tests)),
        loss=lambda outputs, batch: errors(outputs, batch).mean(),
        correct=lambda outputs, batch: errors(outputs, batch) < errors(0, batch),
        metric=lambda outputs, batch: errors(outputs, batch).mean() / errors(0, batch).mean(),
        metric_name="mean squared error over that of persistence",
        recent=1000,
        share=0.95,
        criterion="950 of the last 1,000 training windows better than persistence (of jlstm)",
        baseline=float(np.square(np.diff(kept[: tests * window + 1], axis=0)).mean()),
    )
