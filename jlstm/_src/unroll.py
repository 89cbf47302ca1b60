"""`unroll`: a cell scanned over time, with resets, masks, direction and time chunks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jlstm._src.cell import Cell, Layout, check_state, layout_of, sizes_of, state_like, zeros_like
from jlstm._src.checks import check, check_flags, check_floats, describe, is_array, is_key
from jlstm._src.dtypes import Array, as_dtype, common_dtype
from jlstm._src.lstm import lstm
from jlstm._src.masks import select
from jlstm._src.modules import set_module
from jlstm._src.plan import Chunk, Plan
from jlstm._src.run import Arguments, read_options, run
from jlstm._src.scan import Steps


@set_module("jlstm")
def unroll(
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    initial_state: Any = None,
    reset: Array | None = None,
    mask: Array | None = None,
    reverse: bool = False,
    cell: Cell = lstm,
    return_states: bool = False,
    chunk: Chunk = "auto",
    plan: Plan | None = None,
) -> tuple[Any, Any]:
    """Runs a cell over a sequence.

        state, hs[t] = cell(params, state, xs[t])   for t = 0 … T - 1

    Args:
      params: `LSTMParams(W [D, 4H], U [H, 4H], b [4H])`, or the parameters of another cell.
      xs: `[T, *B, D]`, with any batch shape; for a cell of your own a pytree of arrays `[T, …]`.
      state: the state carried in, `LSTMState(h, c)` of `[*B, H]`, or of `[H]` for every row. None
        starts from `initial_state`.
      initial_state: the state in which sequences begin and which a reset restores, shaped like
        `state`. None is zeros. With a cell of your own, pass one of the two.
      reset: bool `[T, *B]`: a new sequence begins at t. The state before step t is `initial_state`,
        not the state carried in. With `reverse=True` t is still the first step of its sequence, so
        the state is restored after step t. No gradient crosses.
      mask: bool `[T, *B]`: False skips step t: the state is held and the output is zero. The values
        of `xs` there, NaN included, affect no result and no gradient. A reset still applies.
      reverse: runs from T - 1 to 0; `hs[t]` stays at index t.
      cell: `(params, state, x) -> (state, y)`: the LSTM, a cell of `jlstm.cells`, or your own.
      return_states: return the state after each step, `LSTMState` of `[T, *B, H]`, instead of `hs`.
      chunk: an int recomputes inside time chunks of that length in the reverse pass, with memory
        O(T / chunk + chunk) instead of O(T); None saves everything; "auto" picks the faster by
        `jlstm.plans.chunk_for`, for cells with a plan, and else saves everything.
      plan: choices of speed for the LSTM and cells made by `jlstm.cells.affine`. None means
        `jlstm.plans.plan_for`. Other cells ignore it: JAX differentiates their scan.

    Returns:
      `(final_state, hs [T, *B, H])`. `hs` has the dtype of `xs` and `params` together; the cell
      state is at least float32. If no step is taken, the final state is the state carried in.

    Raises:
      TypeError, ValueError: an argument is malformed; raised before anything is computed.

    >>> import jax, jlstm
    >>> params = jlstm.init(jax.random.key(0), 2, 3)
    >>> xs = jax.random.normal(jax.random.key(1), (10, 5, 2))
    >>> mask = jlstm.length_mask(jax.numpy.array([10, 7, 3, 1, 0]), 10)
    >>> state, hs = jax.jit(jlstm.unroll)(params, xs, mask=mask)
    >>> state.h.shape, hs.shape
    ((5, 3), (10, 5, 3))
    """
    options = read_options(reverse, return_states, chunk, plan)
    arguments = read_arguments(cell, params, xs, state, initial_state, reset, mask)
    return run(cell, arguments, options)


def read_arguments(
    cell: Cell, params: Any, xs: Any, state: Any, initial_state: Any, reset: Any, mask: Any
) -> Arguments:
    """Checks the arguments of `unroll`, and converts them for the scan."""
    given = {"state": state, "initial_state": initial_state}
    if layout := layout_of(cell):
        sizes = sizes_of("params", params, layout)
        check_floats("xs", xs)
        fits = xs.ndim > 1 and xs.shape[-1] == sizes["D"]
        check(fits, "xs", f"shape [T, *B, {sizes['D']}]", xs)
        check_sequence_flags(reset, mask, xs.shape[:-1])
        dtype = common_dtype(params, xs)
        like = carry_like(layout, sizes, xs.shape[1:-1], dtype, given)
        params, xs = as_dtype((params, xs), dtype)
    else:
        like = _own_carry_like(cell, params, xs, given)
        _check_own_flags(xs, like, reset, mask, initial_state)
    state, initial_state = fill_in(given, like)
    return Arguments(params, state, initial_state, safe_steps(xs, reset, mask))


def carry_like(
    layout: Layout, sizes: dict[str, int], batch_shape: tuple, dtype: Any, given: Mapping[str, Any]
) -> Any:
    """Returns the types of a carried state; checks the given states, or None, by their names."""
    like = state_like(layout, sizes, batch_shape, dtype)
    for name, state in given.items():
        if state is not None:
            check_state(name, state, like, len(batch_shape))
    return like


def _own_carry_like(cell, params, xs, given):
    """Returns the types of the state that a cell of your own returns; checks its arguments."""
    leaves = jax.tree.leaves(xs)
    check(all(map(is_array, leaves)), "xs", "arrays", xs, TypeError)
    has_T = leaves and leaves[0].ndim > 0 and len({leaf.shape[:1] for leaf in leaves}) == 1
    check(has_T, "xs", "one time axis in front", xs)
    check(callable(cell), "cell", "a function (params, state, x)", cell, TypeError)
    first = next((state for state in given.values() if state is not None), None)
    if first is None:
        raise ValueError("state: a cell of your own expects state or initial_state, got neither")
    x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], jax.typeof(x).dtype), xs)
    with jax.numpy_rank_promotion("allow"):  # as a state [H] may meet a batch
        returned = jax.eval_shape(cell, params, first, x)
        is_pair = isinstance(returned, tuple) and len(returned) == 2
        check(is_pair, "cell", "a pair (state, y)", returned, TypeError)
        like, _ = returned
        again, _ = jax.eval_shape(cell, params, like, x)
    if again != like:
        raise TypeError(f"cell: expected a state of one type, got {like} and then {again}")
    for name, state in given.items():
        if state is None:
            continue
        if jax.tree.structure(state) != jax.tree.structure(like):
            raise TypeError(f"{name}: expected {describe(like)}, got {describe(state)}")
        for leaf, to in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
            if to.shape[max(to.ndim - jnp.ndim(leaf), 0) :] != jnp.shape(leaf):
                raise ValueError(f"{name}: expected {describe(like)}, got {describe(state)}")
    return like


def fill_in(given: Mapping[str, Any], like: Any) -> tuple[Any, Any]:
    """Returns the state and the initial state as a scan carries them, of the types of `like`."""
    state, initial_state = given.values()

    def conform(leaf, to):
        leaf = jnp.asarray(leaf)
        leaf = leaf if leaf.dtype == to.dtype else leaf.astype(to.dtype)  # a key has no astype
        return jnp.broadcast_to(leaf, to.shape)

    if state is not None:
        state = jax.tree.map(conform, state, like)
    if initial_state is not None:
        initial_state = jax.tree.map(conform, initial_state, like)
    elif state is None:
        initial_state = zeros_like(like)
    else:  # a key has no zero
        initial_state = jax.tree.map(lambda s, to: s if is_key(to) else zeros_like(to), state, like)
    return initial_state if state is None else state, initial_state


def safe_steps(xs: Any, reset: Array | None, mask: Array | None) -> Steps:
    """Returns the inputs of a scan, with zeros at skipped steps, so that no NaN is computed."""
    xs, reset, mask = jax.tree.map(jnp.asarray, (xs, reset, mask))
    if mask is not None:
        xs = select(mask, xs, jax.tree.map(jnp.zeros_like, xs))
    return Steps(xs, reset, mask)


def check_sequence_flags(reset: Array | None, mask: Array | None, shape: tuple[int, ...]) -> None:
    """Checks that the flags are None or bool `[T, *B]`."""
    for name, flags in {"reset": reset, "mask": mask}.items():
        if flags is not None:
            check_flags(name, flags, shape)


def _check_own_flags(xs, like, reset, mask, initial_state):
    """Checks that flags are `[T, *B]`, as inputs and state, and that resets have a state."""
    for name, flags in {"reset": reset, "mask": mask}.items():
        if flags is None:
            continue
        check_flags(name, flags)
        T_B, B = flags.shape, flags.shape[1:]
        if T_B == () or any(leaf.shape[: len(T_B)] != T_B for leaf in jax.tree.leaves(xs)):
            got = f"{describe(flags)} with xs {describe(xs)}"
            raise ValueError(f"{name}: expected shape [T, *B], got {got}")
        has_B = all(leaf.shape[: len(B)] == B for leaf in jax.tree.leaves(like))
        check(has_B, "state", f"leading axes {[*B]} in each array, as in {name}", like)
    if reset is not None and initial_state is None and any(map(is_key, jax.tree.leaves(like))):
        expected = "a state that resets restore, as keys have no zero"
        raise ValueError(f"initial_state: expected {expected}, got None")
