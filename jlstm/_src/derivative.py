"""The derivative rule for the recurrence of an affine cell, and its primitive.

A cell of the form

    z_t = x_t W + h_tm1 U + b
    s_t = equations(params, s_tm1, z_t)

such as the LSTM with s = (h, c), has the tangents

    dz_t = dx_t W + x_t dW + h_tm1 dU + db  +  dh_tm1 U
    ds_t = the derivative of equations, linear in dparams, ds_tm1 and dz_t

The forward scan saves s_tm1 and the derivative of `equations` at each step, by `jax.linearize`; or
it saves s_tm1 alone and recomputes every z_t and the derivative. All terms of dz_t but the last are
computed for every t at once. The remaining scan carries ds alone. JAX transposes it to
backpropagation through time, in which the gradient of each weight is one product after the scan.
The rule is a `jax.custom_jvp`, as a `custom_vjp` would rule out forward mode.

The recurrence is also a primitive. Its batching rule turns an axis that `vmap` maps over sequences
into one more batch axis, before the plan is chosen. A scan of ordinary operations would keep the
axis apart, with slower products and the plan of a single sequence. Under differentiation, or with
mapped parameters, the primitive expands to the operations of `_run`.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jlstm._src.cell import Equations
from jlstm._src.dtypes import as_dtype
from jlstm._src.matmul import inputs_and_preactivation, matmul_flat, row, tangent_product
from jlstm._src.plan import SAVED, Chunk, Plan, settle
from jlstm._src.scan import Steps, held, scaled, scan_chunks, scan_steps


@dataclass(frozen=True)
class Options:
    """Static options of a run: `plan=None` means `plan_for`, `chunk="auto"` `chunk_for`.

    shards: the number of devices that share the batch; the plan is for the rows of one.
    elementwise: whether the equations are known not to mix rows of the batch.
    folded: the number of leading batch axes that `vmap` added, counted unless elementwise.
    platform: the platform of the devices.
    """

    reverse: bool = False
    return_states: bool = False
    chunk: Chunk = "auto"
    plan: Plan | None = None
    shards: int = 1
    elementwise: bool = True
    folded: int = 0
    platform: str = "cpu"


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def unroll_affine(
    equations, options: Options, plan: Plan, params, state, initial_state, steps: Steps
) -> tuple[Any, Any]:
    """Scans an affine cell with the derivative rule, and returns `(final_state, out)`."""
    inputs, preactivation = inputs_and_preactivation(plan, params, steps.x)

    def step(state, now):
        x, noise = now
        z = preactivation(x, scaled(noise, state.h))
        after = _act(equations, params, state, z, noise)
        return after, after.h

    scan = partial(scan_steps, options.reverse, options.return_states)
    now = steps._replace(x=(inputs, steps.noise))
    final, (out,) = scan(step, state, initial_state, now)
    return final, out


@unroll_affine.defjvp
def _unroll_affine_jvp(equations, options, plan, primals, tangents):
    params, state, initial_state, steps = primals
    d_params, d_state, d_initial_state, d_steps = tangents
    scan = partial(scan_steps, options.reverse, options.return_states)
    inputs, preactivation = inputs_and_preactivation(plan, params, steps.x)
    noise, d_noise = steps.noise, d_steps.noise
    recompute = plan.save == "states"

    def linearize(before, z, noise):
        return jax.linearize(partial(_act, equations), params, before, z, noise)

    def step(before, now):
        x, noise = now
        z = preactivation(x, scaled(noise, before.h))
        after, d_equations = linearize(before, z, noise)
        return after, after.h, before, None if recompute else d_equations

    now = steps._replace(x=(inputs, noise))
    final, (out, before, d_equations) = scan(step, state, initial_state, now)
    before = checkpoint_name(before, SAVED["states"])
    h = scaled(noise, before.h)
    if recompute:
        z = matmul_flat(steps.x, params.W) + matmul_flat(h, params.U)
        _, d_equations = jax.vmap(linearize)(before, z + row(params.b, z), noise)

    dz = matmul_flat(d_steps.x, params.W) + matmul_flat(steps.x, d_params.W)
    dz += matmul_flat(h, d_params.U)
    if noise is not None:
        dz += matmul_flat(scaled(d_noise, before.h), params.U)
    dz += row(d_params.b, dz)
    times_U = tangent_product(plan, params.U)

    def d_step(d_state, now):
        d_equations, dz, noise, d_noise = now
        dz += times_U(scaled(noise, d_state.h))
        d_after = d_equations(d_params, d_state, dz, d_noise)
        return d_after, d_after.h

    now = steps._replace(x=(d_equations, dz, noise, d_noise))
    d_final, (d_out,) = scan(d_step, d_state, d_initial_state, now)
    return (final, out), (d_final, d_out)


def _act(equations, params, state, z, noise):
    """Returns the next state, computed in the dtype of z, in the dtypes of `state`."""
    before = as_dtype(state, z.dtype)
    after = held(as_dtype(noise, z.dtype), before, equations(params, before, z))
    return jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)


def run_affine(
    equations: Equations, options: Options, params: Any, state: Any, initial_state: Any, steps: Any
) -> tuple[Any, Any]:
    """Runs an affine cell as one primitive, with the arguments and results of `unroll_affine`."""
    leaves, form = jax.tree.flatten((params, state, initial_state, steps))
    results = _recurrence.bind(*leaves, equations=equations, options=options, form=form)
    like = state, state if options.return_states else state.h
    return jax.tree.unflatten(jax.tree.structure(like), results)


def _run(*leaves, equations, options, form):
    params, state, initial_state, steps = form.unflatten(leaves)
    T, *B, D = steps.x.shape
    H, columns = params.U.shape
    gates = max(round(columns / H), 1)
    rows = math.prod(B) // options.shards
    plan, chunk = settle(options.plan, options.chunk, T, rows, D, H, gates, options.platform)
    for _ in range(options.folded):  # the equations of a cell may mix the rows of its own batch
        equations = jax.vmap(equations, (None, 0, 0))

    def segment(state, steps):
        return unroll_affine(equations, options, plan, params, state, initial_state, steps)

    save_only = jax.checkpoint_policies.save_only_these_names
    policy = save_only(SAVED[plan.save]) if plan.save else None
    with jax.named_scope("jlstm.unroll"):
        out = scan_chunks(segment, state, steps, chunk, options.reverse, policy)
    return jax.tree.leaves(out)


def _run_forward(*leaves, options, **static):
    """Runs the recurrence without time chunks, as without a derivative nothing is saved."""
    return _run(*leaves, options=replace(options, chunk=None), **static)


def _result_types(*avals, equations, options, form):
    """Returns the types of the final state, and of the second result with its time axis."""
    _, state, _, steps = form.unflatten(avals)
    T = steps.x.shape[0]

    def over_time(aval):
        sharding = aval.sharding.update(spec=(None, *aval.sharding.spec))
        return aval.update(shape=(T, *aval.shape), sharding=sharding)

    return [*state, *map(over_time, state if options.return_states else [state.h])]


def _differentiate(primals, tangents, **static):
    moving = [k for k, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def run(*given):
        leaves = dict(enumerate(primals)) | dict(zip(moving, given, strict=True))
        return _run(*leaves.values(), **static)

    return jax.jvp(run, [primals[k] for k in moving], [tangents[k] for k in moving])


def _batch(leaves, axes, **static):
    """Makes a mapped axis of sequences the first batch axis; expands if parameters are mapped."""
    params, state, _, steps = (part.num_leaves for part in static["form"].children())
    if any(axis is not None for axis in axes[:params]):
        out = jax.vmap(partial(_run, **static), axes)(*leaves)
        return out, [0] * len(out)
    (size,) = {leaf.shape[a] for leaf, a in zip(leaves, axes, strict=True) if a is not None}
    places = [0] * 2 * state + [1] * steps  # two states, then the leaves with a time axis
    folded = [
        jax.vmap(lambda leaf: leaf, axis, place, axis_size=size)(leaf)
        for leaf, axis, place in zip(leaves[params:], axes[params:], places, strict=True)
    ]
    options = static["options"]
    if not options.elementwise:
        static["options"] = replace(options, folded=options.folded + 1)
    out = _recurrence.bind(*leaves[:params], *folded, **static)
    return out, [0] * state + [1] * (len(out) - state)


_recurrence = Primitive("lstm")
_recurrence.multiple_results = True
_recurrence.def_impl(_run_forward)
_recurrence.def_abstract_eval(_result_types)
ad.primitive_jvps[_recurrence] = _differentiate
batching.primitive_batchers[_recurrence] = _batch
mlir.register_lowering(_recurrence, mlir.lower_fun(_run_forward, multiple_results=True))

with suppress(ImportError):  # JAX has no public way to register a primitive with checkify
    from jax._src.checkify import checkify_jaxpr, error_checks

    def _check(*args, form, **static):
        """Expands a forward run for checkify; jax 0.12 passes a context as the first argument."""
        given, leaves = args[: -form.num_leaves], args[-form.num_leaves :]
        *context, error, enabled_errors = given
        jaxpr = jax.make_jaxpr(partial(_run_forward, form=form, **static))(*leaves)
        return checkify_jaxpr(*context, jaxpr, enabled_errors, error, *leaves)

    error_checks[_recurrence] = _check
