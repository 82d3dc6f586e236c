"""EncoderConfig: what it derives, what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.models.config import EncoderConfig, from_huggingface, to_huggingface

BERT = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "t5"}, "supported are bert, roberta, distilbert"),
        ({"activation": "swish"}, "supported are gelu, gelu_new, relu"),
        ({"attention_implementation": "cudnn"}, "'cudnn' is refused because only 'xla' has a second derivative"),
        ({"attention_implementation": "pallas"}, "'pallas' is refused because only 'xla' has a second derivative"),
        ({"width": 0}, "width is 0; expected a whole number of at least 1"),
        ({"layers": "2"}, "layers is '2'; expected a whole number of at least 1"),
        ({"heads": 5}, "width 768 is not a multiple of its 5 heads"),
        ({"positions": 2, "position_offset": 2}, "position_offset 2 leaves no usable row of 2 positions"),
        ({"token_types": -1}, "token_types is -1"),
        ({"hidden_dropout": 1.0}, "hidden_dropout is 1.0; it must lie in [0, 1)"),
        ({"initializer_range": 0.0}, "initializer_range is 0.0; it must be above 0"),
    ],
)
def test_refuses(change, message):
    with refused(message):
        EncoderConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5"}, "c.json: model_type 't5' is not supported; supported are bert, roberta, distilbert"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"is_decoder": True}, "is_decoder is true; only encoders are supported"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' is not supported; supported is 'absolute'"),
        ({"hidden_size": None}, "c.json: no entry hidden_size; an encoder of type bert needs it"),
        ({"hidden_act": "silu"}, "activation 'silu' is unknown"),
    ],
)
def test_refuses_huggingface(change, message):
    with pytest.raises(UserError) as caught:
        from_huggingface(BERT | change, "c.json")
    assert message in str(caught.value)


def test_roberta_positions_start_after_the_padding_index():
    config = from_huggingface(BERT | {"model_type": "roberta", "pad_token_id": 1})
    assert (config.position_offset, config.max_length) == (2, 62)
    assert config.fresh_head == ("pooler", "classifier")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_round_trip(family):
    config = EncoderConfig(
        family=family,
        vocabulary=90,
        width=12,
        layers=3,
        heads=2,
        intermediate=20,
        positions=40,
        position_offset=2 if family == "roberta" else 0,
        token_types=0 if family == "distilbert" else 2,
        activation="relu",
        hidden_dropout=0.25,
        initializer_range=0.05,
    )
    assert from_huggingface(to_huggingface(config, 3)) == config
    assert dataclasses.replace(config, activation="gelu") != config


def test_the_head_drops_at_its_own_rate():
    """RoBERTa's and BERT's falls back on the body's, DistilBERT's on 0.2, as in transformers."""
    for family in ("bert", "roberta"):
        values = BERT | {"model_type": family, "hidden_dropout_prob": 0.25}
        assert from_huggingface(values).head_dropout == 0.25
        assert from_huggingface(values | {"classifier_dropout": 0.4}).head_dropout == 0.4
    values = {"model_type": "distilbert", "vocab_size": 9, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 9}
    values |= {"max_position_embeddings": 9, "dropout": 0.25}
    assert from_huggingface(values).head_dropout == 0.2
    assert from_huggingface(values | {"seq_classif_dropout": 0.4}).head_dropout == 0.4
