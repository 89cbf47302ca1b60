"""Checkpoints: a pytree on disk every few steps, from which a run continues after a crash.

A checkpoint is a folder named by its step, `FOLDER/300`. orbax writes it asynchronously under
another name, and renames it once it is complete and holds the digests of its files. A file that
does not match its digest is not opened. Nothing is pickled.
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

from jlstm._src.checks import check_arrays, check_size, is_key

UNNAMED = ".orbax-checkpoint-tmp"  # orbax's name for incomplete checkpoints
DIGESTS, UNSEALED = "digests", ("digests", "_CHECKPOINT_METADATA", "commit_success.txt")
SPARE = 2**20  # bytes, enough for everything besides the arrays

Save = Callable[[int, chex.ArrayTree], None]


class Checkpoint(NamedTuple):
    """The tree saved at `step`; `refused` names each newer checkpoint and the reason, in a line."""

    step: int
    tree: Any
    refused: tuple[str, ...]


@contextlib.contextmanager
def checkpointing(folder: str, *, keep: int = 3) -> Iterator[Save]:
    """Provides a function `save(step, tree)` that writes checkpoints asynchronously.

    `save` waits for the previous checkpoint, removes those of the same or later steps, which belong
    to an abandoned run, copies the tree, and returns. Leaving the `with` block waits for the last
    checkpoint. If several processes save the same tree to the same disk, the first one writes it.

    Args:
      folder: holds checkpoints and nothing else; it is created if it does not exist.
      keep: how many complete checkpoints to keep.

    Raises:
      OSError: a checkpoint cannot be written, for example on a full disk; the previous one is
        unchanged. `save`, the next `save`, or the end of the block raises it.
      TypeError, ValueError: an argument is malformed, or a leaf of the tree is not an array.

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
        """Writes the digests after all files of a checkpoint, before orbax renames it."""
        (unnamed,) = root.glob(f"{now['step']}{UNNAMED}*")
        text = json.dumps({"leaves": now["leaves"], "files": _digests(unnamed)})
        (unnamed / DIGESTS).write_text(f"{_sha256(text.encode())}\n{text}")

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
        check_size("step", step, least=0)
        check_arrays("tree", tree)
        finish()
        leaves = {n: jax.random.key_data(x) if is_key(x) else x for n, x in _named(tree).items()}
        # Copies, since the caller may donate the leaves; orbax refuses arrays without elements.
        arrays = {name: np.array(leaf) for name, leaf in leaves.items() if leaf.size}
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
    """Lists the steps that have a checkpoint in a folder, valid or not, in order."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name) for name in names if name.isdecimal())


def _named(tree):
    """Returns the leaves by path, with a prefix, since orbax refuses an empty name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"tree{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def _shapes(tree):
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(tree).items()}


def _digests(folder):
    """Hashes the files of a checkpoint, except orbax's metadata, which may still change."""
    paths = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {n: _sha256(path.read_bytes()) for n, path in paths.items() if n not in UNSEALED}


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _reserve(root: Path, size: int) -> None:
    """Raises an OSError on a full disk, before orbax starts and fails with a long message."""
    if jax.process_index() == 0 and hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=root) as file:
            os.posix_fallocate(file.fileno(), 0, size + SPARE)


def _remove(root: Path, unwanted: Sequence[int]) -> None:
    """Renames checkpoints, then deletes them: a half-deleted one would look like a broken one."""
    if jax.process_index() == 0:
        for step in unwanted:
            os.replace(root / str(step), root / f"{step}.removed")
        _sweep(root)


def _sweep(root: Path) -> None:
    if jax.process_index() == 0:
        for path in root.iterdir():
            name, _, ending = path.name.partition(".")
            if name.isdecimal() and f".{ending}".startswith((UNNAMED, ".removed")):
                shutil.rmtree(path)


@contextlib.contextmanager
def _naming(root: Path) -> Iterator[None]:
    """Turns any error while writing into an OSError that names the folder."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):
            _sweep(root)  # frees space on a full disk
        code = error.errno if isinstance(error, OSError) else None
        if wrapped := re.search(r"os_error_code='(\d+)'", str(error)):  # by TensorStore
            code = code or int(wrapped[1])
        first_line = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        text = os.strerror(code) if code else first_line
        raise OSError(code or errno.EIO, text, str(root)) from error


def restore(
    folder: str, like: chex.ArrayTree | Callable[[int], chex.ArrayTree]
) -> Checkpoint | None:
    """Restores the newest valid checkpoint of `checkpointing`; None without any checkpoint.

    Args:
      folder: the folder of the checkpoints.
      like: a tree with the structure, shapes and dtypes of the saved tree, such as the result of
        `jax.eval_shape`; or a function from a step to such a tree. Its NumPy leaves are restored as
        NumPy arrays, the others as JAX arrays.

    Raises:
      ValueError: no checkpoint is valid; or the newest valid one holds another tree than `like`.
      OSError: the folder cannot be read.
    """
    like_at = like if callable(like) else lambda step: like
    check_arrays("like", like_at(0))
    refused = []
    for step in reversed(steps(folder)):
        path = os.path.join(folder, str(step))
        try:
            arrays, shapes = _read(Path(path).absolute())
        except ValueError as error:
            refused.append(f"{path}: refused: {error}")
            continue
        tree = like_at(step)
        expected = _shapes(tree)
        for name in expected | shapes:
            if expected.get(name) != shapes.get(name):
                wanted = f"{name} {expected.get(name)}"
                raise ValueError(f"{path}: expected {wanted}, got {shapes.get(name)}")
        return Checkpoint(step, _as(arrays, tree), tuple(refused))
    if refused:
        raise ValueError(f"{folder}: no good checkpoint: {'; '.join(refused)}")
    return None


def _read(path: Path):
    """Checks all files of a checkpoint; returns its arrays and the shapes of its leaves."""
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
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error


def _as(arrays, like):

    def conform(name, leaf):
        array = arrays[name] if name in arrays else np.zeros(leaf.shape, leaf.dtype)
        if is_key(leaf):
            impl = jax.random.key_impl(jnp.empty((), leaf.dtype))  # the leaf may be abstract
            return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
        return array if isinstance(leaf, np.ndarray) else jnp.asarray(array)

    leaves = [conform(name, leaf) for name, leaf in _named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
