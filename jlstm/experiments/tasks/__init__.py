"""Tasks with a criterion of success, published where there is one, and a trivial baseline."""

from jlstm._src.modules import publish
from jlstm.experiments.tasks.digits import digits
from jlstm.experiments.tasks.forecast import forecast
from jlstm.experiments.tasks.grammar import embedded_reber
from jlstm.experiments.tasks.long_lags import adding, copy_memory, temporal_order
from jlstm.experiments.tasks.named import NAMES, named
from jlstm.experiments.tasks.pulses import flip_flop
from jlstm.experiments.tasks.task import Batch, Scaling, Task, sizes

NAMES: tuple[str, ...]
"""The names of the tasks for `named`."""

# fmt: off
__all__ = [
    "NAMES", "Batch", "Scaling", "Task", "adding", "copy_memory", "digits", "embedded_reber",
    "flip_flop", "forecast", "named", "sizes", "temporal_order",
]
# fmt: on

publish(__name__, globals())
