"""XLNet checkpoints of transformers' torch models give the same logits here, and the other way round."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.models.encoder import stack_layers
from jaxdistill.models.xlnet import XLNet, init_xlnet
from jaxdistill.models.xlnet_config import XLNetConfig
from jaxdistill.models.xlnet_folder import load_xlnet, save_xlnet

pytestmark = pytest.mark.needs_torch

LENGTHS = (9, 5, 1)
# The tokenizer pads on the left, and marks the closing token with a type of its own.
LEFT = (np.arange(9) < np.array(LENGTHS)[:, None])[:, ::-1]


def torch_model(**changes):
    """A model whose every parameter, biases and normalisation included, is random."""
    import torch
    import transformers

    sizes = {"vocab_size": 60, "d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 24, "num_labels": 3}
    model = transformers.XLNetForSequenceClassification(transformers.XLNetConfig(**(sizes | changes))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Ids and types, padded on the left."""
    rng = np.random.default_rng(1)
    ids = np.where(LEFT, rng.integers(6, 60, LEFT.shape), 5).astype(np.int32)
    types = rng.integers(0, 2, LEFT.shape).astype(np.int32)
    types[:, -1] = 2
    return ids, np.where(LEFT, types, 3).astype(np.int32)


def torch_logits(model, ids, mask, types) -> np.ndarray:
    import torch

    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.no_grad():
        return model(**{name: torch.tensor(np.array(x)).long() for name, x in given.items() if x is not None}).logits


def to_the_right(x: np.ndarray) -> np.ndarray:
    """The same rows with their padding behind them."""
    rows = [np.roll(row, length) for row, length in zip(x, LENGTHS, strict=True)]
    return np.stack(rows)


@pytest.mark.parametrize("changes", [{}, {"clamp_len": 3, "ff_activation": "relu"}])
def test_random_checkpoint(changes, tmp_path):
    model = torch_model(**changes)
    model.save_pretrained(tmp_path / "theirs")
    config, params, notes = load_xlnet(tmp_path / "theirs")
    assert notes == ("theirs: 1 tensors ignored (transformer.mask_emb)",)
    ids, types = inputs()
    expected = torch_logits(model, ids, LEFT, types)
    ours = (XLNet(config, 3), params), (XLNet(config, 3, scan_layers=True), stack_layers(params))
    for (xlnet, whole), place in zip(ours, (lambda x: x, to_the_right), strict=True):
        batch = Batch(token_ids=place(ids), mask=place(LEFT), token_types=place(types))
        out = jax.jit(lambda p, xlnet=xlnet, batch=batch: xlnet.apply({"params": p}, batch))(whole)
        np.testing.assert_allclose(out.logits, expected, atol=1e-4)
    # Without token types there is no score by segment, and full rows need no mask.
    out = jax.jit(lambda p: ours[0][0].apply({"params": p}, Batch(token_ids=ids)).logits)(params)
    np.testing.assert_allclose(out, torch_logits(model, ids, None, None), atol=1e-4)


def test_saved_folder_loads_in_transformers(tmp_path):
    import transformers

    config = XLNetConfig(vocabulary=60, width=16, layers=2, heads=4, intermediate=24, initializer_range=0.5)
    xlnet = XLNet(config, 3, scan_layers=True)
    params = init_xlnet(xlnet, jax.random.key(0))
    save_xlnet(tmp_path / "saved", config, params)
    model, report = transformers.XLNetForSequenceClassification.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids, types = inputs()
    batch = Batch(token_ids=ids, mask=LEFT, token_types=types)
    found = jax.jit(lambda p: xlnet.apply({"params": p}, batch).logits)(params)
    np.testing.assert_allclose(found, torch_logits(model.eval(), ids, LEFT, types), atol=1e-4)
