"""What was saved comes back, or is refused by name."""

import os
import pickle
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jlstm
from jlstm.experiments import checkpoints
from jlstm.experiments.checkpoints import checkpointing, restore, steps
from tests.helpers.comparisons import assert_identical


def draw_tree(seed):
    """Every kind of leaf that a training may carry."""
    key = jax.random.key(seed)
    return {
        "params": jlstm.init(key, 2, 3),
        "keys": jax.random.split(key, 3),
        "old key": jax.random.split(jax.random.key(seed, impl="rbg"))[0],
        "series": np.random.default_rng(seed).standard_normal((4, 2)),
        "count": jnp.int32(seed),
        "flags": (jnp.array([True, False]), None),
        "half": jnp.full((2, 2), 1 / 3 + seed, jnp.bfloat16),
        "nothing": jnp.zeros((0, 3)),
        "not finite": jnp.array([jnp.nan, jnp.inf]),
    }


def save_trees(folder, *saved, keep=3):
    with checkpointing(str(folder), keep=keep) as save:
        for step in saved:
            save(step, draw_tree(step))


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    save_trees(tmp_path, 10, 200)
    found = restore(str(tmp_path), draw_tree(0))
    assert found and found.step == 200 and found.refused == ()
    assert_identical(found.tree, draw_tree(200))


def test_shapes_are_enough_to_restore(tmp_path):
    tree = {"key": jax.random.key(3), "x": jnp.arange(3.0)}
    with checkpointing(str(tmp_path)) as save:
        save(0, tree)
    found = restore(str(tmp_path), jax.eval_shape(lambda: tree))
    assert found
    assert_identical(found.tree, tree)


def test_the_last_few_are_kept_and_nothing_else_lies_about(tmp_path):
    (tmp_path / "7.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "6.removed").mkdir()
    save_trees(tmp_path, 5, 9, 10, 100, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["10", "100"]
    save_trees(tmp_path, 20, keep=2)  # what was saved at 100 belongs to a run that was given up
    assert steps(str(tmp_path)) == [10, 20]


def test_a_folder_without_checkpoints(tmp_path):
    assert restore(str(tmp_path), draw_tree(0)) is None
    assert restore(str(tmp_path / "none"), draw_tree(0)) is None


def test_an_array_may_be_donated_while_it_is_written(tmp_path):
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    x = jnp.arange(300_000.0)
    with checkpointing(str(tmp_path)) as save:
        save(1, x)
        for _ in range(5):
            x = double(x)
        jax.block_until_ready(x)
    found = restore(str(tmp_path), x)
    assert found
    assert_identical(found.tree, jnp.arange(300_000.0))


# --- broken checkpoints


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    save_trees(folder, 1, 2)
    return folder


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def break_file(path, how, where):
    content = bytearray(path.read_bytes())
    place = int(where * (len(content) - 1))
    if how == "lost":
        path.unlink()
        return
    if how == "cut":
        del content[place:]
    else:
        content[place] ^= 1 << int(where * 1000) % 8
    path.write_bytes(content)


@settings(max_examples=40)
@given(
    which=st.integers(0, 10**6),
    how=st.sampled_from(["lost", "cut", "flipped"]),
    where=st.floats(0, 1),
)
def test_nothing_comes_back_but_what_was_saved(two_saved, tmp_path_factory, which, how, where):
    folder = tmp_path_factory.mktemp("broken") / "run"
    shutil.copytree(two_saved, folder)
    files = files_of(folder / "2")
    break_file(files[which % len(files)], how, where)
    found = restore(str(folder), draw_tree(0))
    assert found
    assert_identical(found.tree, draw_tree(found.step))
    assert (found.step == 2) == (found.refused == ())
    assert all(line.startswith(f"{folder}/2: refused: ") for line in found.refused)


def test_every_file_with_data_is_missed(two_saved, tmp_path):
    """Cut short by a byte, one after the other."""
    names = [path.relative_to(two_saved / "2") for path in files_of(two_saved / "2")]
    data = [name for name in names if name.name not in checkpoints.UNSEALED[1:]]
    assert len(data) > 5
    for k, name in enumerate(data):
        folder = tmp_path / str(k)
        shutil.copytree(two_saved, folder)
        broken = folder / "2" / name
        os.truncate(broken, broken.stat().st_size - 1)
        found = restore(str(folder), draw_tree(0))
        assert found and found.step == 1
        assert found.refused == (f"{folder}/2: refused: {name} is broken",)


def test_with_no_good_one_each_is_named(two_saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_saved, folder)
    for step in "12":
        (folder / step / "manifest.ocdbt").unlink()
    with pytest.raises(
        ValueError,
        match="no good checkpoint: .*/2: refused: manifest.ocdbt is missing; .*/1: refused: ",
    ):
        restore(str(folder), draw_tree(0))


def test_a_tree_of_another_kind_is_refused_and_the_checkpoint_is_not(two_saved):
    like = draw_tree(0)
    like["params"] = jlstm.init(jax.random.key(0), 2, 4)
    words = r"/2: expected tree\['params'\].W float32\[2, 16\], got float32\[2, 12\]"
    with pytest.raises(ValueError, match=words):
        restore(str(two_saved), like)
    with pytest.raises(ValueError, match=r"expected tree\['more'\] float32\[\], got None"):
        restore(str(two_saved), {**draw_tree(0), "more": jnp.float32(0)})


unpickled = []
sys.addaudithook(lambda event, _: unpickled.append(event) if event == "pickle.find_class" else None)


class Evil:
    def __reduce__(self):
        return (os.getpid, ())


def test_nothing_is_unpickled(two_saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_saved, folder)
    unpickled.clear()
    pickle.loads(pickle.dumps(Evil()))
    assert unpickled  # the hook sees it
    unpickled.clear()
    assert restore(str(folder), draw_tree(0))
    for path in files_of(folder / "2"):
        path.write_bytes(pickle.dumps(Evil()))
    found = restore(str(folder), draw_tree(0))
    assert found and found.step == 1 and not unpickled


@pytest.mark.parametrize(
    "step, tree, error, words",
    [
        (-1, jnp.zeros(3), ValueError, "step: expected at least 0, got -1"),
        (1.0, jnp.zeros(3), TypeError, "step: expected an int, got float 1.0"),
        (1, {"x": 3.0}, TypeError, "tree: expected arrays, got dict {'x': 3.0}"),
        (1, (), TypeError, r"tree: expected arrays, got tuple \(\)"),
    ],
)
def test_refusals(tmp_path, step, tree, error, words):
    with checkpointing(str(tmp_path)) as save, pytest.raises(error, match=words):
        save(step, tree)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="keep: "), checkpointing(str(tmp_path), keep=0):
        pass
