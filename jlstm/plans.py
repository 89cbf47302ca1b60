"""How `unroll` and `unroll_stack` run a cell: `plan=` for speed, `chunk=` for memory.

Every choice gives the same results up to rounding. By default both are picked from static shapes.

>>> import jax, jlstm
>>> params, xs = jlstm.init(jax.random.key(0), 2, 3), jax.numpy.ones((10, 2))
>>> plan = jlstm.plans.Plan(precompute=True)
>>> state, hs = jlstm.unroll(params, xs, plan=plan, chunk=5)
>>> hs.shape
(10, 3)
"""

from jlstm._src.plan import Plan, chunk_for, plan_for

__all__ = ["Plan", "chunk_for", "plan_for"]
