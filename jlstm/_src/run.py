"""Runs a sequence by the derivative rule or a plain scan, compiled once for each cell.

A cell with a layout is compiled once for each set of static options, so an eager call runs as fast
as one under `jit`. A function of your own runs in a plain scan, and is traced at each call.
"""

from dataclasses import replace
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import PartitionSpec as P

from jlstm._src.cell import Cell, equations_of, is_elementwise, layout_of
from jlstm._src.checks import check_bool, check_chunk
from jlstm._src.derivative import Options, run_affine
from jlstm._src.plan import Chunk, Plan, check_plan
from jlstm._src.scan import held, scaled, scan_chunks, scan_steps
from jlstm._src.sharding import (
    batch_alone_is_sharded,
    by_shares,
    explicit_mesh,
    parts_of,
    result_shardings,
    spec_of,
    with_auto_axes,
)

CONFIG: Any = jax.config  # JAX creates its attributes at run time


class Arguments(NamedTuple):
    """The arguments of a run, checked and converted.

    params: in the dtype of the outputs, for a cell of jlstm.
    state, initial_state: as the scan carries them.
    steps: inputs `[T, *B, …]`, safe at skipped steps, and flags; None for a layer of a stack.
    """

    params: Any
    state: Any
    initial_state: Any
    steps: Any


def read_options(reverse: bool, return_states: bool, chunk: Chunk, plan: Plan | None) -> Options:
    """Checks the static options of `unroll`."""
    check_bool("reverse", reverse)
    check_bool("return_states", return_states)
    check_chunk(chunk)
    check_plan(plan)
    return Options(reverse, return_states, chunk, plan)


def run(cell: Cell, arguments: Arguments, options: Options) -> tuple[Any, Any]:
    """Runs a cell over a sequence, and returns `(final_state, out)`.

    The derivative rule supports neither effects nor tracers that the equations close over. A cell
    with either runs in a plain scan, as does any cell under `jax.disable_jit`.
    """
    T = jax.tree.leaves(arguments.steps)[0].shape[0]
    if isinstance(options.chunk, int) and not isinstance(T, int):
        raise ValueError(f"chunk: expected None or 'auto' for a symbolic T, got {options.chunk}")
    layout = layout_of(cell)
    if layout is None or CONFIG.jax_disable_jit or not _is_pure(cell, arguments):
        return _scan(cell, options, arguments)
    options = replace(options, platform=_platform(arguments))
    mesh, explicit, xs = explicit_mesh(arguments), None, arguments.steps.x
    if mesh is not None:
        state, states = result_shardings(mesh, layout, arguments.params, xs)
        explicit = mesh, (state, states if options.return_states else states.h)
        if arguments.steps.noise is None and batch_alone_is_sharded(arguments.params, xs):
            B = spec_of(xs)[1:-1]
            explicit += (Arguments(P(), P(*B), P(*B), P(None, *B)),)
        else:
            options = replace(options, shards=parts_of(mesh, spec_of(xs)[1:-1]))
    return _compiled(cell)(options, explicit, arguments)


@lru_cache(maxsize=128)
def _compiled(cell):
    """Returns the compiled run of a cell. The cache is bounded, which frees unused cells."""

    def run(options, explicit, arguments):
        function = partial(_run, cell, options)
        if explicit is not None:
            function = (by_shares if len(explicit) > 2 else with_auto_axes)(function, *explicit)
        return function(arguments)

    return jax.jit(run, static_argnums=(0, 1))


def _run(cell, options, arguments):
    equations = equations_of(cell)
    plain = options.plan is not None and options.plan.derivative == "plain"
    if equations is None or plain:
        return _scan(cell, options, arguments)
    options = replace(options, elementwise=is_elementwise(cell))
    return run_affine(equations, options, *_varying(arguments))


def _scan(cell, options, arguments):
    params, state, initial_state, steps = _varying(arguments)
    step = partial(cell, params)
    if steps.noise is not None:
        step = partial(_noisy_step, step)
        steps = steps._replace(x=(steps.x, steps.noise), noise=None)

    def segment(state, steps):
        scan = partial(scan_steps, options.reverse, options.return_states, step)
        final, (out, *_) = scan(state, initial_state, steps)
        return final, out

    chunk = None if options.chunk == "auto" else options.chunk
    with jax.named_scope("jlstm.unroll"):
        return scan_chunks(segment, state, steps, chunk, options.reverse)


def _noisy_step(step, before, now):
    """Takes a step with scaled h_tm1, in which units keep a fraction of the old state."""
    x, noise = now
    after, _ = step(before._replace(h=scaled(noise, before.h)), x)
    after = held(noise, before, after)
    return after, after.h


def _is_pure(cell, arguments):
    params, state, _, (xs, *_) = arguments
    struct = jax.ShapeDtypeStruct  # without a sharding, which does not matter here
    params, state = jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), (params, state))
    closed = jax.make_jaxpr(cell)(params, state, struct(xs.shape[1:], xs.dtype))
    return not closed.effects and not any(isinstance(const, Tracer) for const in closed.consts)


def _varying(arguments):
    """Makes parameters and state vary over a `shard_map`'s axes like the arguments.

    A carry must. Parameters that vary before the loop have gradients that are summed after it.
    """
    if explicit_mesh(arguments) is not None:
        return arguments
    leaves = jax.tree.leaves(arguments)
    flags = [jax.lax.full_like(leaf, False, bool, shape=()) for leaf in leaves]
    flag = reduce(jnp.logical_or, flags)  # XLA removes a choice between two equal arrays
    given = arguments.params, arguments.state
    params, state = jax.tree.map(lambda leaf: jnp.where(flag, leaf, leaf), given)
    if not jax.sharding.get_abstract_mesh().manual_axes:
        params = arguments.params
    return arguments._replace(params=params, state=state)


def _platform(arguments):
    """Returns the platform of the arguments if they are on a device, else of the default device."""
    for leaf in jax.tree.leaves(arguments):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            return next(iter(leaf.devices())).platform
    device = CONFIG.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()
