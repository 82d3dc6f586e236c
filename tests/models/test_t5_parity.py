"""T5 checkpoints of transformers' torch models give the same logits here, and the other way round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.models.t5 import T5, init_t5
from jaxdistill.models.t5_config import T5Config
from jaxdistill.models.t5_folder import load_t5, save_t5

pytestmark = pytest.mark.needs_torch

SIZES = {"vocab_size": 40, "d_model": 16, "num_heads": 2, "d_kv": 6, "d_ff": 24, "num_layers": 2}
SIZES |= {"num_decoder_layers": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
# Longer than the distances that have buckets of their own, and than those that are told apart.
MASK = jnp.arange(20)[None] < jnp.asarray([20, 7])[:, None]
RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(2, 40, (2, 20)), jnp.int32)
TARGETS = jnp.asarray(np.concatenate([np.zeros((2, 1)), RNG.integers(2, 40, (2, 13))], axis=1), jnp.int32)


def torch_model(kind="T5ForConditionalGeneration", **changes):
    """A model whose every parameter is random."""
    import torch
    import transformers

    values = SIZES | {"decoder_start_token_id": 0} | changes
    model = getattr(transformers, kind)(transformers.T5Config(**values)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return model


def torch_outputs(model, **given):
    import torch

    with torch.no_grad():
        return model(**{name: torch.tensor(np.array(x)).long() for name, x in given.items()})


@pytest.mark.parametrize(
    "changes",
    [
        {"feed_forward_proj": "relu", "tie_word_embeddings": True},
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ],
    ids=["v1.0", "v1.1"],
)
def test_random_checkpoint(changes, tmp_path):
    model = torch_model(**changes)
    model.save_pretrained(tmp_path / "theirs")
    config, params, notes = load_t5(tmp_path / "theirs")
    assert notes == () and config.scaled_head == changes["tie_word_embeddings"] and config.tied_head
    theirs = torch_outputs(model, input_ids=IDS, attention_mask=MASK, decoder_input_ids=TARGETS)
    ours = T5(config)
    logits = jax.jit(lambda p: ours.apply({"params": p}, Batch(token_ids=IDS, mask=MASK), TARGETS))(params)
    np.testing.assert_allclose(logits, theirs.logits, atol=1e-4)


def test_encoder_alone_and_of_a_whole_model(tmp_path):
    model = torch_model("T5EncoderModel")
    model.save_pretrained(tmp_path / "encoder")
    config, params, notes = load_t5(tmp_path / "encoder")
    assert config.decoder_layers == 0 and notes == ()
    theirs = torch_outputs(model, input_ids=IDS, attention_mask=MASK).last_hidden_state
    found = jax.jit(lambda p: T5(config).apply({"params": p}, Batch(token_ids=IDS, mask=MASK), IDS))(params)
    np.testing.assert_allclose(np.asarray(found)[np.asarray(MASK)], np.asarray(theirs)[np.asarray(MASK)], atol=1e-4)


def test_saved_folder_loads_in_transformers(tmp_path):
    import transformers

    config = T5Config(
        vocabulary=40, width=16, heads=2, head_width=6, intermediate=24, encoder_layers=2, decoder_layers=2, buckets=8
    )
    params = init_t5(T5(config), jax.random.key(0))
    save_t5(tmp_path / "ours", config, params)
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    theirs = torch_outputs(model, input_ids=IDS, attention_mask=MASK, decoder_input_ids=TARGETS).logits
    found = T5(config).apply({"params": params}, Batch(token_ids=IDS, mask=MASK), TARGETS)
    np.testing.assert_allclose(found, theirs, atol=1e-4)
    again = load_t5(tmp_path / "ours")
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
