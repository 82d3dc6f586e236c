"""The training of a language model as a run folder: what it holds, fine-tuning, a dry run, mistakes."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, refused, same_arrays

from jaxdistill.evaluation.token_loss import make_token_loss, perplexity
from jaxdistill.models.decoder_folder import load_decoder
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.pipeline.language_config import LanguageModelConfig, ModelConfig, TokenizerConfig
from jaxdistill.pipeline.language_dry_run import dry_run_language_model
from jaxdistill.pipeline.language_prepare import corpus_of, prepare_language_model
from jaxdistill.pipeline.language_run import run_language_model
from jaxdistill.pipeline.overrides import load_config, override

CONFIGS = sorted((ROOT / "experiments/configs/language_models").glob("*.py"))
SHAKESPEARE = ROOT / "experiments/configs/language_models/shakespeare.py"
REVIEWS = [f"the {noun} was {word} ." for noun in ("film", "book", "food", "plot") for word in ("good", "bad", "so so")]


def silent(line):
    pass


def smallest(folder, **changes):
    """The smoke form on a few texts of one's own, by a Llama of one layer."""
    (folder / "reviews.txt").write_text("\n\n".join(REVIEWS))
    base = load_config(f"{SHAKESPEARE}:smoke", LanguageModelConfig)
    fields = {"corpus.sources": str(folder / "reviews.txt"), "training.row_length": "16", "training.updates": "2"}
    fields |= {"samples.count": "1", "samples.prompts": "the film", "samples.max_new": "4", "model.positions": "16"}
    fields |= {"training.selections": "1", "training.rows": "2", "model.layers": "1"}
    fields |= {"model.family": "llama", "model.kv_heads": "1"}
    return override(base, fields | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    config, lines = smallest(folder), []
    return config, folder / "run", run_language_model(config, folder / "run", say=lines.append), lines


def test_the_run_folder_holds_model_samples_and_result(finished):
    config, folder, result, lines = finished
    names = {child.name for child in folder.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "tensorboard", "checkpoints", "tokenizer.json", "model"} | {
        "samples.txt",
        "result.json",
    }
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (result["updates"], result["step"], result["dev_texts"], result["skipped"]) == (2, 2, 1, 0)
    assert result["dev_perplexity"] == pytest.approx(np.exp(result["dev_loss"])) and result["dev_perplexity"] < 400
    assert min(result[name] for name in ("tokens", "tokens_per_second", "flops", "peak_bytes", "seconds")) > 0
    assert result["versions"]["jax"] == jax.__version__
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1] and rows[1]["dev_perplexity"] == pytest.approx(
        result["dev_perplexity"], rel=1e-5
    )
    assert {"loss", "perplexity", "lr", "tokens", "gradient_norm"} <= set(rows[0])
    samples = (folder / "samples.txt").read_text().strip().split("\n\n")
    assert len(samples) == 2 and samples[1].startswith("the film")
    assert any("perplexity on dev" in line for line in lines)


def test_the_model_folder_is_read_back_and_scores_the_same(finished):
    config, folder, result, _ = finished
    loaded, tokenizer = load_decoder(folder / "model"), load_tokenizer(folder / "model")
    values = json.loads((folder / "model/config.json").read_text())
    assert values["architectures"] == ["LlamaForCausalLM"] and values["num_key_value_heads"] == 1
    assert loaded.config.positions_by == "rotation" and not loaded.config.tied_head
    assert loaded.config.end_tokens == (tokenizer.token_to_id("<|endoftext|>"),)
    assert loaded.config.vocabulary == tokenizer.get_vocab_size() == result["vocabulary"]
    problem = prepare_language_model(config, corpus_of(config), key=jax.random.key(0), kept=folder / "tokenizer.json")
    token_loss = make_token_loss(loaded.decoder, problem.dev, row_length=16)
    assert perplexity(token_loss(loaded.params)) == pytest.approx(result["dev_perplexity"], rel=1e-5)


def test_transformers_reads_the_tokenizer(finished):
    transformers = pytest.importorskip("transformers")
    folder = finished[1] / "model"
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert len(theirs) == ours.get_vocab_size() and theirs.eos_token_id == ours.token_to_id("<|endoftext|>")
    assert theirs(REVIEWS[0]).input_ids == ours.encode(REVIEWS[0]).ids


@pytest.mark.needs_torch
def test_transformers_computes_the_same(finished):
    import torch
    import transformers

    loaded = load_decoder(finished[1] / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(finished[1] / "model").eval()
    ids = np.arange(2, 12)[None]
    from jaxdistill.core.types import Batch

    ours = jax.jit(loaded.decoder.apply)({"params": loaded.params}, Batch(token_ids=jnp.asarray(ids, jnp.int32)))
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(torch.tensor(ids)).logits.numpy(), atol=1e-4)


def test_a_finished_run_is_not_run_again(finished):
    config, folder, result, _ = finished
    lines = []
    assert run_language_model(config, folder, say=lines.append) == json.loads(json.dumps(result))
    assert "finished result of this very configuration" in lines[-1]
    with refused("holds another run: seed is 0 there and 1 here"):
        run_language_model(dataclasses.replace(config, seed=1), folder, say=silent)


def test_fine_tuning_goes_on_from_a_folder(finished, tmp_path):
    """With adapters and a learning rate of next to nothing the perplexity is that of the loaded model."""
    config, folder, result, _ = finished
    changes = {"model.name": str(folder / "model"), "tokenizer.vocabulary": "4096", "training.lr": "1e-9"}
    changes |= {"training.lora_rank": "2", "corpus.sources": config.corpus.sources[0], "training.weight_decay": "0"}
    tuned = run_language_model(override(config, changes), tmp_path / "run", say=silent)
    assert tuned["dev_perplexity"] == pytest.approx(result["dev_perplexity"], rel=1e-4)
    same_arrays(
        load_decoder(tmp_path / "run/model").params["embeddings"], load_decoder(folder / "model").params["embeddings"]
    )
    assert not (tmp_path / "run/tokenizer.json").exists()
    assert load_tokenizer(tmp_path / "run/model").to_str() == load_tokenizer(folder / "model").to_str()


def test_a_dry_run_says_what_a_step_takes(finished):
    config = finished[0]
    text = dry_run_language_model(override(config, {"training.lora_rank": "2"}))
    parameters = finished[2]["parameters"]
    assert f"parameters: {parameters:,}, of which " in text and "step: 2 rows of 16 tokens in 1 micro-batches" in text
    assert "GFLOP of matrix products a step" in text and "MiB of temporaries" in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_what_it_is(path):
    config = load_config(str(path), LanguageModelConfig)
    text = path.read_text().split('"""')[1]
    assert "Expect: dev perplexity" in text and "minutes" in text and len(text.splitlines()) >= 3
    small = load_config(f"{path}:smoke", LanguageModelConfig)
    assert small.corpus.sources == ("toy/reviews",) and small.training.updates == 4
    assert small.model.width == 32 and small.training.reduction == config.training.reduction


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"training.row_length": "64", "model.positions": "32"}, "model.positions is 32: accepted is"),
        ({"model.heads": "3"}, "model.width is 32: accepted is a multiple of the 3 heads"),
        ({"model.name": "somewhere"}, "tokenizer is set, but 'somewhere' brings its own"),
        ({"training.rows": "3000"}, "fewer than a batch of 3000"),
        ({"samples.prompts": "a prompt that is longer than what so small a model reads"}, "the prompt 'a prompt that"),
        ({"tokenizer.vocabulary": "100"}, "vocabulary is 100: it takes at least 257"),
        ({"corpus.sources": "nowhere.txt"}, "corpus file 'nowhere.txt' does not exist"),
        ({"training.keep": "none"}, "config.training.keep is 'none': accepted are best, last"),
        ({"seed": "-1"}, "seed is -1"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_folder(tmp_path, changes, message):
    with refused(message):
        run_language_model(smallest(tmp_path, **changes), tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_a_loaded_model_needs_a_tokenizer_and_room(finished, tmp_path):
    config = dataclasses.replace(finished[0], tokenizer=TokenizerConfig())
    with refused("which has no tokenizer"):
        run_language_model(dataclasses.replace(config, model=ModelConfig(name="tiny")), tmp_path / "a", say=silent)
    with refused("no such folder"):
        run_language_model(dataclasses.replace(config, model=ModelConfig(name="./none")), tmp_path / "b", say=silent)


def test_the_kinds_of_configuration_are_told_apart():
    with refused("returns LanguageModelConfig, not an ExperimentConfig"):
        load_config(str(CONFIGS[0]))
    with refused("returns ExperimentConfig, not a LanguageModelConfig"):
        load_config(str(ROOT / "experiments/configs/quickstart.py"), LanguageModelConfig)
