"""Classifiers of Hugging Face folders as judges: parity with transformers, labels, kinds of outputs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import change_tensors, refused

from jaxdistill.evaluation import attribute_scorer
from jaxdistill.evaluation.attribute_scorer import attribute_scores, label_probabilities, load_attribute_scorer
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.huggingface import save_folder
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer

TEXTS = ["a good film", "the worst plot of all, and far too long for anybody to like", "x", "", "a good film"]


def write_config(folder: Path, **changes) -> None:
    values = json.loads((folder / "config.json").read_text())
    values = {name: value for name, value in (values | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path):
    """A random BERT classifier of three labels."""
    config = dataclasses.replace(tiny_config(tiny_tokenizer().get_vocab_size()), initializer_range=0.4)
    params = init_params(Encoder(config, 3), jax.random.key(1))
    save_folder(tmp_path / "judge", config, params)
    tiny_tokenizer().save(str(tmp_path / "judge" / "tokenizer.json"))
    write_config(tmp_path / "judge", id2label={"0": "calm", "1": "rude", "2": "cruel"}, label2id=None)
    return tmp_path / "judge"


def test_its_own_head_and_labels(folder):
    scorer = load_attribute_scorer(folder)
    assert (scorer.name, scorer.labels, scorer.multi_label) == ("judge", ("calm", "rude", "cruel"), False)
    found = label_probabilities(scorer, TEXTS)
    assert found.shape == (5, 3) and found.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[4])
    np.testing.assert_array_equal(attribute_scores(scorer, TEXTS, "rude"), found[:, 1])
    write_config(folder, problem_type="multi_label_classification")
    several = load_attribute_scorer(folder)
    odds = label_probabilities(several, TEXTS)
    # The same logits: a softmax is what the odds of the sigmoids, brought to sum 1, are.
    odds = odds / (1 - odds)
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), found, rtol=1e-4)


def test_scores_are_kept(folder, tmp_path, monkeypatch):
    scorer = load_attribute_scorer(folder)
    first = label_probabilities(scorer, TEXTS, cache=tmp_path / "scores")
    monkeypatch.setattr(attribute_scorer, "read_batches", None)
    np.testing.assert_array_equal(label_probabilities(scorer, TEXTS[:2], cache=tmp_path / "scores"), first[:2])


def test_one_output_is_a_probability_of_its_own(folder):
    change_tensors(folder, lambda t: t | {n: t[n][:1].copy() for n in ("classifier.weight", "classifier.bias")})
    write_config(folder, id2label={"0": "toxic"})
    scorer = load_attribute_scorer(folder)
    assert scorer.multi_label and scorer.labels == ("toxic",)
    found = attribute_scores(scorer, TEXTS, "toxic")
    assert ((found > 0) & (found < 1)).all() and found.std() > 1e-3


def test_refuses(folder):
    scorer = load_attribute_scorer(folder)
    with refused("'judge' has no label 'toxic': accepted are calm, rude, cruel"):
        attribute_scores(scorer, TEXTS, "toxic")
    with refused("dtype 'float16' is unknown"):
        load_attribute_scorer(folder, dtype="float16")
    write_config(folder, problem_type="regression")
    with refused("problem_type 'regression' gives no probabilities"):
        load_attribute_scorer(folder)
    write_config(folder, problem_type=None, id2label={"0": "calm", "1": "rude"})
    with refused("id2label of config.json does not name its 3 outputs"):
        load_attribute_scorer(folder)
    write_config(folder, id2label=None)
    assert load_attribute_scorer(folder).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    change_tensors(folder, lambda t: {n: x for n, x in t.items() if not n.startswith("classifier.")})
    with refused("has no classifier of its own, and a fresh one would judge at random"):
        load_attribute_scorer(folder)


@pytest.mark.needs_torch
@pytest.mark.parametrize(("family", "problem"), [("bert", "multi_label_classification"), ("roberta", None)])
def test_parity_with_transformers(family, problem, tmp_path):
    import torch
    import transformers

    tokenizer = tiny_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    values = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 70, "layer_norm_eps": 1e-5,
        "id2label": {0: "calm", 1: "rude", 2: "cruel"}, "problem_type": problem,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "bert":
        made = transformers.BertForSequenceClassification(transformers.BertConfig(**values))
    else:
        made = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**values, type_vocab_size=1))
    model, generator = made.eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(tmp_path)
    scorer = load_attribute_scorer(tmp_path)
    assert scorer.labels == ("calm", "rude", "cruel")
    found = label_probabilities(scorer, TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(text).ids])).logits
        expected = torch.sigmoid(logits) if problem else torch.softmax(logits, -1)
        np.testing.assert_allclose(row, expected[0].numpy(), atol=1e-4)
    assert found.std(axis=0).min() > 0.01


def test_a_roberta_without_its_dense_layer_is_refused(tmp_path):
    config = EncoderConfig("roberta", 300, 16, 1, 2, 24, 40, 2, 1)
    params = init_params(Encoder(config, 2), jax.random.key(0))
    save_folder(tmp_path / "judge", config, params)
    change_tensors(tmp_path / "judge", lambda t: {n: x for n, x in t.items() if not n.startswith("classifier.dense")})
    with refused("has no pooler of its own"):
        load_attribute_scorer(tmp_path / "judge")
