"""Keras on the JAX backend, whatever the home directory says. Import it from here."""

import os
import tempfile

os.environ["KERAS_BACKEND"] = "jax"
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="jlstm-keras-")

import keras  # noqa: E402  # reads the two when it is imported

__all__ = ["keras"]
