"""An inverter's training as a run: its folder, going on, what is left out of the corpus, and a set made with it."""

from __future__ import annotations

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from helpers import ROOT

from jaxdistill.core.errors import UserError
from jaxdistill.data.corpus import Corpus
from jaxdistill.data.sources import load_task
from jaxdistill.evaluation.embed_space import Embedder
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.inversion import Correcting, Tokens, invert
from jaxdistill.methods.inverter_folder import load_inverter, save_inverter
from jaxdistill.methods.registry import method_named
from jaxdistill.models.inverter import init_inverter
from jaxdistill.pipeline.config import LearnerConfig, TaskConfig, WordsConfig
from jaxdistill.pipeline.inverter_config import InverterConfig, smoke_inverter
from jaxdistill.pipeline.inverter_run import _clean, run_inverter
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.overrides import load_config
from jaxdistill.pipeline.prepare import prepare

CONFIGS = sorted((ROOT / "experiments/configs/inverters").glob("*.py"))
CONFIG = dataclasses.replace(load_config(f"{CONFIGS[0]}:smoke", InverterConfig), checkpoint_seconds=0.0)
DALLME = method_named("dallme")


def quiet(line):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "inverter"
    return folder, run_inverter(CONFIG, folder, say=quiet)


@pytest.fixture(scope="module")
def problem():
    learner = LearnerConfig(name="mlp", words=WordsConfig(vectors="tiny"))
    whole = prepare(TaskConfig(name="toy/reviews", max_length=24), learner)
    few = whole.data.train.take(np.arange(60))
    return dataclasses.replace(whole, data=dataclasses.replace(whole.data, train=few))


def test_the_run_folder(finished):
    folder, result = finished
    assert json.loads((folder / "result.json").read_text())["round_trip"] == result["round_trip"]
    for figures in result["round_trip"].values():
        assert -1.0 <= figures["median_cosine"] <= 1.0 and figures["texts"] == 4
    first, corrected = (result["round_trip"][name]["mean_cosine"] for name in ("first_guess", "corrected"))
    assert corrected >= first - 1e-6
    assert result["real_examples"] == 64 and {"inverter_dev_loss", "corrector_2_dev_loss"} <= set(result)
    trained = load_inverter(folder / "model")
    embedder = Embedder(CONFIG.space)
    back = invert(trained.models(embedder), embedder.texts(["a good film"]), Correcting(steps=1, beams=2, rows=1))
    assert back.token_ids.shape == (1, CONFIG.length) and back.lengths[0] >= 1
    with pytest.raises(UserError, match="belongs to the embedding space"):
        trained.models(Embedder(dataclasses.replace(CONFIG.space, normalised=False)))


def test_a_stopped_run_goes_on_to_the_same_numbers(finished, tmp_path):
    """Stopped once in each of the three trainings."""
    folder, lines = tmp_path / "run", []
    for after in (2, 1, 1):
        asked = iter([False] * after + [True] * 100)
        with pytest.raises(Stopped):
            run_inverter(CONFIG, folder, stop=lambda asked=asked: next(asked), say=lines.append)
    result = run_inverter(CONFIG, folder, say=lines.append)
    assert sum("resuming" in line for line in lines) >= 3
    own, other = (load_inverter(where / "model") for where in (folder, finished[0]))
    np.testing.assert_array_equal(own.params["t5"]["shared"]["table"], other.params["t5"]["shared"]["table"])
    np.testing.assert_array_equal(own.corrector_params["segments"], other.corrector_params["segments"])
    assert result["round_trip"] == finished[1]["round_trip"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_what_it_is_and_has_a_smoke_form(path):
    config = load_config(str(path), InverterConfig)
    assert path.read_text().startswith('"""')
    assert load_config(f"{path}:smoke", InverterConfig) == smoke_inverter(config)


def test_what_stands_in_dev_or_test_is_not_learned_from():
    data = load_task("toy/reviews")
    held_out = data.test.texts[0][0]
    long = " ".join(f"w{i}" for i in range(20))
    corpus = Corpus(
        train=("a text of its own", held_out.upper(), f"x y {long}", "w0 w1 w2"), dev=(long,), notes=(), source_hash="0"
    )
    kept, notes = _clean(dataclasses.replace(CONFIG, texts=0), corpus)
    assert kept == ["a text of its own", "w0 w1 w2"]
    assert notes == ["2 training texts stand in dev or test, or share 13 words in a row: left out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 64}, "more than the 32"),
        ({"width": 15}, "multiple of the 2 heads"),
        ({"vocabulary": 3}, "5 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        run_inverter(dataclasses.replace(CONFIG, **change), tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


def settings(folder, **changes):
    options = {"per_class": 2, "inverter": str(folder / "model"), "restarts": 2, "iterations": 5, "round_trip": 6}
    options |= {"correcting": Correcting(steps=1, beams=2, rows=4), "least_cosine": 0.0}
    return DALLME.config(**options | changes)


def distilled(config, problem, monkeypatch, chance=-1.0):
    monkeypatch.setattr("jaxdistill.methods.dallme.random_cosine", lambda vectors: chance)
    return DALLME.distill(config, problem, key=named_key(0, "distill"), run=Run(say=quiet))


def test_a_set_made_with_it(finished, problem, monkeypatch):
    made = distilled(settings(finished[0]), problem, monkeypatch)
    np.testing.assert_array_equal(made.labels, [0, 1, 0, 1])
    assert made.texts is not None
    facts = made.manifest["generator"]
    trained = load_inverter(finished[0] / "model")
    assert facts["space"] == trained.digest and facts["inverter"] == trained.parameters
    assert dataclasses.replace(trained, corrector_params=None).parameters != trained.parameters
    assert facts["medoid_share"] == facts["sources"].count("medoid") / 4
    real = {text for (text,) in problem.data.train.texts}
    for (text,), source in zip(made.texts, facts["sources"], strict=True):
        assert text in real or source == "inverted"
    assert sum(facts["shares"]) == pytest.approx(2.0)  # 1 in each class


def test_the_manifest_names_the_texts_of_a_pool(finished, problem, monkeypatch):
    made = distilled(settings(finished[0], pool=20), problem, monkeypatch)
    members = made.manifest["members"]
    assert len(set(members)) == 20 and members == sorted(members)
    assert made.texts is not None
    pool = {problem.data.train.texts[row] for row in members}
    for text, source in zip(made.texts, made.manifest["generator"]["sources"], strict=True):
        assert text in pool or source == "inverted"


def test_an_inverter_that_has_read_the_test_texts_is_refused(finished, problem, monkeypatch):
    data = dataclasses.replace(problem.data, test=problem.data.train)
    other = dataclasses.replace(problem, data=data)
    with pytest.raises(UserError, match=r"[1-9]\d* of .* dev and test texts of toy/reviews are among those"):
        distilled(settings(finished[0]), other, monkeypatch)


def test_without_real_texts(finished, problem, monkeypatch):
    """Here the first guess is a training text word for word, but for case and white space: another is made in its
    place."""
    inner, numbers = Tokens.decode, itertools.count()
    copied = problem.data.train.texts[0][0]

    def decode(self, tokenizer, ids, lengths):
        texts = inner(self, tokenizer, ids, lengths)
        return texts if len(texts) == 6 else [f"  {copied.upper()} ", *(f"film {next(numbers)}" for _ in texts[1:])]

    monkeypatch.setattr(Tokens, "decode", decode)
    monkeypatch.setattr(
        "jaxdistill.evaluation.embed_space.Embedder.cosines", lambda embedder, texts, targets: np.ones(len(texts))
    )
    made = distilled(settings(finished[0], fallback=False, attempts=9), problem, monkeypatch)
    assert made.texts is not None and made.manifest["generator"]["medoid_share"] == 0.0
    real = {tuple(words_of(text)) for (text,) in problem.data.train.texts}
    assert len(made.texts) == 4 and not real & {tuple(words_of(text)) for (text,) in made.texts}


def test_low_cosines_give_way_to_real_texts(finished, problem, monkeypatch):
    # Those of the dev texts, six, are higher.
    monkeypatch.setattr(
        "jaxdistill.evaluation.embed_space.Embedder.cosines",
        lambda embedder, texts, targets: np.full(len(texts), 0.5 if len(texts) == 6 else -2.0),
    )
    made = distilled(settings(finished[0]), problem, monkeypatch)
    assert made.texts is not None
    facts = made.manifest["generator"]
    assert (facts["medoid_share"], facts["mean_cosine"], facts["gate"]) == (1.0, None, 0.5)
    rows = [problem.data.train.texts.index(text) for text in made.texts]
    np.testing.assert_array_equal(problem.data.train.labels[rows], made.labels)
    with pytest.raises(UserError, match="0 of 4 texts are usable after 2 clusterings"):
        distilled(settings(finished[0], fallback=False, attempts=2), problem, monkeypatch)


def test_clusters_over_all_classes_have_shares_of_them_as_labels(finished, problem, monkeypatch):
    made = distilled(settings(finished[0], clusters="global"), problem, monkeypatch)
    assert made.soft_labels is not None
    np.testing.assert_allclose(made.soft_labels.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(made.soft_labels.argmax(axis=1), made.labels)


def test_random_weights_are_refused(finished, problem, tmp_path):
    trained = load_inverter(finished[0] / "model")
    drawn = init_inverter(trained.inverter, jax.random.key(1))
    save_inverter(tmp_path / "random", dataclasses.replace(trained, params=drawn, corrector_params=None))
    config = dataclasses.replace(settings(finished[0]), inverter=str(tmp_path / "random"), least_cosine=0.9)
    with pytest.raises(UserError, match="below 0.9.*does not know such texts"):
        DALLME.distill(config, problem, key=named_key(0, "distill"), run=Run(say=quiet))


def test_an_inverter_that_is_no_better_than_chance_is_refused(finished, problem, monkeypatch):
    with pytest.raises(UserError, match="does not know such texts"):
        distilled(settings(finished[0]), problem, monkeypatch, chance=1.0)
    with pytest.raises(UserError, match="no folder of an inverter"):
        distilled(settings(finished[0].parent), problem, monkeypatch)


@pytest.mark.parametrize("change", [{"per_class": 0}, {"tau": 1.5}, {"target": "mean"}, {"least_cosine": 2.0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        DALLME.config(**change)
