"""One command: an expert, texts that contrast it with the base model, students tuned on them, what they then say."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.data.corpus import Corpus, load_corpus
from jaxdistill.evaluation.alignment import alignment
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.likelihoods import LanguageModel, load_language_model
from jaxdistill.io import atomic
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.distilled import DistilledSet, load_distilled, save_distilled
from jaxdistill.io.plain import dumps, fingerprint, plain
from jaxdistill.io.progress import duration
from jaxdistill.io.workdir import Workdir, open_workdir
from jaxdistill.methods.base import Run
from jaxdistill.methods.contrastive import boundary_tokens, check_length, contrastive_distil
from jaxdistill.methods.unidetox import check_rows, fine_tune
from jaxdistill.models.decoder_folder import load_decoder, read_decoder_config, save_decoder
from jaxdistill.models.hub import find_folder
from jaxdistill.models.pretrained import short_name
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.pipeline.attribute_config import (
    BASE_TEXTS,
    CONTRAST,
    RANDOM_EXPERT,
    REAL_TEXTS,
    AttributeConfig,
)
from jaxdistill.pipeline.attribute_result import attribute_result, summary
from jaxdistill.pipeline.attribute_scores import Measure, StudentScores
from jaxdistill.pipeline.keys import named_key

_ATTRIBUTE, _NEUTRAL = "attribute", "neutral"
_ALIGNED = 64


def run_attribute(
    config: AttributeConfig,
    workdir: str | Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Distil an attribute's opposite into texts and tune students; the same call goes on where it was interrupted.

    Args:
      config: see there.
      workdir: run folder, new or of this same configuration.
      stop: asked after every training step and every text.
      say: prints one line.

    Returns:
      what `result.json` holds.

    Raises:
      UserError: see `io.workdir.open_workdir` and the parts.
      Stopped: `stop()` said so; a checkpoint is kept.
    """
    if jax.process_count() > 1:
        raise UserError("this command runs in one process: start it without launching several")
    say(f"{', '.join(config.attribute)} against {config.base}, run folder {workdir}")
    corpora = {name: load_corpus(sources) for name, sources in _sources(config).items() if sources}
    identity = plain(config) | {"source_hashes": {name: corpus.source_hash for name, corpus in corpora.items()}}
    folder = open_workdir(workdir, identity)
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    try:
        stages = Stages(config, corpora, folder, fingerprint(identity), stop, say)
        measure = Measure(config, folder.path / "score_cache")
    except UserError:
        folder.remove_if_empty()
        raise
    for corpus in corpora.values():
        for note in corpus.notes:
            say(f"note: {note}")
    for note in measure.notes:
        say(f"note: {note}")
    sets = {condition: [stages.texts(condition, i) for i in range(config.sets)] for condition in config.conditions}
    facts = {"experts": stages.records(), "alignment": stages.alignment(sets[CONTRAST][0])}
    scores = StudentScores(config, stages, measure, folder.path / "scores.json", say)
    students = {name: scores.student(name, sets) for name in config.students}
    result = attribute_result(config, corpora, facts, sets, students, scores.seconds)
    folder.write_result(result)
    atomic.write_text(folder.samples, scores.samples())
    stages.clean()
    say(f"{summary(result)}\ntexts: {folder.path / 'sets' / CONTRAST}\nsamples: {folder.samples}")
    return result


def _sources(config: AttributeConfig) -> dict[str, tuple[str, ...]]:
    """Corpora that the configuration reads, by what for."""
    wanted = {_ATTRIBUTE: config.attribute}
    if RANDOM_EXPERT in config.controls:
        wanted[_NEUTRAL] = config.neutral
    if REAL_TEXTS in config.controls:
        wanted[REAL_TEXTS] = config.real
    return wanted


def _check_students(config: AttributeConfig) -> None:
    """What students would be refused for after the hours before them; their weights are not read."""
    for name in config.students:
        sizes = tiny_decoder_config() if name == "tiny" else read_decoder_config(find_folder(name))
        check_rows(config.student, sizes, short_name(name))


class Stages:
    """What comes before students, each stage kept in the run folder once it is there.

    Args:
      config: see there.
      corpora: by what for.
      folder: of the run.
      config_hash: of checkpoints.
      stop, say: see `run_attribute`.

    Raises:
      UserError: a model cannot be loaded, or has no end token.
    """

    def __init__(
        self,
        config: AttributeConfig,
        corpora: dict[str, Corpus],
        folder: Workdir,
        config_hash: str,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ):
        self._config, self._corpora, self._folder, self._hash = config, corpora, folder, config_hash
        self.stop, self._say = stop, say
        _check_students(config)
        if (real := corpora.get(REAL_TEXTS)) is not None and len(real.train) < config.texts.count:
            raise UserError(
                f"real: {len(real.train)} training texts, {config.texts.count} asked: accepted are as many texts.count "
                "or fewer"
            )
        self.base = load_language_model(config.base, dropout=None)
        check_rows(config.expert, self.base.decoder.config, self.base.name)
        check_length(config.texts, self.base.decoder.config.positions)

    def run(self, name: str) -> Run:
        """What a training of this name has: checkpoints of its own."""
        checkpoints = Checkpoints(self._folder.checkpoints / name, config_hash=self._hash)
        return Run(
            checkpoints=checkpoints,
            checkpoint_seconds=self._config.checkpoint_seconds,
            stop=self.stop,
            say=self._say,
            folder=self._folder.path,
        )

    def forget(self, name: str) -> None:
        """Remove the checkpoints of a training whose outcome is kept."""
        if (folder := self._folder.checkpoints / name).exists():
            atomic.remove_folder(folder)

    @functools.cached_property
    def expert(self) -> LanguageModel:
        """The base model trained on texts with the attribute."""
        return self._expert(_ATTRIBUTE)

    @functools.cached_property
    def random_expert(self) -> LanguageModel:
        """The base model trained on as many neutral texts."""
        return self._expert(_NEUTRAL)

    def texts(self, condition: str, number: int) -> DistilledSet:
        """One set of texts."""
        config, path = self._config, self._folder.path / "sets" / condition / str(number)
        if path.exists():
            return load_distilled(path)
        began, settings = time.monotonic(), config.texts
        label = f"{condition} texts, set {number + 1} of {config.sets}"
        key = named_key(config.seed, f"texts/{condition}/{number}")
        facts: dict[str, Any] = {}
        if condition == REAL_TEXTS:
            corpus = self._corpora[REAL_TEXTS].train
            chosen = np.random.default_rng(numpy_seed(key)).choice(len(corpus), settings.count, replace=False)
            texts = [self._cut(corpus[i]) for i in sorted(chosen)]
        else:
            expert = {CONTRAST: "expert", RANDOM_EXPERT: "random_expert", BASE_TEXTS: "base"}[condition]
            if condition == BASE_TEXTS:
                settings = dataclasses.replace(settings, beta=0.0, shared_cache=False)
            found = contrastive_distil(settings, self.base, getattr(self, expert), key=key, label=label)
            texts = list(found.texts)
            facts = {
                "rejected": found.rejected,
                "stopped": float(np.mean(found.stopped)),
                "new_tokens": found.drawn_tokens,
                "tokens_per_second": found.tokens_per_second,
                "token_ids_hash": fingerprint(found.token_ids),
            }
        manifest = {
            "task": None,
            "method": f"unidetox/{condition}",
            "learner": config.base,
            "config": config,
            "seeds": [config.seed, number],
            "source_hash": {name: corpus.source_hash for name, corpus in self._corpora.items()},
            "generation": facts,
        }
        labels = np.zeros(len(texts), np.int32)
        rows: list[tuple[str, ...]] = [(text,) for text in texts]
        made = DistilledSet(labels, ("text",), manifest, texts=rows, text_columns=("text",))
        cost = CostRecord(
            distill_seconds=time.monotonic() - began,
            seconds_per_outer_step=None,
            peak_bytes=peak_memory_bytes(),
            distilled_bytes=made.size_in_bytes,
        )
        made = dataclasses.replace(made, manifest=manifest | {"cost": cost.to_json()})
        path.parent.mkdir(parents=True, exist_ok=True)
        save_distilled(path, made)
        return load_distilled(path)

    def records(self) -> dict[str, Any]:
        """What came of the experts, by what they were trained on."""
        found = {name: self._folder.path / "experts" / f"{name}.json" for name in (_ATTRIBUTE, _NEUTRAL)}
        return {name: _read(path) for name, path in found.items() if path.exists()}

    def alignment(self, texts: DistilledSet) -> dict[str, Any]:
        """How well the argument of the method holds for its texts, see `evaluation.alignment`."""
        assert texts.texts is not None
        start, _ = boundary_tokens(self.base.decoder.config, self.base.name)
        length = self._config.texts.length
        rows = [[start, *self.base.tokenizer.encode(text, add_special_tokens=False).ids] for (text,) in texts.texts]
        rows = [row[:length] for row in rows if len(row) > 1][:_ALIGNED]
        return alignment(self.base.decoder, self.base.params, self.expert.params, rows).summary()

    def clean(self) -> None:
        """Remove what a finished run does not need, experts among it unless they were asked for."""
        for path in (self._folder.checkpoints, self._folder.path / "score_cache"):
            if path.exists():
                atomic.remove_folder(path)
        for name in (_ATTRIBUTE, _NEUTRAL):
            model = self._folder.path / "experts" / name
            if model.exists() and not (self._config.export_expert and name == _ATTRIBUTE):
                atomic.remove_folder(model)

    def _expert(self, name: str) -> LanguageModel:
        config, path = self._config, self._folder.path / "experts" / name
        if path.exists():
            loaded = load_decoder(path, dropout=None)
            return dataclasses.replace(self.base, name=name, params=loaded.params)
        corpus = self._corpora[name]
        texts: Sequence[str] = corpus.train
        if name == _NEUTRAL:
            wanted = len(self._corpora[_ATTRIBUTE].train)
            if len(texts) > wanted:
                draw = np.random.default_rng(numpy_seed(named_key(config.seed, "neutral")))
                texts = [texts[i] for i in sorted(draw.choice(len(texts), wanted, replace=False))]
        self._say(f"expert on {name} texts: {len(texts):,}")
        dev = corpus.dev if config.expert.keep == "best" else ()
        tuned = fine_tune(
            config.expert,
            self.base,
            texts,
            dev,
            key=named_key(config.seed, f"expert/{name}"),
            run=self.run(f"expert_{name}"),
            label=f"expert on {name} texts",
        )
        path.parent.mkdir(exist_ok=True)
        atomic.write_text(path.with_suffix(".json"), dumps(tuned.record | {"texts": len(texts)}) + "\n")
        save_decoder(path, self.base.decoder.config, tuned.model.params, tokenizer=self.base.tokenizer)
        self.forget(f"expert_{name}")
        self._say(f"expert on {name} texts: done in {duration(tuned.record['seconds'])}")
        return dataclasses.replace(tuned.model, name=name)

    def _cut(self, text: str) -> str:
        """A real text of as many tokens of the base model as a drawn one may have."""
        encoding = self.base.tokenizer.encode(text, add_special_tokens=False)
        limit = self._config.texts.length - 1
        return text if len(encoding.ids) <= limit else text[: encoding.offsets[limit - 1][1]]


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove its folder to train the expert again") from None
