"""Static settings to draw from: few enough that compiled programs are used again."""

import numpy as np


def balanced(choices: dict[str, tuple], size: int) -> list[dict]:
    """`size` settings, in which the choices of each option appear equally often."""
    random = np.random.default_rng(size)
    columns = {
        name: [of[k % len(of)] for k in random.permutation(size)] for name, of in choices.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
