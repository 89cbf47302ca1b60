"""How a sequence runs: by the derivative rule or a plain scan, compiled once for each cell.

A cell with a layout is compiled once for each set of static options, so an eager call runs as fast
as one under `jit`. A function of your own runs by a plain scan, and is traced at each call.
"""

from dataclasses import replace
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jlstm._src.cell import Cell, equations_of, is_elementwise, layout_of
from jlstm._src.derivative import Options, run_affine
from jlstm._src.scan import Steps, held, scaled, scan_chunks, scan_steps
from jlstm._src.sharding import explicit_mesh, parts_of, result_shardings, spec_of, with_auto_axes

CONFIG: Any = jax.config  # whose attributes are made at run time


class Arguments(NamedTuple):
    """The arguments of a run, checked and converted.

    params: in the dtype of the outputs, for a cell of jlstm.
    state, initial_state: as the scan carries them.
    steps: inputs `[T, *B, …]`, safe to compute with at skipped steps, and flags.
    """

    params: Any
    state: Any
    initial_state: Any
    steps: Steps


def run(cell: Cell, arguments: Arguments, options: Options) -> tuple[Any, Any]:
    """Runs a cell over a sequence, and returns `(final_state, out)`.

    The derivative rule neither sees arrays that the equations close over nor orders effects. A cell
    with either takes a plain scan, as does any cell under `jax.disable_jit`.
    """
    T = jax.tree.leaves(arguments.steps)[0].shape[0]
    if isinstance(options.chunk, int) and not isinstance(T, int):
        raise ValueError(f"chunk: expected None or 'auto' for a symbolic T, got {options.chunk}")
    layout = layout_of(cell)
    if layout is None or CONFIG.jax_disable_jit or not _is_pure(cell, arguments):
        return _scan(cell, options, arguments)
    options = replace(options, platform=_platform(arguments))
    mesh = explicit_mesh(arguments)
    if mesh is None:
        return _compiled(cell)(options, None, arguments)
    params, _, _, steps = arguments
    state, states = result_shardings(mesh, layout, params, steps.x)
    shardings = state, states if options.return_states else states.h
    options = replace(options, shards=parts_of(mesh, spec_of(steps.x)[1:-1]))
    return _compiled(cell)(options, (mesh, shardings), arguments)


@lru_cache(maxsize=128)
def _compiled(cell):
    """The compiled run of a cell. The bound keeps fresh cells from holding memory for ever."""

    def run(options, explicit, arguments):
        function = partial(_run, cell, options)
        if explicit is not None:
            function = with_auto_axes(function, *explicit)
        return function(arguments)

    return jax.jit(run, static_argnums=(0, 1))


def _run(cell, options, arguments):
    """Runs a cell by the derivative rule if it has one, else by a plain scan."""
    equations = equations_of(cell)
    plain = options.plan is not None and options.plan.derivative == "plain"
    if equations is None or plain:
        return _scan(cell, options, arguments)
    params, state, initial_state, steps = arguments
    state = _varying_like(arguments, state)
    options = replace(options, elementwise=is_elementwise(cell))
    return run_affine(equations, options, params, state, initial_state, steps)


def _scan(cell, options, arguments):
    """A plain scan of a cell, which JAX differentiates."""
    params, state, initial_state, steps = arguments
    state = _varying_like(arguments, state)
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
    """A step whose h_tm1 is scaled, and whose units keep a fraction of the old state."""
    x, noise = now
    after, _ = step(before._replace(h=scaled(noise, before.h)), x)
    after = held(noise, before, after)
    return after, after.h


def _is_pure(cell, arguments):
    """Whether a cell depends on no traced array but its arguments, and has no effects."""
    params, state, _, (xs, *_) = arguments
    struct = jax.ShapeDtypeStruct  # without a sharding, of which the answer is independent
    params, state = jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), (params, state))
    closed = jax.make_jaxpr(cell)(params, state, struct(xs.shape[1:], xs.dtype))
    return not closed.effects and not any(isinstance(const, Tracer) for const in closed.consts)


def _varying_like(inputs, state):
    """`state`, varying over every axis of a `shard_map` over which inputs vary, as a carry must.

    Choosing between equals marks it, and XLA removes the choice.
    """
    if explicit_mesh(inputs) is not None:
        return state
    leaves = jax.tree.leaves(inputs)
    flags = [jax.lax.full_like(leaf, False, bool, shape=()) for leaf in leaves]
    flag = reduce(jnp.logical_or, flags)
    return jax.tree.map(lambda leaf: jnp.where(flag, leaf, leaf), state)


def _platform(arguments):
    """The platform of the arguments if they have a device already, else of the default device."""
    for leaf in jax.tree.leaves(arguments):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer):
            return next(iter(leaf.devices())).platform
    device = CONFIG.jax_default_device
    return getattr(device, "platform", device) or jax.default_backend()
