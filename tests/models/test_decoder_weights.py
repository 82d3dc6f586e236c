"""Small real language models: stories are likely, shuffled ones are not, and greedy texts are transformers' own."""

from __future__ import annotations

import functools
import random
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.models.decoder_folder import load_decoder
from jaxdistill.models.decoding import prefill, step
from jaxdistill.models.likelihood import token_log_probabilities
from jaxdistill.models.tokenizer import load_tokenizer

# The first words of many a story that these models were trained on, and the same words shuffled: the figures are those
# that come with the weights (22.8 against 27,130, and 1.22 against 532).
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends."
FIGURES = {"tinystories-656k": (22.785, 27_129.9), "stories260k/hf": (1.219, 532.44)}
GREEDY = {
    "tinystories-656k": ", a little girl named Lily lived in a small house with her mom, dad, and her dog, Spot, Spot, "
    "loved to play all day. One day, Lily saw a small bird on the ground.",
    "stories260k/hf": ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.",
}
NEW = 80


def padded(texts: list[list[int]]) -> Batch:
    """Texts in rows, padded on the left."""
    length = max(map(len, texts))
    ids = np.array([[0] * (length - len(text)) + text for text in texts], np.int32)
    mask = np.array([[False] * (length - len(text)) + [True] * len(text) for text in texts])
    return Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask))


@functools.partial(jax.jit, static_argnums=0)
def greedy(decoder, params, ids):
    def body(carry, _):
        logits, cache = carry
        tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        return step(decoder, params, tokens, cache), tokens

    start = prefill(decoder, params, ids, length=ids.shape[1] + NEW)
    return jax.lax.scan(body, start, None, length=NEW)[1].T


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("tinystories-656k", marks=pytest.mark.needs_weights("tinystories-656k")),
        pytest.param("stories260k/hf", marks=pytest.mark.needs_weights("stories260k", "hf")),
    ],
)
def test_stories(weights_dir, name):
    folder = weights_dir / name
    loaded, tokenizer = load_decoder(folder, scan_layers=True), load_tokenizer(folder)
    words = STORY.split()
    random.Random(0).shuffle(words)
    batch = padded([tokenizer.encode(text).ids for text in (STORY, " ".join(words))])
    score = jax.jit(functools.partial(token_log_probabilities, loaded.decoder))(loaded.params, batch)
    values, scored = (np.asarray(part) for part in (score.log_probabilities, score.scored))
    perplexity = np.exp(-values.sum(axis=1) / scored.sum(axis=1))
    np.testing.assert_allclose(perplexity, FIGURES[name], rtol=1e-3)

    prompt = tokenizer.encode("Once upon a time").ids
    tokens = np.asarray(greedy(loaded.decoder, loaded.params, jnp.array([prompt]))[0]).tolist()
    assert tokenizer.decode(tokens).startswith(GREEDY[name])
    if find_spec("torch"):
        import torch
        import transformers

        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        given = torch.tensor([prompt])
        output = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NEW)
        expected = output[0, len(prompt) :].tolist()
        assert len(expected) == NEW and tokens == expected
