"""The embedded Reber grammar: predict the next symbol, and remember the second one.

H&S: Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import one_hot
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from jlstm._src.checks import check_size
from jlstm._src.dtypes import Array
from jlstm.experiments.tasks.task import Batch, Task, share_correct

SYMBOLS = "BTPSXVE"

# The Reber grammar: two equally likely edges from each state, a symbol and the next state.
_REBER = [pair.split() for pair in "B1 B1, T2 P3, S2 X4, T3 V5, X3 S6, P4 V6, E7 E7".split(",")]


def _embed():
    """Makes the grammar of B, T or P, a string of the Reber grammar, the same T or P, and E.

    State 0 gives B, 1 chooses T or P, 2 to 8 are the grammar after T and 9 repeats T, 10 to 17 do
    the same for P, 18 gives E, and 19 is the end.
    """
    edges = [["B1", "B1"], ["T2", "P10"]]
    for start, symbol in ((2, "T"), (10, "P")):
        edges += [[f"{edge[0]}{int(edge[1]) + start}" for edge in state] for state in _REBER]
        edges += [[f"{symbol}18"] * 2]
    edges += [["E19", "E19"], ["E19", "E19"]]
    symbols = [[SYMBOLS.index(edge[0]) for edge in state] for state in edges]
    following = [[int(edge[1:]) for edge in state] for state in edges]
    return np.array(symbols, np.int32), np.array(following, np.int32)


_SYMBOL, _NEXT = _embed()  # [state, edge]
_LEGAL = np.eye(len(SYMBOLS), dtype=bool)[_SYMBOL].any(axis=1)  # [state, symbol]
_END = len(_SYMBOL) - 1


class Next(NamedTuple):
    """Targets: the next symbols, int `[T, B]`, and those that the grammar allows, `[T, B, 7]`."""

    symbol: Array
    legal: Array


def embedded_reber(longest: int = 40) -> Task:
    """Makes the task of predicting strings of the embedded Reber grammar, `xs [T, B, 7]`.

    The outputs at each step are logits of the next symbol. A string is correct if at each step the
    symbols that the grammar allows next have the largest outputs; the last step but one requires a
    memory of the second symbol. The criterion is 512 new strings in a row, as many as the training
    and test sets of H&S together. Strings are cut after `longest` + 1 symbols; of 100,000 strings
    4 have more than 41.

    >>> import jax
    >>> task = embedded_reber()
    >>> task.sample(jax.random.key(0), 64).xs.shape
    (40, 64, 7)
    """
    check_size("longest", longest)

    def sample(key, batch_size):
        coins = jax.random.randint(key, (longest + 1, batch_size), 0, 2)

        def step(state, coin):
            return jnp.asarray(_NEXT)[state, coin], (state, jnp.asarray(_SYMBOL)[state, coin])

        _, (states, symbols) = jax.lax.scan(step, jnp.zeros(batch_size, _NEXT.dtype), coins)
        mask = states[1:] != _END
        xs = one_hot(jnp.where(mask, symbols[:-1], -1), len(SYMBOLS))
        return Batch(xs, Next(symbols[1:], jnp.asarray(_LEGAL)[states[1:]]), mask)

    def correct(outputs, batch):
        legal = batch.targets.legal
        least_legal = jnp.where(legal, outputs, jnp.inf).min(axis=-1)
        most_illegal = jnp.where(legal, -jnp.inf, outputs).max(axis=-1)
        return ((least_legal > most_illegal) | ~batch.mask).all(axis=0)

    def loss(outputs, batch):
        losses = cross_entropy(outputs, batch.targets.symbol)
        return jnp.where(batch.mask, losses, 0).sum() / batch.mask.sum().astype(losses.dtype)

    return Task(
        sample,
        metric=share_correct(correct),
        correct=correct,
        name="reber",
        output_size=len(SYMBOLS),
        answers="every",
        loss=loss,
        metric_name="share of strings with the allowed symbols largest at every step",
        recent=512,
        criterion="512 new strings in a row with the allowed symbols largest at every step",
        baseline=math.log(len(SYMBOLS)),
    )
