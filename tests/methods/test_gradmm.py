"""GRADMM on toy data with a tiny language model: the set, going on, privacy, what is refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.likelihoods import load_language_model
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.methods import gradmm, gradmm_target
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.gradmm_admm import ADMM
from jaxdistill.methods.gradmm_filter import keep_texts, zero_shot_labels
from jaxdistill.methods.gradmm_reading import Form, Rows
from jaxdistill.methods.gradmm_settings import GRADMM, Filtering, Privacy, reference
from jaxdistill.methods.gradmm_target import Reader, clean_target, paper_target
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.objectives.head_distance import DenseTarget, FactoredTarget
from jaxdistill.pipeline.config import EvaluationConfig, ExperimentConfig, LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.privacy.noise import noise_key

CONFIG = GRADMM(
    per_class=2,
    model="tiny",
    prompt=" it was ",
    label_words=("bad", "great"),
    prefix="the",
    length=4,
    rounds=2,
    texts=2,
    rounds_at_once=1,
    real_per_class=4,
    real_length=8,
    vocabulary="none",
    admm=ADMM(outer_steps=2, inner_steps=2, candidates=2, nearest=5),
)
PRIVACY = Privacy(mode="gaussian", epsilon=4.0, size=8, records=2000, noise_seed=3)
PRIVATE = dataclasses.replace(CONFIG, privacy=PRIVACY)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    whole = prepare(
        TaskConfig(name="toy/reviews", max_length=24), LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    )
    return with_train(whole, whole.data.train.take(np.arange(60)))


def with_train(problem, train):
    return dataclasses.replace(problem, data=dataclasses.replace(problem.data, train=train))


def run_in(folder, **changes):
    folder.mkdir(exist_ok=True)
    options = {"checkpoint_seconds": 0.0, "folder": folder, "say": lambda line: None} | changes
    return Run(checkpoints=Checkpoints(folder / "checkpoints", config_hash="0"), **options)


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    return gradmm.distill(CONFIG, problem, key=KEY, run=run_in(tmp_path_factory.mktemp("runs") / "gradmm"))


def test_the_set(finished, problem):
    np.testing.assert_array_equal(finished.labels, [0, 1, 0, 1])
    assert finished.level == "text" and finished.text_columns == ("text",)
    assert len(set(finished.texts)) == 4 and not set(finished.texts) & set(problem.data.train.texts)
    facts = finished.manifest
    assert facts["generator"]["candidates"] == 8 and facts["generator"]["label_words"] == ["bad", "great"]
    assert facts["privacy"] == {"mode": "off", "guarantee": "none"}
    assert facts["cost"]["real_examples"] == 8


def test_a_stopped_run_goes_on_to_the_same_texts(finished, problem, tmp_path):
    """After the first step of the first group, and after the first of the second."""
    asked = iter([True, False, True])
    for _ in range(2):
        with pytest.raises(Stopped, match="stopped after outer step"):
            gradmm.distill(CONFIG, problem, key=KEY, run=run_in(tmp_path / "run", stop=lambda: next(asked)))
    found = gradmm.distill(CONFIG, problem, key=KEY, run=run_in(tmp_path / "run"))
    assert found.texts == finished.texts
    again = gradmm.distill(CONFIG, problem, key=KEY, run=run_in(tmp_path / "run"))  # after its last step
    assert again.texts == finished.texts


def test_the_control_of_a_model_that_writes_by_itself(problem, tmp_path):
    """Nothing of the real texts is in what comes of it: others give the same texts."""
    settings = dataclasses.replace(
        CONFIG, making="sampling", prefix="the {label} ", filtering=Filtering(distance_weight=0.0)
    )
    made = gradmm.distill(settings, problem, key=KEY, run=run_in(tmp_path / "a"))
    np.testing.assert_array_equal(made.labels, [0, 1, 0, 1])
    assert len(set(made.texts)) == 4 and made.manifest["generator"]["candidates"] == 8
    other = with_train(problem, problem.data.train.take(np.arange(30, 60)))
    assert gradmm.distill(settings, other, key=KEY, run=run_in(tmp_path / "b")).texts == made.texts


@pytest.fixture(scope="module")
def released(problem, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs") / "private", []
    found = gradmm.distill(PRIVATE, problem, key=KEY, run=run_in(folder, say=lines.append))
    return folder, found, lines


def test_a_private_run_says_what_it_costs_and_promises(released):
    folder, found, lines = released
    assert lines[0].startswith(
        "private: sigma 1.0812, 8 numbers a class; at 2,000 texts a class the signal is at most 654"
    )
    assert lines[1] == "spent: epsilon 4.0000 of 4 at delta 1e-05, add_remove, 1 release"
    facts = found.manifest["privacy"]
    assert facts["guarantee"] == "none: the seed of the noise is known"
    assert found.manifest["source_hash"] == "withheld"
    assert not any(note.startswith(("train", "dev")) for note in found.manifest["notes"])
    assert facts["ledger"]["epsilon"] == pytest.approx(4.0, rel=1e-5)
    assert json.loads((folder / "privacy.json").read_text())["releases"][0]["sigma"] == facts["sigma"]
    assert not (folder / "noise.json").exists()


def test_after_the_release_no_training_text_is_read(released, problem, tmp_path, monkeypatch):
    """Going on from what was released, with records that raise when they are read: the same texts to the byte."""
    folder, found, _ = released
    other = tmp_path / "run"
    other.mkdir()
    for name in ("release.safetensors", "privacy.json"):
        (other / name).write_bytes((folder / name).read_bytes())

    def never(*args, **kwargs):
        raise AssertionError("private records were read")

    monkeypatch.setattr(gradmm_target.Mechanism, "release", never)
    texts = [("changed",)] * len(problem.data.train)
    changed = with_train(problem, Split(texts, problem.data.train.labels))
    again = gradmm.distill(PRIVATE, changed, key=KEY, run=run_in(other))
    assert again.texts == found.texts


def test_every_text_takes_part_and_the_noise_is_that_of_its_key(released, problem, tmp_path):
    def sums(config, train, name):
        folder = tmp_path / name
        gradmm.distill(config, with_train(problem, train), key=KEY, run=run_in(folder))
        return (folder / "release.safetensors").read_bytes()

    train = problem.data.train
    whole = (released[0] / "release.safetensors").read_bytes()
    assert sums(PRIVATE, train, "same") == whole
    assert sums(PRIVATE, train.take(np.arange(1, 60)), "one less") != whole
    other = dataclasses.replace(PRIVATE, privacy=dataclasses.replace(PRIVACY, noise_seed=4))
    assert sums(other, train, "other noise") != whole


def test_a_language_model_that_has_read_the_texts_guarantees_nothing(tmp_path):
    def made(name, sources, before="", **corpus):
        (tmp_path / name).mkdir()
        facts = {"corpus": {"sources": sources} | corpus, "model": {"name": before}}
        (tmp_path / name / "config.json").write_text(json.dumps(facts))
        return str(tmp_path / name / "model")

    first = made("first", ["imdb/unsupervised_20k", "sst2"])
    assert gradmm.has_read(first, "sst2") and gradmm.has_read(first, "imdb") and not gradmm.has_read(first, "sst5")
    assert gradmm.has_read(made("second", ["toxigen[toxic]"], first), "sst2")
    assert not gradmm.has_read("tiny", "sst2")
    judged = made("third", ["play.txt"], judged=["imdb"])
    assert gradmm.has_read(judged, "imdb") and not gradmm.has_read(judged, "sst2")


def test_a_class_without_texts_is_released_like_any(problem, tmp_path):
    train = problem.data.train
    found = gradmm.distill(
        PRIVATE,
        with_train(problem, train.take(np.flatnonzero(train.labels == 1))),
        key=KEY,
        run=run_in(tmp_path / "run"),
    )
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1])


def test_secret_noise_is_kept_until_it_is_released(problem, tmp_path):
    secret = dataclasses.replace(PRIVATE, privacy=dataclasses.replace(PRIVACY, noise_seed=-1))
    folder = tmp_path / "run"
    first = noise_key(run_in(folder).folder)
    assert jnp.array_equal(jax.random.key_data(first), jax.random.key_data(noise_key(folder)))
    assert (folder / "noise.json").stat().st_mode & 0o077 == 0
    found = gradmm.distill(secret, problem, key=KEY, run=run_in(folder))
    assert found.manifest["privacy"]["guarantee"].startswith("(4, 1e-05)-differential privacy of one labelled")
    assert not (folder / "noise.json").exists()


def test_a_run_without_enough_signal_does_not_start(problem, tmp_path):
    weak = dataclasses.replace(PRIVATE, privacy=dataclasses.replace(PRIVACY, epsilon=0.05, delta=1e-6, records=10))
    with refused("below least_ratio 0.5: take a smaller privacy.size"):
        gradmm.distill(weak, problem, key=KEY, run=run_in(tmp_path / "run"))
    assert not (tmp_path / "run" / "privacy.json").exists()


def reader_and_rows():
    decoder = Decoder(tiny_decoder_config(20))
    params = init_decoder(decoder, jax.random.key(0))
    rng = np.random.default_rng(0)
    rows = Rows(
        rng.integers(0, 20, (25, 5)).astype(np.int32), np.full(25, 4, np.int32), np.arange(25, dtype=np.int32) % 2, 0
    )
    return Reader(decoder, params, Form((), (3,), (1, 2)), 8), rows


def test_targets_as_factors_and_whole_are_the_same_gradient(monkeypatch):
    reader, rows = reader_and_rows()
    factored = clean_target(reader, rows)
    assert isinstance(factored, FactoredTarget)
    monkeypatch.setattr(gradmm_target, "_FACTORS", 1)
    whole = clean_target(reader, rows)
    assert isinstance(whole, DenseTarget)
    for label in range(2):
        own = jax.tree.map(lambda x, label=label: x[label], factored)
        np.testing.assert_allclose(own.parts.gradient(own.weights), whole.gradient[label], atol=1e-6)


def test_published_noise_on_the_mean_of_clipped_gradients():
    reader, rows = reader_and_rows()
    privacy = Privacy(mode="paper", epsilon=0.05, delta=1e-4)
    noisy = [paper_target(reader, rows, privacy, jax.random.key(seed)).gradient for seed in range(40)]
    for label, count in ((0, 13), (1, 12)):
        draws = np.stack([np.asarray(x[label][:, :-1]) for x in noisy])
        assert np.sqrt(draws.var(axis=0, ddof=1).mean()) == pytest.approx(3.47489 * 25 / count, rel=0.02)


def test_texts_are_kept_by_score_without_duplicates():
    texts = ["a", "b", "a ", "c", "d", "e"]
    labels, scores = np.asarray([0, 0, 0, 1, 1, 1]), np.asarray([0.3, 0.2, 0.1, 0.6, 0.5, 0.4])
    assert keep_texts(texts, labels, scores, 2, balance=False)[0] == [2, 1, 5, 4]
    usable = np.asarray([True, False, True, True, True, True])
    assert keep_texts(texts, labels, scores, 3, balance=False, usable=usable)[0] == [2, 1, 5, 4, 3]
    kept, dropped = keep_texts(texts, labels, scores, 2, balance=True)
    # Class 1 loses its worst until one is left, whose score is higher still.
    assert kept == [2, 1, 5] and dropped == {"duplicates": 1, "unusable": 0, "balance": 1}


def test_labels_by_the_prompt_are_the_likelier_words():
    model, prompt, words = load_language_model("tiny", dropout=None), " it was", (" bad", " great")
    texts = ["a film", "the plot is dull and long", "good", "what a time"]

    def log_probability(head, word):
        ids, begun = (model.tokenizer.encode(text).ids for text in (head + word, head))
        hidden, _ = model.decoder.apply(
            {"params": model.params}, Batch(token_ids=jnp.asarray([ids], jnp.int32)), method="states"
        )
        logits = jax.nn.log_softmax(model.decoder.apply({"params": model.params}, hidden[0], method="logits"))
        return sum(float(logits[at - 1, ids[at]]) for at in range(len(begun), len(ids)))

    wanted = [int(np.argmax([log_probability(text + prompt, word) for word in words])) for text in texts]
    assert zero_shot_labels(model, texts, prompt, words).tolist() == wanted


def test_reference_differs_where_the_published_code_does():
    found = reference(per_class=3)
    assert (found.admm.start_norm, found.admm.freeze_prompt, found.admm.keep) == (1.4, False, "loss")
    assert found.vocabulary == "alpha" and found.filtering.balance and found.per_class == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt is empty, and toy/reviews has none of its own"),
        ({"label_words": ("bad",)}, "label_words are 1, and toy/reviews has 2 classes"),
        ({"label_words": ("zap", "zip")}, "begin with the same token"),
        ({"admm": ADMM(nearest=5000)}, "admm.nearest is 5000, and the vocabulary filter keeps"),
        ({"real_length": 4000}, "take fewer"),
    ],
)
def test_settings_that_do_not_fit(problem, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        gradmm.distill(dataclasses.replace(CONFIG, **changes), problem, key=KEY, run=run_in(tmp_path / "run"))


def test_private_experiments_show_no_real_texts_and_spend_once():
    quiet = EvaluationConfig(baselines=(), full_epochs=0.0)
    with pytest.raises(UserError, match="full_epochs is 1, and a learner of all real texts is not private"):
        ExperimentConfig(method="gradmm", settings=PRIVATE, evaluation=EvaluationConfig(baselines=()))
    with pytest.raises(UserError, match="baselines random keep or show real texts, and privacy is gaussian"):
        ExperimentConfig(method="gradmm", settings=PRIVATE, evaluation=EvaluationConfig(baselines=("random",)))
    with pytest.raises(UserError, match="seeds is 2, and each distillation would spend the privacy budget anew"):
        ExperimentConfig(method="gradmm", settings=PRIVATE, evaluation=quiet, seeds=2)
    assert ExperimentConfig(method="gradmm", settings=PRIVATE, evaluation=quiet).settings == PRIVATE


def test_a_class_without_texts_has_no_clean_target(problem, tmp_path):
    train = problem.data.train
    one_class = with_train(problem, train.take(np.flatnonzero(train.labels == 1)))
    with pytest.raises(UserError, match="class 0 has no real text to match"):
        gradmm.distill(CONFIG, one_class, key=KEY, run=run_in(tmp_path / "run"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRADMM(per_class=200), "per_class is 200, and 10 rounds of 10 texts are made"),
        (lambda: GRADMM(prefix=""), "prefix is empty"),
        (lambda: GRADMM(prefix="a {label} text:"), "has a brace: it is taken word for word"),
        (lambda: GRADMM(prefix="a {class} text:", making="sampling"), "has a brace: it is taken word for word"),
        (lambda: GRADMM(making="none"), "making is 'none': give admm or sampling"),
        (lambda: Filtering(distance_weight=-1.0), "filtering.distance_weight is -1.0: accepted is 0 or more"),
        (lambda: GRADMM(admm=ADMM(distance="l2"), privacy=PRIVACY), "a noisy sum has a direction alone"),
        (lambda: Filtering(few_shot=True), "needs filtering.examples"),
        (lambda: Privacy(mode="gaussian"), "privacy.records is 0"),
        (lambda: Privacy(mode="gaussian", epsilon=0.0, records=1), "epsilon is 0.0"),
        (lambda: Privacy(mode="paper", delta=1.0), "delta is 1.0"),
        (lambda: Privacy(mode="poisson", adjacency="replace_one", records=1), "Poisson needs add_remove"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(UserError, match=message):
        make()
