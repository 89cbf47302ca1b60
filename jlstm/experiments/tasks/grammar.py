"""The embedded Reber grammar: to predict the next symbol, and to remember the second.

Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, experiment 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import one_hot

from jlstm._src.checks import check_size
from jlstm._src.dtypes import Array
from jlstm.experiments.tasks.task import (
    Batch,
    Task,
    cross_entropy,
    every_step,
    mean_over_steps,
    share_correct,
)

SYMBOLS = "BTPSXVE"

# The Reber grammar: from each state two edges, both equally likely, to a symbol and a state.
_REBER = [
    ["B1", "B1"],
    ["T2", "P3"],
    ["S2", "X4"],
    ["T3", "V5"],
    ["X3", "S6"],
    ["P4", "V6"],
    ["E7", "E7"],
]


def _embed(reber):
    """B, then T or P, then a string of the grammar, then the same T or P, then E.

    State 0 gives B, 1 chooses T or P, 2 to 8 are the grammar behind T and 9 its T again, 10 to 17
    the same for P, 18 gives E, and 19 is the end, where nothing is given.
    """
    edges = [["B1", "B1"], ["T2", "P10"]]
    for start, symbol in ((2, "T"), (10, "P")):
        edges += [[f"{edge[0]}{int(edge[1]) + start}" for edge in state] for state in reber]
        edges += [[f"{symbol}18"] * 2]
    edges += [["E19", "E19"], ["E19", "E19"]]
    symbols = [[SYMBOLS.index(edge[0]) for edge in state] for state in edges]
    following = [[int(edge[1:]) for edge in state] for state in edges]
    return np.array(symbols, np.int32), np.array(following, np.int32)


_SYMBOL, _NEXT = _embed(_REBER)  # [state, edge]
_LEGAL = np.zeros((len(_SYMBOL), len(SYMBOLS)), bool)  # which symbols may come
for _edge in range(2):
    _LEGAL[np.arange(len(_SYMBOL)), _SYMBOL[:, _edge]] = True
_END = len(_SYMBOL) - 1


class Next(NamedTuple):
    """What follows each symbol.

    symbol: int `[T, B]`, the one that came.
    legal: bool `[T, B, 7]`, those that could have come.
    """

    symbol: Array
    legal: Array


def embedded_reber(longest: int = 40) -> Task:
    """Strings of the embedded Reber grammar, symbol by symbol, `xs [T, B, 7]`.

    The outputs at each step are logits of the next symbol. A string counts as correct when at each
    step those symbols that the grammar allows next have the largest outputs; at the last step but
    one that takes a memory of the second symbol. Solved when 512 strings in a row were correct,
    as many as the training and the test set of H&S together, but each of them unseen.

    Strings are cut behind `longest` + 1 symbols; of 100,000 strings 4 have more than 41.

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
        return every_step(least_legal > most_illegal, batch.mask)

    def loss(outputs, batch):
        return mean_over_steps(cross_entropy(outputs, batch.targets.symbol), batch.mask)

    return Task(
        name="reber",
        steps=longest,
        input_size=len(SYMBOLS),
        output_size=len(SYMBOLS),
        answers="every",
        sample=sample,
        test=lambda key: sample(key, 1000),
        loss=loss,
        correct=correct,
        metric=share_correct(correct),
        metric_name="share of strings with the allowed symbols largest at every step",
        recent=512,
        share=1.0,
        criterion="512 new strings in a row with the allowed symbols largest at every step",
        baseline=math.log(len(SYMBOLS)),
    )
