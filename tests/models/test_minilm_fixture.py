"""MiniLM against figures of transformers' torch model that were stored once, so that PyTorch is not needed.

`python tests/models/test_minilm_fixture.py` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.models.encoder import Encoder
from jaxdistill.models.huggingface import load_folder
from jaxdistill.models.minilm import minilm_folder

FIXTURE = Path(__file__).with_name("minilm_outputs.json")
# "[CLS] a warm , funny and wise film . [SEP]" and, without padding, another of the same length.
IDS = [
    [101, 1037, 4010, 1010, 6057, 1998, 7968, 2143, 1012, 102],
    [101, 2045, 2003, 2498, 2047, 1999, 2023, 1996, 999, 102],
]
# A head that needs no random numbers.
KERNEL = np.cos(np.arange(384 * 2, dtype=np.float32)).reshape(384, 2)


def torch_outputs() -> dict[str, list]:
    import torch
    import transformers

    model = transformers.BertModel.from_pretrained(minilm_folder(), attn_implementation="eager").eval()
    with torch.no_grad():
        out = model(torch.tensor(IDS), output_attentions=True)
    attentions = torch.stack(out.attentions, 1)[:, :, :, 0].double().numpy()
    logits = out.pooler_output.double().numpy() @ KERNEL.astype(np.float64)
    return {"logits": logits.round(6).tolist(), "cls_attentions": attentions.round(6).tolist()}


@pytest.mark.needs_minilm
def test_token_ids_and_word_embeddings_give_the_stored_outputs():
    stored = {name: np.asarray(values) for name, values in json.loads(FIXTURE.read_text()).items()}
    config, params, _ = load_folder(minilm_folder())
    params["classifier"] = {"kernel": KERNEL, "bias": np.zeros(2, np.float32)}
    encoder = Encoder(config, 2)
    apply = jax.jit(lambda params, batch: encoder.apply({"params": params}, batch, attention="cls"))
    words = np.asarray(params["embeddings"]["word"]["table"])[np.asarray(IDS)]
    for batch in (Batch(token_ids=jnp.asarray(IDS)), Batch(embeddings=jnp.asarray(words))):
        out = apply(params, batch)
        np.testing.assert_allclose(out.logits, stored["logits"], atol=1e-4)
        np.testing.assert_allclose(np.exp(out.attentions[:, :, :, 0]), stored["cls_attentions"], atol=1e-4)


@pytest.mark.needs_minilm
def test_word_embeddings_are_token_ids_at_full_length():
    config, params, _ = load_folder(minilm_folder())
    params["classifier"] = {"kernel": KERNEL, "bias": np.zeros(2, np.float32)}
    apply = jax.jit(lambda p, batch: Encoder(config, 2).apply({"params": p}, batch, attention="cls"))
    ids = np.resize(np.concatenate(IDS), (1, config.max_length))
    words = np.asarray(params["embeddings"]["word"]["table"])[ids]
    of_ids, of_words = (apply(params, batch) for batch in (Batch(token_ids=ids), Batch(embeddings=words)))
    assert of_ids.attentions.shape == (1, 6, 12, 1, 512)
    np.testing.assert_allclose(of_words.logits, of_ids.logits, atol=1e-4)
    np.testing.assert_allclose(np.exp(of_words.attentions), np.exp(of_ids.attentions), atol=1e-4)


@pytest.mark.needs_minilm
@pytest.mark.needs_torch
def test_the_stored_outputs_are_those_of_torch():
    stored = json.loads(FIXTURE.read_text())
    for name, values in torch_outputs().items():
        np.testing.assert_allclose(stored[name], values, atol=2e-6)


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(torch_outputs()) + "\n")
