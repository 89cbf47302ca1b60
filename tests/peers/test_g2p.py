"""A trained model of others: g2p-fa, which spells Persian words in the phonetic alphabet.

Two layers of 256 units read a word of letters, padded to 30, and two more write its sounds, each
fed with the one that was likeliest before. The package (MIT licence) brings its weights along.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from g2p_fa.g2p_fa import G2P_Fa
from g2p_fa.utils import MAX_LEN, START, tensor2IPA, word2tensor

import jlstm
from jlstm.interop import onnx
from jlstm.interop.torch import from_torch
from tests.peers.onnx_models import onnxruntime_session

SPELLINGS = {"سلام": "sælɒːm", "تلاش": "tʰælɒːʃ"}  # as the package's page has them
WORDS = [*SPELLINGS, "طلا", "کتاب", "دانشگاه", "آسمان", "ژ", "پنجره"]


@pytest.fixture
def trained():
    """The model in float32 or float64, also what it makes on its way; its dropout switched off."""

    def load(dtype):
        torch.set_default_dtype(dtype)
        return G2P_Fa().model.to("cpu", dtype).eval()

    yield load
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def letters():
    """The words, `[30, B]`."""
    return torch.stack([word2tensor(word) for word in WORDS], dim=1)


def spell(weights, encoder, decoder, letters):
    """The logits of each sound, `[29, B, 33]`, and the sounds, `[29, B]`."""
    states, _ = jlstm.unroll_stack(encoder, weights["encoder.embedding.weight"][letters])

    def step(carry, _):
        states, sounds = carry
        x, after = weights["decoder.embedding.weight"][sounds], []
        for params, state in zip(decoder, states, strict=True):
            state, x = jlstm.cell(params, state, x)
            after.append(state)
        logits = x @ weights["decoder.fc_out.weight"].T
        logits += jnp.broadcast_to(weights["decoder.fc_out.bias"], logits.shape)
        sounds = logits.argmax(-1).astype(sounds.dtype)
        return (tuple(after), sounds), (logits, sounds)

    start = jnp.full(letters.shape[1:], START)
    _, spelled = jax.lax.scan(step, (states, start), length=MAX_LEN - 1)
    return spelled


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_every_logit_of_every_step_is_that_of_the_original(x64, trained, letters, dtype, tolerance):
    model = trained(dtype)
    with torch.no_grad():
        targets = torch.full((MAX_LEN, len(WORDS)), START)  # the first alone is read
        theirs = model(letters, targets, teacher_forcing_ratio=0)
    weights = {name: jnp.asarray(tensor.numpy()) for name, tensor in model.state_dict().items()}
    encoder, decoder = (from_torch(model, f"{part}.rnn.") for part in ("encoder", "decoder"))
    logits, sounds = jax.jit(spell)(weights, encoder, decoder, letters.numpy())
    assert logits.shape == (29, 8, 33) and str(dtype) == f"torch.{logits.dtype}"
    np.testing.assert_allclose(logits, theirs[1:], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(sounds, theirs[1:].argmax(-1))
    spelled = [tensor2IPA(np.concatenate([[START], column])) for column in np.asarray(sounds).T]
    assert dict(zip(WORDS, spelled, strict=True)).items() >= SPELLINGS.items()


def test_from_torch_through_jlstm_to_onnxruntime(trained, letters, tmp_path):
    model = trained(torch.float32)
    with torch.no_grad():
        xs = model.encoder.embedding(letters)
        h, c = model.encoder(letters)
    onnx.save(tmp_path / "encoder.onnx", from_torch(model, "encoder.rnn."))
    session = onnxruntime_session((tmp_path / "encoder.onnx").read_bytes())
    names = ["Y_h_0", "Y_h_1", "Y_c_0", "Y_c_1"]
    came: Any = session.run(names, {"X": xs.numpy()})
    np.testing.assert_allclose(np.concatenate(came), torch.cat([h, c]), rtol=0, atol=1e-5)
