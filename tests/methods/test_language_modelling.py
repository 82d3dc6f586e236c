"""Training of a language model: losses by hand, micro-batches, resuming, adapters, what is kept, mistakes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Log, refused, same_arrays

from jaxdistill.data.encoding import Encoded
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.language_modelling import make_training, train_language_model
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.lora import add_adapters, merge_adapters
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.objectives.language_modelling import language_modelling

END = 19
CONFIG = dataclasses.replace(tiny_decoder_config(20), layers=1, width=16, embedding_width=16, head_width=8)
DECODER = Decoder(dataclasses.replace(CONFIG, intermediate=24, positions=16, start_token=END, end_tokens=(END,)))
SETTINGS = LanguageModelling(updates=6, epochs=0.0, rows=4, row_length=16, lr=0.03, selections=2)


def counting(count, seed):
    """Texts that count up from a random token, so that all but the first token can be foretold."""
    rng = np.random.default_rng(seed)
    texts = [np.r_[END, (rng.integers(19) + np.arange(rng.integers(2, 12))) % 19, END] for _ in range(count)]
    ids = np.concatenate(texts).astype(np.int32)
    offsets = np.cumsum([0, *map(len, texts)])
    return Encoded(ids, np.zeros(len(ids), np.int8), offsets, np.zeros(count, np.int32), 0)


TRAIN, DEV = counting(200, 0), counting(20, 1)


@pytest.fixture(scope="module")
def params():
    return init_decoder(DECODER, jax.random.key(0))


def train(settings, params, log=None, dev=DEV, **changes):
    run = Run(make_writer=None if log is None else lambda start: log, say=lambda line: None, **changes)
    return train_language_model(settings, DECODER, params, TRAIN, dev, key=jax.random.key(2), run=run)


@pytest.fixture(scope="module")
def unbroken(params):
    log = Log()
    return train(SETTINGS, params, log), log.rows


def test_it_learns_and_says_what_it_took(unbroken, params):
    trained, rows = unbroken
    record = trained.record
    assert [row["lr"] for row in rows] == pytest.approx([float(SETTINGS.learning_rate(6)(k)) for k in range(6)])
    assert rows[-1]["perplexity"] == pytest.approx(np.exp(rows[-1]["loss"]), rel=1e-5)
    assert [entry["step"] for entry in record["dev"]] == [3, 6] and record["kept"]["step"] == 6
    assert record["kept"]["dev_perplexity"] == pytest.approx(rows[5]["dev_perplexity"], rel=1e-5)
    assert rows[5]["dev_perplexity"] < rows[2]["dev_perplexity"] < 0.9 * rows[0]["perplexity"]
    assert record["tokens"] == sum(row["tokens"] for row in rows) and record["updates"] == 6
    assert record["tokens_per_second"] > 0 and record["flops"] > 0 and record["skipped"] == 0
    same_arrays(params, init_decoder(DECODER, jax.random.key(0)))  # the caller's are untouched


def test_micro_batches_train_as_whole_batches_do(unbroken, params):
    log = Log()
    trained = train(dataclasses.replace(SETTINGS, micro_batches=2), params, log)
    for row, whole in zip(log.rows, unbroken[1], strict=True):
        assert row["loss"] == pytest.approx(whole["loss"], rel=1e-4) and row["tokens"] == whole["tokens"]
        assert row["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=1e-3)
    assert trained.record["flops"] == unbroken[0].record["flops"]


def test_a_stopped_run_goes_on_to_the_same_bits(unbroken, params, tmp_path):
    checkpoints = Checkpoints(tmp_path, config_hash="x")
    asked = iter([False, False, False, True])
    with pytest.raises(Stopped, match="stopped after step 4 of 6"):
        train(SETTINGS, params, checkpoints=checkpoints, stop=lambda: next(asked))
    log = Log()
    trained = train(SETTINGS, params, log, checkpoints=checkpoints)
    same_arrays(trained.params, unbroken[0].params)
    assert log.rows == unbroken[1][4:] and trained.record["dev"] == unbroken[0].record["dev"]


def test_adapters_learn_and_the_rest_stays(params):
    settings = dataclasses.replace(
        SETTINGS, lora_rank=2, lora_alpha=4.0, lora_paths=(r"query/kernel$", "expand/kernel$")
    )
    log = Log()
    trained = train(settings, params, log)
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), trained.params, params)
    names = {"/".join(str(key.key) for key in path) for path, new in jax.tree.leaves_with_path(changed) if new}
    assert names == {"layers/0/query/kernel", "layers/0/expand/kernel"}
    assert log.rows[-1]["dev_perplexity"] == pytest.approx(trained.record["kept"]["dev_perplexity"], rel=1e-5)
    training = make_training(settings, DECODER, params, TRAIN, key=jax.random.key(2))
    assert sum(x.size for x in jax.tree.leaves(training.state.learned)) == 2 * (16 + 16) + 2 * (16 + 24)
    difference = trained.params["layers"]["0"]["query"]["kernel"] - params["layers"]["0"]["query"]["kernel"]
    assert np.linalg.matrix_rank(difference, tol=1e-4) == 2


def test_the_last_is_kept_without_dev_texts(params):
    trained = train(dataclasses.replace(SETTINGS, keep="last"), params, dev=None)
    same = train(dataclasses.replace(SETTINGS, keep="last"), params)
    same_arrays(trained.params, same.params)
    assert trained.record["kept"] == {"step": 6, "dev_loss": None, "dev_perplexity": None}
    assert same.record["kept"]["dev_perplexity"] == same.record["dev"][-1]["perplexity"]


@pytest.mark.parametrize("reduction, on_pad", [("text_mean", False), ("padded_mean", False), ("token_mean", True)])
def test_losses_of_padded_batches_by_hand(params, reduction, on_pad):
    settings = dataclasses.replace(SETTINGS, reduction=reduction, loss_on_pad=on_pad)
    training = make_training(settings, DECODER, params, TRAIN, key=jax.random.key(2))
    assert not settings.packs
    batch = training.batches(0)
    ids, shares = batch.batch.token_ids, batch.shares
    _, metrics = jax.jit(training.step.update)(training.state, (), batch, training.key)
    logits = np.asarray(jax.jit(DECODER.apply)({"params": params}, batch.batch), np.float64)
    scores = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    losses = -np.take_along_axis(scores[:, :-1], ids[:, 1:, None], axis=2)[..., 0]
    real = shares[:, 1:] > 0
    lengths = real.sum(axis=1)
    padded = 8 * -(-(lengths.max() + 1) // 8)
    by_hand = {
        "text_mean": ((losses * real).sum(axis=1) / lengths).mean(),
        "padded_mean": (losses * real).sum(axis=1).mean() / (padded - 1),
        "token_mean": losses[:, : padded - 1].mean(),
    }
    assert float(metrics["loss"]) == pytest.approx(by_hand[reduction], rel=1e-4)
    assert float(metrics["perplexity"]) == pytest.approx(np.exp(losses[real].mean()), rel=1e-3)
    assert float(metrics["tokens"]) == real.sum()


def test_bfloat16_computes_with_float32_parameters(params):
    settings = dataclasses.replace(SETTINGS, dtype="bfloat16")
    training = make_training(settings, DECODER, params, TRAIN, key=jax.random.key(2))
    assert {x.dtype for x in jax.tree.leaves(training.state.learned)} == {jnp.dtype("float32")}
    assert training.step.decoder.dtype == jnp.bfloat16
    objective = language_modelling(training.step.decoder, training.step.params_of)
    loss, _ = jax.jit(objective)(training.state.learned, (), (), training.batches(0), training.key)
    whole = language_modelling(DECODER, training.step.params_of)
    exact, _ = jax.jit(whole)(training.state.learned, (), (), training.batches(0), training.key)
    assert loss.dtype == jnp.float32 and 0 < abs(float(loss) - float(exact)) < 0.05


def test_dropout_draws_anew_in_each_step_and_not_without_the_setting(params):
    def losses(dropout):
        objective = jax.jit(language_modelling(DECODER, lambda learned, _: learned, dropout=dropout))
        return [float(objective(params, (), (), batch, jax.random.key(k))[0]) for k in (0, 1)]

    batch = make_training(SETTINGS, DECODER, params, TRAIN, key=jax.random.key(2)).batches(0)
    with_dropout, without = losses(True), losses(False)
    assert with_dropout[0] != with_dropout[1] and without[0] == without[1]


def test_steps_that_are_not_finite_are_skipped_and_end_the_run(params):
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), params)
    with refused("the loss or its gradient was not finite in 20 steps in a row, up to step 20"):
        train(dataclasses.replace(SETTINGS, updates=30, selections=1), broken)


def test_weight_decay_spares_biases_and_norms(params):
    optimizer = dataclasses.replace(SETTINGS, weight_decay=0.5, warmup=0.0, clip=0.0).optimizer(6)
    zeros = jax.tree.map(jnp.zeros_like, params)
    spared = {"bias", "scale"}

    def shrunk(**changes):
        optimizer = dataclasses.replace(SETTINGS, weight_decay=0.5, warmup=0.0, clip=0.0, **changes).optimizer(6)
        change, _ = optimizer.update(zeros, optimizer.init(params), params)
        return {str(path[-1].key) for path, leaf in jax.tree.leaves_with_path(change) if np.any(leaf)}

    with jax.numpy_dtype_promotion("standard"):
        change, _ = optimizer.update(zeros, optimizer.init(params), params)
        assert not shrunk() & spared and shrunk(decay_norms=True) & spared == {"scale"}
    np.testing.assert_allclose(
        change["embeddings"]["word"]["table"], -0.03 * 0.5 * params["embeddings"]["word"]["table"], rtol=1e-5
    )


def test_adapters_of_the_trainer_are_those_of_the_library(params):
    """Before the first step the merged parameters are the base's, whatever alpha."""
    adapters = add_adapters(params, SETTINGS.lora_paths, rank=1, key=jax.random.key(0))
    same_arrays(merge_adapters(adapters, params, alpha=100.0), params)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"updates": 0}, "updates is 0 and epochs 0.0: give one of them"),
        ({"epochs": 1.0}, "updates is 6 and epochs 1.0: give one of them"),
        ({"micro_batches": 3}, "training.micro_batches is 3: it must divide the 4 rows"),
        ({"lr": 0.0}, "training.lr is 0.0"),
        ({"warmup": 1.0}, "training.warmup is 1.0"),
        ({"dtype": "float16"}, "training.dtype is 'float16': accepted are float32, bfloat16"),
        ({"keep": "first"}, "training.keep is 'first'"),
        ({"row_length": 1}, "training.row_length is 1"),
        ({"row_length": 32}, "training.row_length is 32, and the model reads 16 positions"),
        ({"reduction": "mean"}, "unknown reduction 'mean'"),
        ({"lora_rank": 2, "lora_paths": ("nothing",)}, "lora: no parameter matches 'nothing'"),
    ],
)
def test_mistakes_end_in_one_line(params, changes, message):
    with refused(message):
        make_training(dataclasses.replace(SETTINGS, **changes), DECODER, params, TRAIN, key=jax.random.key(0))


def test_nothing_can_be_best_without_dev_texts(params):
    with refused("training.keep is 'best', but there are no dev texts to compare on"):
        train(SETTINGS, params, dev=None)
