"""One loader for every name; names that lead nowhere fail at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ask_silent_hub, run_python

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.huggingface import save_folder
from jaxdistill.models.pretrained import load_encoder
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer


def logits(loaded, text: str, second: str | None = None) -> np.ndarray:
    encoding = loaded.tokenizer.encode(text, second)
    batch = Batch(token_ids=jnp.array([encoding.ids]), token_types=jnp.array([encoding.type_ids]))
    return np.asarray(jax.jit(loaded.learner.apply)(loaded.learner.init(jax.random.key(0)), batch).logits)


@pytest.mark.needs_minilm
def test_minilm():
    loaded = load_encoder("minilm", num_classes=6)
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
    loaded = load_encoder("tiny", num_classes=3, dtype="bfloat16", scan_layers=True)
    assert loaded.folder is None and "random" in loaded.notes[0]
    assert logits(loaded, "a fine film", "truly").shape == (1, 3)


def test_a_folder_is_what_was_saved(tmp_path):
    loaded = load_encoder("tiny", num_classes=2)
    variables = loaded.learner.init(jax.random.key(0))
    params = jax.tree.map(lambda a: a, variables.frozen) | variables.trainable
    params["embeddings"] = variables.frozen["embeddings"] | variables.trainable["embeddings"]
    save_folder(tmp_path / "model", loaded.config, params)
    loaded.tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    again = load_encoder(tmp_path / "model", num_classes=2)
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
        load_encoder(tmp_path / "model", num_classes=2)


@pytest.mark.parametrize("name", ["/no/such/folder", "a b", "x/y/z", "../nowhere"])
def test_no_such_folder(name):
    with pytest.raises(UserError, match="no such folder; expected minilm, tiny, a folder or a hub id"):
        load_encoder(name, num_classes=2)


def test_offline_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        load_encoder("nobody/no-such-model", num_classes=2)
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
