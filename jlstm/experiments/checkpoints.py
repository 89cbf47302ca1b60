"""Checkpoints: a pytree on the disk every so many steps, so that a run loses nothing when it dies.

A checkpoint is a folder named by its step, `FOLDER/300`. orbax writes it under another name, beside
the computation, and renames it when it is whole and holds the digests of its files. A file that
does not agree with its digest is not opened. Nothing is pickled.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jlstm._src.checks import check_arrays, check_count, check_size

UNNAMED = ".orbax-checkpoint-tmp"  # how orbax calls what is not whole
DIGESTS, UNSEALED = "digests", ("digests", "_CHECKPOINT_METADATA", "commit_success.txt")
SPARE = 2**20  # bytes: more than what is written besides the arrays

Save = Callable[[int, chex.ArrayTree], None]


class Checkpoint(NamedTuple):
    """The tree that was saved at `step`, and why newer checkpoints were refused, a line each."""

    step: int
    tree: Any
    refused: tuple[str, ...]


# --- writing


@contextlib.contextmanager
def checkpointing(folder: str, *, keep: int = 3) -> Iterator[Save]:
    """Gives a function `save(step, tree)` that writes checkpoints while the caller computes on.

    `save` waits for the checkpoint before, copies the tree, and returns. Leaving the `with` block
    waits for the last one. Only when one is whole are those older than the last `keep` removed.
    One of a later step belongs to a run that was given up, and is removed. Where several processes
    save the same tree to the same disk, the first of them writes it.

    Args:
      folder: holds checkpoints and nothing else; it is made if need be.
      keep: how many checkpoints to keep.

    Raises:
      OSError: a checkpoint cannot be written, as the disk is full, say; the one before stays as it
        is. Comes from `save`, from the next one, or on leaving the block.
      TypeError, ValueError: an argument is malformed, or the tree holds what is no array.

    >>> import jax.numpy as jnp, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with checkpointing(folder) as save:
    ...         for step in (100, 200):
    ...             save(step, {"loss": jnp.float32(step)})
    ...     restore(folder, {"loss": jnp.float32(0)})
    Checkpoint(step=200, tree={'loss': Array(200., dtype=float32)}, refused=())
    """
    import orbax.checkpoint as ocp

    check_size("keep", keep)
    root, now = Path(folder).absolute(), {}

    def seal():
        """Called when all files of a checkpoint are written, before it has its name."""
        (unnamed,) = root.glob(f"{now['step']}{UNNAMED}*")
        _write_digests(unnamed, now["leaves"])

    with _naming(root):
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        options = ocp.options.AsyncOptions(post_finalization_callback=seal)
        writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), async_options=options)

    def finish():
        with _naming(root):
            writer.wait_until_finished()
            _remove(root, steps(folder)[:-keep])

    def save(step, tree):
        check_count("step", step)
        check_arrays("tree", tree)
        finish()
        arrays = _arrays(tree)
        now.update(step=step, leaves=_shapes(tree))
        with _naming(root):
            _reserve(root, sum(array.nbytes for array in arrays.values()))
            _remove(root, [later for later in steps(folder) if later >= step])
            writer.save(root / str(step), args=ocp.args.StandardSave(arrays))

    try:
        yield save
        finish()
    finally:
        with _naming(root):
            writer.close()


def steps(folder: str) -> list[int]:
    """The steps of which a folder holds a checkpoint, good or not, in order."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if name.isdecimal())


def _arrays(tree):
    """What is stored, by name. orbax stores no array without elements; it needs none."""
    arrays = {name: _host(leaf) for name, leaf in _named(tree).items()}
    return {name: array for name, array in arrays.items() if array.size}


def _host(leaf):
    """A copy, as the caller may donate the array to the next step while it is being written."""
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _named(tree):
    """Leaves by their path. The root's is "", a name that orbax does not take."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {f"tree{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _shapes(tree):
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(tree).items()}


def _write_digests(folder, leaves):
    text = json.dumps({"leaves": leaves, "files": _digests(folder)})
    (folder / DIGESTS).write_text(f"{_sha256(text.encode())}\n{text}")


def _digests(folder):
    """By file. What orbax notes about the saving itself may still change, and is no matter."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {n: _sha256(path.read_bytes()) for n, path in names.items() if n not in UNSEALED}


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _reserve(root: Path, size: int) -> None:
    """Fails at once and in one line where the disk is full; orbax would later, in many."""
    if jax.process_index() == 0 and hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=root) as file:
            os.posix_fallocate(file.fileno(), 0, size + SPARE)


def _remove(root: Path, unwanted: Sequence[int]) -> None:
    """Removes checkpoints. Renamed first, as half a checkpoint would look like a broken one."""
    if jax.process_index() == 0:
        for step in unwanted:
            os.replace(root / str(step), root / f"{step}.removed")
        _sweep(root)


def _sweep(root: Path) -> None:
    """Clears away what a process left half written or half removed when it died."""
    if jax.process_index() == 0:
        for path in root.iterdir():
            name, _, ending = path.name.partition(".")
            if name.isdecimal() and f".{ending}".startswith((UNNAMED, ".removed")):
                shutil.rmtree(path)


@contextlib.contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Whatever goes wrong in writing is an OSError that names the folder."""
    try:
        yield
    except Exception as error:
        code, words = _reason(error)
        with contextlib.suppress(OSError):
            _sweep(root)  # gives a full disk its space back
        raise OSError(code, words, str(root)) from error


def _reason(error):
    """The number and the words of the system's error, which TensorStore wraps in a text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno, os.strerror(error.errno)
    found = re.search(r"os_error_code='(\d+)'", str(error))
    if found:
        return int(found[1]), os.strerror(int(found[1]))
    return errno.EIO, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


# --- reading


def restore(folder: str, like: chex.ArrayTree) -> Checkpoint | None:
    """The newest good checkpoint of a folder, None if there is none at all; see `checkpointing`.

    Args:
      folder: where checkpoints were saved.
      like: a tree of the same structure, shapes and dtypes as what was saved: arrays, or what
        `jax.eval_shape` tells of them. What is NumPy's in it is restored as NumPy's.

    Raises:
      ValueError: there are checkpoints and none is good, each named with a reason; or the newest
        good one holds another tree than `like`.
      OSError: the folder cannot be read.
    """
    check_arrays("like", like)
    refused = []
    for step in reversed(steps(folder)):
        path = os.path.join(folder, str(step))
        try:
            arrays, shapes = _read(Path(path).absolute())
        except ValueError as error:
            refused.append(f"{path}: refused: {error}")
            continue
        if shapes != _shapes(like):
            raise ValueError(f"{path}: {_mismatch(shapes, _shapes(like))}")
        return Checkpoint(step, _as(arrays, like), tuple(refused))
    if refused:
        raise ValueError(f"{folder}: no good checkpoint: {'; '.join(refused)}")
    return None


def _read(path: Path):
    """The arrays of a checkpoint and the shapes of its leaves, all as it was saved."""
    import orbax.checkpoint as ocp

    try:
        digest, _, text = (path / DIGESTS).read_text().partition("\n")
        if _sha256(text.encode()) != digest:
            raise ValueError(f"{DIGESTS} is broken")
        saved, found = json.loads(text), _digests(path)
        for name, digest in saved["files"].items():
            if found.get(name) != digest:
                raise ValueError(f"{name} is {'broken' if name in found else 'missing'}")
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            return reader.restore(path, args=ocp.args.StandardRestore()), saved["leaves"]
    except MemoryError:
        raise
    except Exception as error:  # orbax raises many kinds
        words = str(error).partition("\n")[0]
        raise ValueError(words or f"{type(error).__name__}") from error


def _as(arrays, like):
    """The arrays as the leaves of a tree like that one."""

    def conform(name, leaf):
        array = arrays[name] if name in arrays else np.zeros(leaf.shape, leaf.dtype)
        if _is_key(leaf):
            return jax.random.wrap_key_data(jnp.asarray(array), impl=_key_impl(leaf))
        return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)

    leaves = [conform(name, leaf) for name, leaf in _named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _key_impl(key):
    """Also of a key whose shape alone is known."""
    found = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]


def _mismatch(saved, expected):
    """The first leaf in which two trees differ."""
    for name in expected | saved:
        if expected.get(name) != saved.get(name):
            return f"expected {name} {expected.get(name)}, got {saved.get(name)}"
    return "expected the leaves in another order"
