"""Texts drawn from the contrast of two language models, and models tuned on them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused
from tokenizers import Tokenizer

from jaxdistill.evaluation.likelihoods import LanguageModel, load_language_model
from jaxdistill.methods.base import Run
from jaxdistill.methods.contrastive import ContrastiveTexts, contrastive_distil
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.methods.unidetox import documents, fine_tune, published_expert, published_student

KEY = jax.random.key(3)
SETTINGS = ContrastiveTexts(count=6, length=10, alpha=0.01, micro_batch=4)


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return load_language_model("tiny")


@pytest.fixture(scope="module")
def expert(base) -> LanguageModel:
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * jnp.asarray(rng.normal(size=p.shape), p.dtype), base.params)
    return dataclasses.replace(base, name="expert", params=params)


def test_texts_begin_at_the_start_token_and_end_at_the_length(base, expert):
    found = contrastive_distil(SETTINGS, base, expert, key=KEY)
    assert len(found.texts) == 6 and all(text.strip() for text in found.texts)
    assert max(map(len, found.token_ids)) <= 9
    end = base.decoder.config.end_tokens[0]
    for tokens, stopped in zip(found.token_ids, found.stopped, strict=True):
        assert end not in tokens and stopped == (len(tokens) < 9)
    again = contrastive_distil(dataclasses.replace(SETTINGS, micro_batch=3), base, expert, key=KEY)
    assert again.texts == found.texts
    assert contrastive_distil(SETTINGS, base, expert, key=jax.random.key(4)).texts != found.texts


def test_without_the_expert_the_base_model_is_drawn_from(base, expert):
    alone = dataclasses.replace(SETTINGS, beta=0.0)
    found = contrastive_distil(alone, base, expert, key=KEY)
    assert found.texts == contrastive_distil(alone, base, base, key=KEY).texts


def test_bad_settings_and_models_are_refused(base, expert):
    with refused("texts.count is 0: accepted is 1 or more"):
        ContrastiveTexts(count=0)
    for alpha in (0.0, 1.5, float("nan")):
        with refused(f"texts.alpha is {alpha}: accepted is a share in (0, 1]"):
            ContrastiveTexts(alpha=alpha)
    with refused("texts.beta is -1.0: accepted is a number from 0, or inf"):
        ContrastiveTexts(beta=-1.0)
    positions = base.decoder.config.positions
    with refused(f"texts.length is {positions + 1}, and the models read {positions} positions"):
        contrastive_distil(dataclasses.replace(SETTINGS, length=positions + 1), base, expert, key=KEY)
    other = Tokenizer.from_str(base.tokenizer.to_str().replace('"!"', '"another"'))
    with refused("contrast: the tokenizers of 'tiny' (base"):
        contrastive_distil(SETTINGS, base, dataclasses.replace(expert, tokenizer=other), key=KEY)
    config = dataclasses.replace(base.decoder.config, end_tokens=())
    endless = dataclasses.replace(base, decoder=base.decoder.clone(config=config))
    with refused("language model 'tiny': its config.json names no end token"):
        contrastive_distil(SETTINGS, endless, endless, key=KEY)


def test_tuning_makes_texts_likelier_and_leaves_the_model_alone(base):
    before = jax.tree.map(np.array, base.params)
    settings = LanguageModelling(
        updates=8, epochs=0.0, rows=4, row_length=16, lr=1e-2, warmup=0.0, keep="last", selections=1
    )
    texts = ["good film", "a good film", "good good film", "film"] * 2
    lines: list[str] = []
    tuned = fine_tune(settings, base, texts, key=KEY, run=Run(say=lines.append), label="student")
    jax.tree.map(np.testing.assert_array_equal, before, base.params)
    assert tuned.record["updates"] == 8 and tuned.record["truncated"] == 0
    from jaxdistill.evaluation.perplexity import text_perplexities

    ours, theirs = (text_perplexities(model, texts).summary()["corpus"] for model in (tuned.model, base))
    assert ours < 0.7 * theirs


def test_presets_train_on_the_padding_too(base):
    for preset, rows, length in ((published_expert(), 4, 512), (published_student(), 8, 256)):
        assert (preset.rows, preset.row_length, preset.loss_on_pad, preset.schedule) == (rows, length, True, "linear")
    assert published_student().updates == 3000 and published_expert().epochs == 3.0
    with refused("training.row_length is 256, and 'tiny' reads"):
        documents(published_student(), base, ["a"])
