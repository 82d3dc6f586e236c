"""Checkpoints of transformers' torch models give the same logits and attentions here, and the other way round."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, stack_layers
from jaxdistill.models.huggingface import load_folder, save_folder
from jaxdistill.models.minilm import minilm_folder

pytestmark = pytest.mark.needs_torch

LENGTHS = (9, 5, 1)
TYPES = {"bert": "BertForSequenceClassification", "roberta": "RobertaForSequenceClassification"}
TYPES["distilbert"] = "DistilBertForSequenceClassification"


def torch_config(family: str, **changes):
    """A random small config of transformers, unlike the defaults wherever it can be."""
    import transformers

    if family == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=60, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=20, num_labels=3
        )
    values = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 20,
        "num_labels": 3,
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 3 if family == "bert" else 1,
    }
    return {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[family](**(values | changes))


def torch_model(family: str, **changes):
    """A model whose every parameter, biases and normalisation included, is random."""
    import torch
    import transformers

    model = getattr(transformers, TYPES[family])(torch_config(family, **changes)).eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(padded: bool, types: int, vocabulary: int = 60):
    """ids, mask, token types; without padding every row is full."""
    rng = np.random.default_rng(1)
    lengths = np.array(LENGTHS if padded else [LENGTHS[0]] * len(LENGTHS))
    mask = np.arange(LENGTHS[0]) < lengths[:, None]
    ids = np.where(mask, rng.integers(3, vocabulary, mask.shape), 1).astype(np.int32)
    return ids, mask, rng.integers(0, max(types, 1), mask.shape).astype(np.int32)


def torch_outputs(model, ids, mask, types):
    import torch

    arguments = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
    if types is not None:
        arguments["token_type_ids"] = torch.tensor(types).long()
    with torch.no_grad():
        out = model(**arguments, output_attentions=True)
    return out.logits.numpy(), torch.stack(out.attentions, 1).numpy()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("padded", [False, True])
def test_random_checkpoint(family, padded, tmp_path):
    model = torch_model(family)
    model.save_pretrained(tmp_path)
    config, params, notes = load_folder(tmp_path)
    assert notes == ()
    ids, mask, types = inputs(padded, config.token_types)
    types = None if family == "distilbert" else types
    logits, attentions = torch_outputs(model, ids, mask, types)
    batch = Batch(
        token_ids=jnp.asarray(ids),
        mask=jnp.asarray(mask) if padded else None,
        token_types=None if types is None else jnp.asarray(types),
    )
    for scan_layers in (False, True):
        encoder = Encoder(config, 3, scan_layers=scan_layers)
        whole = stack_layers(params) if scan_layers else params
        out = jax.jit(lambda p, e=encoder: e.apply({"params": p}, batch, attention="all"))(whole)
        np.testing.assert_allclose(out.logits, logits, atol=1e-4)
        # Queries at padding are nobody's business (RoBERTa gives them another position in transformers).
        asked = np.broadcast_to(mask[:, None, None, :, None], attentions.shape)
        np.testing.assert_allclose(np.exp(out.attentions)[asked], attentions[asked], atol=1e-4)


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_other_activations(activation, tmp_path):
    model = torch_model("bert", hidden_act=activation)
    model.save_pretrained(tmp_path)
    config, params, _ = load_folder(tmp_path)
    ids, mask, types = inputs(True, config.token_types)
    batch = Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask), token_types=jnp.asarray(types))
    out = jax.jit(lambda p: Encoder(config, 3).apply({"params": p}, batch))(params)
    np.testing.assert_allclose(out.logits, torch_outputs(model, ids, mask, types)[0], atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_saved_folder_loads_in_transformers(family, tmp_path):
    import transformers

    config = EncoderConfig(
        family=family,
        vocabulary=60,
        width=16,
        layers=2,
        heads=4,
        intermediate=24,
        positions=20,
        position_offset=2 if family == "roberta" else 0,
        token_types={"bert": 2, "roberta": 1, "distilbert": 0}[family],
        norm_epsilon=1e-12 if family == "distilbert" else 1e-5,
        initializer_range=0.5,
    )
    encoder = Encoder(config, 3, scan_layers=True)
    ids, mask, _ = inputs(True, 1)
    batch = Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask))
    params = jax.jit(encoder.init)(jax.random.key(0), batch)["params"]
    save_folder(tmp_path / "saved", config, params)
    model, report = getattr(transformers, TYPES[family]).from_pretrained(
        tmp_path / "saved", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = jax.jit(lambda p: encoder.apply({"params": p}, batch).logits)(params)
    np.testing.assert_allclose(torch_outputs(model.eval(), ids, mask, None)[0], expected, atol=1e-4)


@pytest.mark.needs_minilm
def test_minilm():
    import transformers

    folder = minilm_folder()
    config, params, notes = load_folder(folder)
    assert notes == (), "complete but for the classifier, which every learner draws afresh"
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids, mask, types = inputs(True, 2, 30000)
    import torch

    with torch.no_grad():
        expected = model(
            torch.tensor(ids).long(), torch.tensor(mask).long(), torch.tensor(types).long(), output_attentions=True
        )
    batch = Batch(token_ids=jnp.asarray(ids), mask=jnp.asarray(mask), token_types=jnp.asarray(types))
    params["classifier"] = {"kernel": np.zeros((384, 2), np.float32), "bias": np.zeros(2, np.float32)}
    encoder = Encoder(config, 2, scan_layers=True)
    out = jax.jit(lambda p: encoder.apply({"params": p}, batch, attention="cls"))(stack_layers(params))
    np.testing.assert_allclose(out.features, expected.pooler_output.numpy(), atol=1e-4)
    attentions = torch.stack(expected.attentions, 1).numpy()[:, :, :, :1]
    np.testing.assert_allclose(np.exp(out.attentions), attentions, atol=1e-4)
    mean = (expected.last_hidden_state.numpy() * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
    embedded = jax.jit(lambda p: encoder.apply({"params": p}, batch, method="embed"))(stack_layers(params))
    np.testing.assert_allclose(embedded, mean, atol=1e-4)
