"""Checkpoint folders: round trip, older spellings, shards, and what is refused."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from helpers import change_tensors, refused, same_arrays, shard_tensors

from jaxdistill.core.errors import UserError
from jaxdistill.models import names
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params, stack_layers
from jaxdistill.models.huggingface import load_folder, save_folder
from jaxdistill.models.tiny import tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer

CONFIG = EncoderConfig(vocabulary=20, width=8, layers=2, heads=2, intermediate=12, positions=10)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(np.asarray, init_params(Encoder(CONFIG, 3), jax.random.key(0)))


@pytest.fixture
def folder(tmp_path, params):
    save_folder(tmp_path / "model", CONFIG, params)
    return tmp_path / "model"


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_round_trip(tmp_path, family):
    config = EncoderConfig(
        family=family,
        vocabulary=20,
        width=8,
        layers=2,
        heads=2,
        intermediate=12,
        positions=10,
        position_offset=2 if family == "roberta" else 0,
        token_types=0 if family == "distilbert" else 2,
    )
    params = init_params(Encoder(config, 3), jax.random.key(0))
    save_folder(tmp_path / "a" / "model", config, stack_layers(params))
    loaded = load_folder(tmp_path / "a" / "model")
    assert loaded.config == config
    assert loaded.notes == ()
    same_arrays(loaded.params, jax.tree.map(np.asarray, params))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model"]  # no temporary folder left


def test_parameter_shapes_are_those_of_the_module(params):
    expected = {tuple(k.key for k in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    assert names.parameter_shapes(CONFIG, 3) == expected


def test_older_spellings_and_other_heads(folder, params):
    def older(tensors):
        renamed = {}
        for name, value in tensors.items():
            if name.startswith("classifier."):
                continue
            name = name.removeprefix("bert.")
            if "LayerNorm" in name:
                name = name.replace("weight", "gamma").replace("bias", "beta")
            renamed[name] = value
        return renamed | {
            "embeddings.position_ids": np.arange(10)[None],
            "cls.predictions.bias": np.zeros(20, np.float32),
        }

    change_tensors(folder, older)
    loaded = load_folder(folder)
    assert "1 tensors ignored" in loaded.notes[0] and "cls.predictions.bias" in loaded.notes[0]
    assert len(loaded.notes) == 1, "a missing classifier is nothing to tell: learners start from a fresh one"
    same_arrays(loaded.params, {name: part for name, part in params.items() if name != "classifier"})


def test_a_checkpoint_without_pooler_says_so(folder):
    change_tensors(folder, lambda tensors: {n: v for n, v in tensors.items() if "pooler" not in n})
    loaded = load_folder(folder)
    assert "pooler" not in loaded.params
    assert "no pooler in the checkpoint, it is drawn afresh" in loaded.notes[0]


def test_half_precision_becomes_float32(folder, params):
    change_tensors(folder, lambda tensors: {n: v.astype(np.float16) for n, v in tensors.items()})
    table = load_folder(folder).params["embeddings"]["word"]["table"]
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, params["embeddings"]["word"]["table"], atol=1e-4)


def test_shards(folder, params):
    shard_tensors(folder, 9)
    same_arrays(load_folder(folder).params, params)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="1 of its 2 files missing: model-00002-of-00002.safetensors"):
        load_folder(folder)


def drop_layer(tensors):
    return {n: v for n, v in tensors.items() if ".layer.1." not in n}


def misshape(tensors):
    return tensors | {"bert.pooler.dense.weight": np.zeros((8, 9), np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_layer, "16 tensors missing from the checkpoint: bert.encoder.layer.1.attention.self.query.weight"),
        (
            lambda tensors: tensors | {"bert.adapter.weight": np.zeros(2, np.float32)},
            "1 tensors that a bert encoder has no use for: bert.adapter.weight",
        ),
        (misshape, "1 tensors of a wrong shape: bert.pooler.dense.weight is (8, 9), config.json implies (8, 8)"),
    ],
)
def test_refuses_tensors(folder, change, message):
    change_tensors(folder, change)
    with refused(message):
        load_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json; expected a Hugging Face model folder"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "holds list, expected an object"),
        ("config.json", '{"model_type": "gpt2"}', "model_type 'gpt2' is not supported; supported are bert"),
        ("model.safetensors", None, "no weights; expected model.safetensors"),
        ("model.safetensors", "nonsense", "not a readable safetensors file"),
    ],
)
def test_refuses_files(folder, name, content, message):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with refused(message):
        load_folder(folder)


def test_saving_never_overwrites_and_leaves_nothing_half_written(folder, params, monkeypatch):
    with pytest.raises(UserError, match="exists already"):
        save_folder(folder, CONFIG, params)

    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_folder(folder.parent / "other", CONFIG, params)
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_tokenizer_files_are_copied(folder, params):
    (folder / "vocab.txt").write_text("[PAD]\n")
    save_folder(folder.parent / "copy", CONFIG, params, tokenizer_from=folder)
    assert (folder.parent / "copy" / "vocab.txt").read_text() == "[PAD]\n"


def test_the_classes_have_names(folder, params):
    tokenizer = tiny_tokenizer()
    save_folder(folder.parent / "named", CONFIG, params, tokenizer=tokenizer, label_names=("calm", "rude", "cruel"))
    values = json.loads((folder.parent / "named" / "config.json").read_text())
    assert values["id2label"] == {"0": "calm", "1": "rude", "2": "cruel"} and values["label2id"]["rude"] == 1
    assert load_tokenizer(folder.parent / "named").to_str() == tokenizer.to_str()
    assert json.loads((folder / "config.json").read_text())["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    for labels in (("calm", "rude"), ("calm", "rude", "calm")):
        with refused(f"label names {', '.join(labels)}: accepted are 3 different ones, one a class"):
            save_folder(folder.parent / "other", CONFIG, params, label_names=labels)
    with refused("give one of both"):
        save_folder(folder.parent / "other", CONFIG, params, tokenizer=tokenizer, tokenizer_from=folder)
    assert not (folder.parent / "other").exists()
