"""Handwritten digits as sequences."""

import jax
import jax.numpy as jnp
import numpy as np
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from jlstm._src.checks import check_choice
from jlstm._src.modules import extra
from jlstm.experiments.tasks.task import Batch, Task, share_correct


def digits(by: str = "rows") -> Task:
    """Makes the task of classifying handwritten digits, read as a sequence.

    The data are the 1,797 images of 8 x 8 pixels of scikit-learn (extra `[data]`), read by "rows",
    `xs [8, B, 8]`, or by "pixels", `xs [64, B, 1]`, with values from 0 to 1. Every fifth image is
    for the test, another for validation. Sequential reading follows Le, Jaitly & Hinton, "A simple
    way to initialize recurrent networks of rectified linear units", 2015.

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
    fifth = np.arange(len(labels)) % 5

    def images_where(at):
        return Batch(jnp.asarray(sequences[:, at]), jnp.asarray(labels[at]))

    def sample(key, batch_size):
        xs, targets, _ = images_where(fifth > 1)
        rows = jax.random.randint(key, (batch_size,), 0, len(targets))
        return Batch(xs[:, rows], targets[rows])

    def correct(outputs, batch):
        return outputs.argmax(axis=-1) == batch.targets

    return Task(
        name=f"digits-{by}",
        output_size=10,
        sample=sample,
        validation=lambda key: images_where(fifth == 1),
        test=lambda key: images_where(fifth == 0),
        loss=lambda outputs, batch: cross_entropy(outputs, batch.targets).mean(),
        correct=correct,
        metric=share_correct(correct),
        metric_name="share of the test images that are recognised",
        recent=1000,
        share=0.95,
        criterion="950 of the last 1,000 training images recognised (of jlstm)",
        baseline=float(np.log(10)),
    )
