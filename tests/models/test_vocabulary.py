"""New tokens for a causal language model."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import DecoderConfig
from jaxdistill.models.decoder_folder import load_decoder, save_decoder
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.models.vocabulary import grow_vocabulary

SIZES = {"vocabulary": 12, "width": 8, "embedding_width": 8, "head_width": 4, "heads": 2, "kv_heads": 2}
SIZES |= {"intermediate": 12, "layers": 1, "positions": 8}
TIED = dataclasses.replace(tiny_decoder_config(), **SIZES, start_token=11, end_tokens=(11,))
# Phi: a head of its own, with a bias.
UNTIED = DecoderConfig(
    family="phi", positions_by="rotation", rotary_width=2, parallel_norms=1, tied_head=False, head_bias=True, **SIZES
)
IDS = np.array([3, 11])
TEXT = Batch(token_ids=jnp.array([[11, 4, 2, 7]]))


def drawn(config):
    decoder, rng = Decoder(config), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)


def grown(config, params, ids):
    """The model with copies of known tokens."""
    rows, head = params["embeddings"]["word"]["table"][ids], {}
    if not config.tied_head:
        head = {"head_rows": params["head"]["kernel"].T[ids], "head_bias": params["head"]["bias"][ids]}
    return grow_vocabulary(config, params, rows, **head)


def logits(config, params, text=TEXT):
    return Decoder(config).apply({"params": params}, text)


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["gpt2", "phi"])
def test_copies_of_tokens_are_like_them_and_the_rest_is_unchanged(config, tmp_path):
    params = drawn(config)
    larger, more = grown(config, params, IDS)
    assert larger == dataclasses.replace(config, vocabulary=14)
    assert more["layers"] is params["layers"]
    before, after = logits(config, params), logits(larger, more)
    np.testing.assert_array_equal(after[..., :12], before)
    np.testing.assert_array_equal(after[..., 12:], before[..., IDS])
    copied = Batch(token_ids=jnp.array([[13, 4, 2, 7]]))
    np.testing.assert_array_equal(logits(larger, more, copied), after)

    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(12)}, unk_token="0"))
    tokenizer.add_tokens(["<new>", "<newer>"])
    save_decoder(tmp_path / "model", larger, more, tokenizer=tokenizer)
    loaded = load_decoder(tmp_path / "model", dropout=None)
    assert loaded.config == larger
    jax.tree.map(np.testing.assert_array_equal, loaded.params, more)
    assert load_tokenizer(tmp_path / "model").encode("<newer>").ids == [13]


def test_refuses_vectors_that_do_not_fit(tmp_path):
    rows = jnp.zeros((2, 8))
    params = drawn(UNTIED)
    with pytest.raises(UserError, match="rows of 7 features; the word table has 8"):
        grow_vocabulary(TIED, params, jnp.zeros((2, 7)))
    with pytest.raises(UserError, match=r"head_rows of shape \(2, 8\); this model needs None"):
        grow_vocabulary(TIED, params, rows, head_rows=rows)
    with pytest.raises(UserError, match=r"head_rows of shape None; this model needs \(2, 8\)"):
        grow_vocabulary(UNTIED, params, rows)
    with pytest.raises(UserError, match=r"head_bias of shape None; this model needs \(2,\)"):
        grow_vocabulary(UNTIED, params, rows, head_rows=rows)
    with pytest.raises(UserError, match="give one of both"):
        save_decoder(tmp_path / "x", TIED, params, tokenizer=Tokenizer(models.BPE()), tokenizer_from=tmp_path)
