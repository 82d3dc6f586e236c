"""Language models that score texts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from jaxdistill.evaluation.likelihoods import LanguageModel, load_language_model
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config


@pytest.fixture(scope="session")
def tiny_scorer():
    """A random model of bytes with 128 positions; its tokenizer puts no start token in front."""
    return load_language_model("tiny")


@pytest.fixture(scope="session")
def uniform_scorer():
    """Ten tokens, the letters a to j, each as likely as the others whatever came before."""
    decoder = Decoder(tiny_decoder_config(10))
    shapes = jax.eval_shape(lambda key: init_decoder(decoder, key), jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate("abcdefghij")}, unk_token="a"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return LanguageModel("uniform", decoder, params, tokenizer)
