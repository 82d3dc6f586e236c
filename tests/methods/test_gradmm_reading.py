"""Labelled texts as GRADMM's language model reads them, and the gradients of its head."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.core.losses import example_cross_entropy
from jaxdistill.core.types import Batch
from jaxdistill.methods.gradmm_reading import PROMPTS, TWO_EMOTIONS, Form, label_parts, make_form, read_rows
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_config import FIXED
from jaxdistill.models.tiny import tiny_decoder_config, tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer


@pytest.mark.needs_weights("gpt2-bpe")
def test_published_prompts_in_the_tokens_of_gpt2(weights_dir):
    tokenizer = load_tokenizer(weights_dir / "gpt2-bpe")
    assert make_form(tokenizer, *PROMPTS["sst2"]) == Form((), (632, 373, 220), (14774, 18223))
    emotion = make_form(tokenizer, *TWO_EMOTIONS)
    assert emotion.labels == (82, 2633) and len(emotion.prompt) == 9


def test_rows_are_lead_text_and_prompt():
    tokenizer = tiny_tokenizer("llama")  # puts [CLS] in front
    form = make_form(tokenizer, " it was ", ("bad", "great"))
    start = tokenizer.token_to_id("[CLS]")
    assert form.lead == (start,)
    rows = read_rows(tokenizer, form, ["a good film", "dull"], np.asarray([1, 0]), 2)
    expected = [[start, *ids("a good"), *ids("it was")], [start, *ids("dull"), *ids("it was")]]
    assert [row[: last + 1].tolist() for row, last in zip(rows.token_ids, rows.last, strict=True)] == expected
    assert rows.truncated == 1 and rows.labels.tolist() == [1, 0]


def ids(text):
    return tiny_tokenizer().encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("prompt", "words", "message"),
    [
        ("", ("bad", "great"), "prompt is empty"),
        (" it was ", ("bad", ""), "label word '' has no token"),
        (" it was ", ("xyz", "xa"), r"label words 'xyz' and 'xa' begin with the same token \('x'\)"),
    ],
)
def test_forms_that_cannot_be(prompt, words, message):
    with pytest.raises(UserError, match=message):
        make_form(tiny_tokenizer(), prompt, words)


def test_text_without_a_token():
    form = make_form(tiny_tokenizer(), " it was ", ("bad", "great"))
    with pytest.raises(UserError, match="text ' ' has no token"):
        read_rows(tiny_tokenizer(), form, [" "], np.asarray([0]), 8)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_the_head_are_those_of_autodiff(bias):
    """In matrix and bias of a head of its own; rows padded on the right as if each were alone."""
    family: dict = {"family": "phi", "rotary_width": 8, **FIXED["phi"]} if bias else {}
    config = dataclasses.replace(tiny_decoder_config(20), tied_head=False, **family)
    decoder = Decoder(config)
    params = init_decoder(decoder, jax.random.key(0))
    params["head"]["kernel"] = 5.0 * params["head"]["kernel"]
    token_ids = jnp.asarray([[3, 4, 5, 6, 0, 0], [7, 8, 9, 10, 11, 12]], jnp.int32)
    last, labels = jnp.asarray([3, 5]), jnp.asarray([2, 9])
    form = Form((), (1,), (2, 9))
    parts = label_parts(decoder, params, Batch(token_ids=token_ids), last, jnp.arange(2), form)
    for i in range(2):

        def loss(head, i=i):
            row = Batch(token_ids=token_ids[i : i + 1, : int(last[i]) + 1])
            logits = decoder.apply({"params": params | {"head": params["head"] | head}}, row)
            return jnp.mean(example_cross_entropy(logits[:, -1], labels[i : i + 1]))

        names = ("kernel", "bias") if bias else ("kernel",)
        expected = jax.grad(loss)({name: params["head"][name] for name in names})
        found = parts.gradient(jax.nn.one_hot(i, 2))
        np.testing.assert_allclose(found[:, :-1], expected["kernel"].T, atol=1e-5)
        np.testing.assert_allclose(found[:, -1], expected["bias"] if bias else np.zeros(20), atol=1e-5)
    fresh = label_parts(decoder, params, Batch(token_ids=token_ids), last, jnp.arange(2), form._replace(fresh=True))
    np.testing.assert_array_equal(fresh.inputs, parts.inputs)

    def fresh_loss(head):
        logits = fresh.inputs[:1] @ head.T
        return jnp.mean(example_cross_entropy(logits, jnp.asarray([0])))

    found = fresh.gradient(jax.nn.one_hot(0, 2))
    np.testing.assert_allclose(
        found[jnp.asarray([2, 9])], jax.grad(fresh_loss)(jnp.zeros((2, found.shape[1]))), atol=1e-6
    )
    assert not np.any(np.delete(np.asarray(found), [2, 9], axis=0))
