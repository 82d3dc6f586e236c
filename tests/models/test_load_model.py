"""One loader for every name; names that lead nowhere fail at once."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ask_silent_hub, refused, run_python

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.data.encoding import encode
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.decoder_folder import save_decoder
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.huggingface import save_folder
from jaxdistill.models.pretrained import KINDS, load_model
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer


def logits(loaded, text: str, second: str | None = None) -> np.ndarray:
    encoding = loaded.tokenizer.encode(text, second)
    batch = Batch(token_ids=jnp.array([encoding.ids]), token_types=jnp.array([encoding.type_ids]))
    return np.asarray(jax.jit(loaded.learner.apply)(loaded.learner.init(jax.random.key(0)), batch).logits)


@pytest.mark.needs_minilm
def test_minilm():
    loaded = load_model("minilm", num_classes=6)
    assert loaded.learner.shape == {
        "width": 384,
        "layers": 6,
        "heads": 12,
        "classes": 6,
        "logits": 6,
        "vocabulary": 30522,
    }
    assert (loaded.learner.max_length, loaded.source) == (512, "minilm")
    assert loaded.learner.group_names[0] == "embeddings" and len(loaded.learner.group_names) == 9
    assert np.isfinite(logits(loaded, "a fine film")).all()


def test_tiny():
    loaded = load_model("tiny", num_classes=3, dtype="bfloat16", scan_layers=True)
    assert loaded.folder is None and "random" in loaded.notes[0]
    assert logits(loaded, "a fine film", "truly").shape == (1, 3)


@pytest.mark.parametrize("family", KINDS)
def test_every_family_without_a_download(family):
    """Traced, not computed: the numbers are the parity tests' affair."""
    loaded = load_model(f"tiny:{family}", num_classes=3)
    assert loaded.learner.shape["width"] == 32 and loaded.learner.max_length == 128
    encoded = encode(Split([("a fine film", "truly"), ("", "no")], np.zeros(2, np.int32)), loaded.tokenizer, 32)
    batch = jax.tree.map(jnp.asarray, pad(encoded, np.arange(2), length=12, examples=2))
    variables = jax.eval_shape(loaded.learner.init, jax.random.key(0))
    outputs = jax.eval_shape(loaded.learner.apply, variables, batch)
    assert outputs.logits.shape == (2, 3) and outputs.features.shape == (2, 32)


TOGETHER = {
    "bert": ("[CLS] a [SEP]", "[CLS] a [SEP] b [SEP]"),
    "roberta": ("[CLS] a [SEP]", "[CLS] a [SEP] [SEP] b [SEP]"),
    "xlnet": ("a [SEP] [CLS]", "a [SEP] b [SEP] [CLS]"),
    "t5": ("a [SEP]", "a [SEP] b [SEP]"),
    "opt": ("[CLS] a", "[CLS] a [CLS] b"),
    "gpt2": ("a", "a [SEP] b"),
}


@pytest.mark.parametrize("family", TOGETHER)
def test_how_texts_are_put_together(family):
    tokenizer = load_model(f"tiny:{family}", num_classes=2).tokenizer
    single, pair = TOGETHER[family]
    assert tokenizer.encode("a").tokens == single.split()
    assert tokenizer.encode("a", "b").tokens == pair.split()


@pytest.mark.needs_weights("gpt2-bpe")
def test_pairs_of_a_decoder_without_special_tokens(tmp_path, weights_dir):
    """GPT-2's tokenizer adds nothing: its end token comes between, and counts where pairs are cut."""
    config = dataclasses.replace(tiny_config(50257, "gpt2"), width=2, embedding_width=2, head_width=1, layers=1)
    config = dataclasses.replace(config, intermediate=2, end_tokens=(50256,))
    save_decoder(tmp_path / "model", config, init_decoder(Decoder(config), jax.random.key(0)))
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        if (weights_dir / "gpt2-bpe" / name).is_file():
            shutil.copy(weights_dir / "gpt2-bpe" / name, tmp_path / "model")
    tokenizer = load_model(tmp_path / "model", num_classes=2).tokenizer
    assert tokenizer.encode("a film").tokens == ["a", "Ġfilm"]
    assert tokenizer.encode("a film", "no").tokens == ["a", "Ġfilm", "<|endoftext|>", "no"]
    encoded = encode(Split([("a film", "no " * 9)], np.zeros(1, np.int32)), tokenizer, 6)
    assert 50256 in encoded.ids and len(encoded.ids) == 6
    config_file = tmp_path / "model" / "config.json"
    config_file.write_text(config_file.read_text().replace('"eos_token_id": 50256', '"eos_token_id": null'))
    assert "nothing stands between the texts of a pair" in load_model(tmp_path / "model", num_classes=2).notes[-1]


def test_an_unknown_family(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    named = ", ".join(KINDS)
    with refused(f"config.json: model_type 'bart' is not supported; supported are {named}"):
        load_model(tmp_path, num_classes=2)
    with refused(f"model 'tiny:bart': no such family; accepted behind tiny: are {named}"):
        load_model("tiny:bart", num_classes=2)


def test_a_folder_is_what_was_saved(tmp_path):
    loaded = load_model("tiny", num_classes=2)
    variables = loaded.learner.init(jax.random.key(0))
    params = jax.tree.map(lambda a: a, variables.frozen) | variables.trainable
    params["embeddings"] = variables.frozen["embeddings"] | variables.trainable["embeddings"]
    save_folder(tmp_path / "model", loaded.config, params)
    loaded.tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    again = load_model(tmp_path / "model", num_classes=2)
    assert again.config == loaded.config
    assert "its classifier is not used" in again.notes[-1]
    key = jax.random.key(1)
    a, b = loaded.learner.refresh(variables, key), again.learner.refresh(again.learner.init(key), key)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_tokenizer_larger_than_the_model(tmp_path):
    config = tiny_config(20)
    from jaxdistill.models.encoder import Encoder, init_params

    save_folder(tmp_path / "model", config, init_params(Encoder(config, 2), jax.random.key(0)))
    tiny_tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, the model only 20"):
        load_model(tmp_path / "model", num_classes=2)


@pytest.mark.parametrize("name", ["/no/such/folder", "a b", "x/y/z", "../nowhere"])
def test_no_such_folder(name):
    with pytest.raises(UserError, match="no such folder; expected minilm, tiny, a folder or a hub id"):
        load_model(name, num_classes=2)


def test_offline_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        load_model("nobody/no-such-model", num_classes=2)
    assert "neither a folder nor in the local cache, and the hub gives none (HF_HUB_OFFLINE is set)" in str(
        caught.value
    )


def test_a_model_in_the_cache_is_found_offline(tmp_path):
    """The cache as the hub's client leaves it: a snapshot of a commit, and a branch that points to it."""
    commit = "0" * 40
    model = tmp_path / "hub" / "models--somebody--small"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    config = EncoderConfig(vocabulary=400, width=8, layers=1, heads=2, intermediate=8, positions=8)
    folder = model / "snapshots" / commit
    save_folder(folder, config, init_params(Encoder(config, 2), jax.random.key(0)))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    out = run_python(
        """
        from jaxdistill.models.hub import download
        print(download("somebody/small"))
        """,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    assert out.strip() == str(folder)


def test_a_silent_hub_fails_in_seconds(tmp_path):
    code = "from jaxdistill.models.hub import download; download('nobody/no-such-model')"
    seconds, message = ask_silent_hub(code, tmp_path)
    assert seconds <= 20
    assert "the hub gives none" in message and message.count("\n") == 1
