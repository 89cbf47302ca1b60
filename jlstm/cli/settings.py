"""The settings of `jlstm train`: their defaults, and the file that stores them."""

import json
import os
from pathlib import Path
from typing import Any

FILE = "settings.json"
CELLS = (
    *("lstm", "peephole", "coupled_forget", "coupled_input"),
    *("no_input_gate", "no_forget_gate", "no_output_gate"),
    *("no_input_activation", "no_output_activation", "full_gate_recurrence"),
    *("layer_norm", "slstm", "elman", "gru"),
)
LATER: dict[str, Any] = {"cell": ["lstm"], "header": None, "delimiter": None}  # than 0.1
DEFAULTS: dict[str, Any] = {
    "length": None,
    "input": None,
    "columns": None,
    "header": None,
    "delimiter": None,
    "hidden_size": 32,
    "layers": 1,
    "batch_size": 64,
    "steps": 3000,
    "optimizer": "adam",
    "cell": ["lstm"],
    "learning_rate": [1e-3],
    "forget_bias": [1.0],
    "clip_norm": None,
    "dropout": None,
    "seeds": 1,
    "checkpoint_every": 100,
    "devices": None,
}


def read(folder: str) -> dict[str, Any]:
    """Reads the settings of a folder of `jlstm train`; an older folder lacks some."""
    path = os.path.join(folder, FILE)
    try:
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:  # UnicodeDecodeError too
        saved = None
    if not isinstance(saved, dict) or {*saved, *LATER} != {"task", *DEFAULTS}:
        raise ValueError(f"{path}: not the settings of a run")
    saved = {**LATER, **saved}
    unknown = [name for name in saved["cell"] if name not in CELLS]
    if unknown:
        raise ValueError(f"{path}: expected cells {', '.join(CELLS)}, got {unknown[0]!r}")
    return saved
