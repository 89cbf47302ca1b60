"""The measures of `torch.nn.LSTM` on the CPU, with the threads that it takes by default.

It has no `vmap` over an LSTM, and nothing to compile.
"""

from typing import Any

import numpy as np
import torch

import jlstm
from tests.peers.layouts import torch_weights

from .task import Task


def load(arrays: dict[str, np.ndarray]) -> Task:
    params: list[Any] = [torch.tensor(arrays[k], requires_grad=True) for k in "WUb"]
    xs = torch.tensor(arrays["xs"], requires_grad=True)
    native = torch_weights([jlstm.LSTMParams(*params)])
    lstm = torch.nn.LSTM(arrays["W"].shape[0], arrays["U"].shape[0])
    lstm.load_state_dict({name: weight.detach() for name, weight in native.items()})
    inputs = *(lstm.get_parameter(name) for name in native), xs

    def forward():
        with torch.inference_mode():
            return lstm(xs)[0]

    def gradient():
        hs, _ = lstm(xs)
        return torch.autograd.grad((hs**2).sum(), inputs)

    def gradient_in_our_layout():
        *d_native, d_xs = gradient()
        weights = list(native.values())
        d_params = torch.autograd.grad(weights, params, grad_outputs=d_native, retain_graph=True)
        arrays = zip(("W", "U", "b", "xs"), (*d_params, d_xs), strict=True)
        return {name: array.numpy() for name, array in arrays}

    results = {"forward": lambda: {"hs": forward().numpy()}, "gradient": gradient_in_our_layout}
    return Task({"forward": forward, "gradient": gradient}, results, None)
