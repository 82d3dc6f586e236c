"""Decoder folders: round trip, spellings, shards, where parameters go, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import change_tensors, refused, run_python, same_arrays, shard_tensors
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_families import decoder_config
from jaxdistill.models.decoder_folder import load_decoder, save_decoder
from jaxdistill.models.decoder_sharding import sharding_rules
from jaxdistill.models.encoder import stack_layers

SIZES = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 10}
VALUES = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 10},
    "opt": SIZES | {"model_type": "opt", "ffn_dim": 12, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
    "llama": SIZES | {"model_type": "llama", "intermediate_size": 12, "num_key_value_heads": 2, "head_dim": 6},
    "phi": SIZES | {"model_type": "phi", "intermediate_size": 12},
    "falcon": SIZES | {"model_type": "falcon", "bias": True, "new_decoder_architecture": True, "num_kv_heads": 2},
}
CONFIGS = {family: decoder_config(values) for family, values in VALUES.items()}


def params_of(family, seed=0):
    """Numbers that differ from one another, without compiling anything."""
    shapes = jax.eval_shape(lambda key: init_decoder(Decoder(CONFIGS[family]), key), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def params():
    return params_of("gpt2")


@pytest.fixture
def folder(tmp_path, params):
    save_decoder(tmp_path / "model", CONFIGS["gpt2"], params)
    return tmp_path / "model"


@pytest.mark.parametrize("family", CONFIGS)
def test_round_trip(tmp_path, family):
    params = params_of(family)
    save_decoder(tmp_path / "a" / "model", CONFIGS[family], jax.tree.map(np.asarray, stack_layers(params)))
    loaded = load_decoder(tmp_path / "a" / "model", dropout=None)
    assert loaded.config == CONFIGS[family] and loaded.folder == tmp_path / "a" / "model"
    assert loaded.notes == ()
    same_arrays(loaded.params, params)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["model"]  # no temporary folder left
    stacked = load_decoder(tmp_path / "a" / "model", scan_layers=True)
    assert stacked.config.residual_dropout == 0.0
    same_arrays(stacked.params, stack_layers(params))
    assert isinstance(jax.tree.leaves(stacked.params)[0], jax.Array)


def test_fused_heads_lie_group_by_group(tmp_path):
    """Falcon: two groups of two queries, a key and a value, of four features each."""
    params = params_of("falcon")
    save_decoder(tmp_path / "model", CONFIGS["falcon"], params)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    weight = tensors["transformer.h.1.self_attention.query_key_value.weight"]
    bias = tensors["transformer.h.1.self_attention.query_key_value.bias"]
    assert weight.shape == (32, 16) and bias.shape == (32,)
    layer = params["layers"]["1"]
    np.testing.assert_array_equal(weight[4:8], layer["query"]["kernel"][:, 4:8].T)
    np.testing.assert_array_equal(weight[8:12], layer["key"]["kernel"][:, :4].T)
    np.testing.assert_array_equal(weight[16:20], layer["query"]["kernel"][:, 8:12].T)
    np.testing.assert_array_equal(bias[28:32], layer["value"]["bias"][4:])


def test_other_spellings_and_buffers(folder, params):
    def bare(tensors):
        renamed = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        assert "wte.weight" in renamed
        buffers = {f"h.{i}.attn.bias": np.ones((1, 1, 10, 10), np.float32) for i in range(2)}
        buffers |= {f"h.{i}.attn.masked_bias": np.full((), -1e4, np.float32) for i in range(2)}
        return renamed | buffers | {"lm_head.weight": renamed["wte.weight"]}

    change_tensors(folder, bare)
    same_arrays(load_decoder(folder).params, params)

    # A tied word table may be there under the name of the head alone.
    change_tensors(folder, lambda tensors: {n: v for n, v in tensors.items() if n != "wte.weight"})
    same_arrays(load_decoder(folder).params, params)


def test_precision_of_files_and_parameters(folder, params, tmp_path):
    save_decoder(tmp_path / "half", CONFIGS["gpt2"], params, dtype="bfloat16")
    half = load_decoder(tmp_path / "half").params["embeddings"]["word"]["table"]
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, params["embeddings"]["word"]["table"], rtol=0.01)
    stored = load_decoder(folder, dtype="bfloat16", param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(stored.params)} == {jnp.dtype("bfloat16")}
    np.testing.assert_array_equal(stored.params["embeddings"]["word"]["table"].astype(jnp.float32), half)
    with pytest.raises(UserError, match="dtype 'float16' is unknown; expected float32, bfloat16, float64"):
        load_decoder(folder, dtype="float16")


def test_shards(folder, params):
    shard_tensors(folder, 9)
    same_arrays(load_decoder(folder).params, params)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="1 of its 2 files missing: model-00002-of-00002.safetensors"):
        load_decoder(folder)


def test_tensors_are_read_one_by_one(folder, params, monkeypatch):
    """While a tensor is read, those before it are on their way to the devices and none behind it is in memory."""
    from jaxdistill.models import decoder_folder

    events = []
    read, place = decoder_folder.Tensors.read, decoder_folder._place
    monkeypatch.setattr(decoder_folder.Tensors, "read", lambda file, name: events.append("read") or read(file, name))
    monkeypatch.setattr(decoder_folder, "_place", lambda value, to: events.append("place") or place(value, to))
    load_decoder(folder)
    runs = "".join("r" if event == "read" else "p" for event in events)
    assert runs.count("r") == 28 and "rr" not in runs, "tables and norms one each; a fused tensor is three parameters"
    assert runs.count("p") == 36


EIGHT = """
    import jax, jax.numpy as jnp, numpy as np, sys
    from jaxdistill.core.types import Batch
    from jaxdistill.models.decoder_folder import load_decoder
    from jaxdistill.models.decoder_sharding import sharding_rules
    from jaxdistill.parallel.mesh import make_mesh, rule_shardings, shard_leading

    mesh = make_mesh(4, model=2)
    config = load_decoder("{folder}").config
    rules = sharding_rules(config, 2, scan_layers=True)
    loaded = load_decoder("{folder}", scan_layers=True, shardings=lambda shapes: rule_shardings(mesh, shapes, rules))
    layers = loaded.params["layers"]
    for leaf in (layers["query"]["kernel"], layers["value"]["kernel"], layers["contract"]["kernel"],
                 layers["norm"]["scale"], loaded.params["embeddings"]["word"]["table"]):
        print(leaf.shape, leaf.addressable_shards[0].data.shape)
    batch = shard_leading(mesh, Batch(token_ids=np.arange(20, dtype=np.int32).reshape(2, 10)))
    logits = jax.jit(lambda p, b: loaded.decoder.apply(dict(params=p), b))(loaded.params, batch)
    np.save("{folder}/logits.npy", np.asarray(logits))
"""


def test_parameters_are_born_sharded(tmp_path):
    folder = tmp_path / "model"
    save_decoder(folder, CONFIGS["llama"], params_of("llama"))
    shard_tensors(folder, 9)
    lines = run_python(EIGHT.format(folder=folder), devices=4).splitlines()
    assert lines == [
        "(2, 16, 24) (2, 16, 12)",
        "(2, 16, 12) (2, 16, 6)",
        "(2, 12, 16) (2, 6, 16)",
        "(2, 16) (2, 16)",
        "(20, 16) (10, 16)",
    ]
    loaded = load_decoder(folder)
    batch = Batch(token_ids=jnp.arange(20).reshape(2, 10))
    expected = jax.jit(lambda p: loaded.decoder.apply({"params": p}, batch))(loaded.params)
    np.testing.assert_allclose(np.load(folder / "logits.npy"), expected, atol=1e-4 * float(jnp.abs(expected).max()))


def test_rules_cut_only_what_divides():
    rules = dict(sharding_rules(CONFIGS["llama"], 4))
    assert rules[r"\blayers/.*\b(query)/kernel$"] == P(None, "model")
    assert not any("key" in pattern for pattern in rules), "two key-value heads for four parts"
    assert rules[r"\bword/table$"] == P("model", None)
    assert dict(sharding_rules(CONFIGS["llama"], 8))[r"\bword/table$"] == P(None, "model"), "8 does not divide 20"


def test_rules_cut_the_other_axis_over_data():
    """Also of what "model" leaves whole; adapters are cut as their matrix."""
    rules = dict(sharding_rules(CONFIGS["llama"], 4, scan_layers=True, data=2))
    assert rules[r"\blayers/.*\b(query)/kernel$"] == P(None, "data", "model")
    assert rules[r"\blayers/.*\b(query)/kernel/a$"] == P(None, "data", None)
    assert rules[r"\blayers/.*\b(query)/kernel/b$"] == P(None, None, "model")
    assert rules[r"\blayers/.*\b(key|value)/kernel$"] == P(None, "data", None)
    assert rules[r"\blayers/.*\bcontract/kernel$"] == P(None, "model", "data")
    assert rules[r"\bword/table$"] == P("model", "data") and rules[r"\bhead/kernel$"] == P("data", "model")
    assert not any("data" in spec for _, spec in sharding_rules(CONFIGS["llama"], 4, data=3)), "3 does not divide 16"


def drop_layer(tensors):
    return {n: v for n, v in tensors.items() if ".h.1." not in n}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            drop_layer,
            "12 tensors missing from the checkpoint: transformer.h.1.attn.c_attn.weight, transformer.h.1.attn",
        ),
        (
            lambda tensors: tensors | {"transformer.adapter.weight": np.zeros(2, np.float32)},
            "1 tensors that a gpt2 decoder has no use for: transformer.adapter.weight",
        ),
        (
            lambda tensors: tensors | {"transformer.h.0.attn.c_attn.bias": np.zeros(47, np.float32)},
            "1 tensors of a wrong shape: transformer.h.0.attn.c_attn.bias is (47,), config.json implies (48,)",
        ),
    ],
)
def test_refuses_tensors(folder, change, message):
    change_tensors(folder, change)
    with refused(message):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "no config.json; expected a Hugging Face model folder"),
        ("config.json", '{"model_type": "bert"}', "model_type 'bert' is not supported; supported are gpt2, opt"),
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
        load_decoder(folder)


def test_saving_never_overwrites(folder, params):
    with pytest.raises(UserError, match="exists already"):
        save_decoder(folder, CONFIGS["gpt2"], params)


def test_tiny():
    loaded = load_decoder("tiny", scan_layers=True)
    assert loaded.notes == ("the tiny decoder is random, not pretrained",) and loaded.folder is None
    assert loaded.config.vocabulary == 257 and loaded.config.end_tokens == (256,)
    assert loaded.params["layers"]["query"]["kernel"].shape == (2, 32, 32)
    same_arrays(loaded.params, load_decoder("tiny", scan_layers=True).params)
