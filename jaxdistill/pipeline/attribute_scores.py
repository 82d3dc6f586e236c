"""What students say after they were tuned on texts, measured once each and kept on disk as it comes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.data.multiple_choice import read_questions
from jaxdistill.data.prompts import Prompts, load_prompts
from jaxdistill.data.readers import split_files
from jaxdistill.evaluation.alignment import update_cosine
from jaxdistill.evaluation.attribute_evaluation import draw_prompts, evaluate_attribute
from jaxdistill.evaluation.attribute_scorer import load_attribute_scorer
from jaxdistill.evaluation.continuations import mean_token_entropy
from jaxdistill.evaluation.likelihoods import LanguageModel, load_language_model
from jaxdistill.evaluation.multiple_choice import answer_questions
from jaxdistill.generation.contrast import Contrast, Pair
from jaxdistill.generation.scorers import Model, Scorer
from jaxdistill.io import atomic
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.plain import dumps
from jaxdistill.methods.base import Stopped
from jaxdistill.methods.contrastive import boundary_tokens
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.methods.unidetox import fine_tune
from jaxdistill.pipeline.attribute_config import CONTRAST, DECODING, UNTOUCHED, AttributeConfig
from jaxdistill.pipeline.keys import named_key

if TYPE_CHECKING:
    from jaxdistill.pipeline.attribute_run import Stages

_SHOWN_PROMPTS = 6


class Measure:
    """Everything that a language model is measured by.

    Args:
      config: see there.
      cache: folder of texts' scores.

    Raises:
      UserError: a scorer or the prompts cannot be loaded, or the scorer does not know the attribute.
    """

    def __init__(self, config: AttributeConfig, cache: Path):
        settings = config.evaluation
        self._config, self._settings, self._cache = config, settings, cache
        self.scorer = load_attribute_scorer(settings.scorer)
        label = settings.attribute.label
        if label not in self.scorer.labels:
            raise UserError(
                f"attribute scorer {self.scorer.name!r} has no label {label!r}: accepted are "
                f"{', '.join(self.scorer.labels)}"
            )
        self.fluency = load_language_model(settings.language_model) if settings.language_model else None
        prompts = settings.prompts
        self.prompts: Mapping[str, Prompts] = {
            "dev": load_prompts(prompts.source, split="dev", words=prompts.words, at_most=prompts.dev),
            "test": load_prompts(prompts.source, split="test", words=prompts.words, at_most=prompts.test),
        }
        files = split_files(Path(settings.multiple_choice)) if settings.multiple_choice else {}
        if missing := [name for name in ("validation", "dev") if files and name not in files]:
            raise UserError(
                f"evaluation.multiple_choice: {settings.multiple_choice} has no file of {missing[0]} questions"
            )
        self._questions = {name: read_questions(files[name]) for name in ("validation", "dev") if name in files}
        self.notes = tuple(dict.fromkeys(note for part in self.prompts.values() for note in part.notes))

    def __call__(
        self, model: LanguageModel, split: str, *, expert: LanguageModel | None = None, generations: int = 0
    ) -> tuple[dict[str, Any], list[list[str]]]:
        """(figures of a model, means over generations; its continuations in the first of them).

        Args:
          model: to be measured.
          split: of the prompts, "dev" or "test".
          expert: decode from the contrast with it instead of from the model alone.
          generations: 0 takes those of the configuration.
        """
        settings, prompts = self._settings, self.prompts[split]
        scorer: Scorer = Model(model.decoder)
        params: PyTree = model.params
        if expert is not None:
            texts = self._config.texts
            scorer = Contrast(scorer, Model(expert.decoder), texts.alpha, texts.beta, texts.shared_cache)
            params = Pair(model.params, expert.params)
        start, stop = boundary_tokens(model.decoder.config, model.name)
        opened = start if self._config.student.start_token else None
        figures: list[dict[str, Any]] = []
        shown: list[list[str]] = []
        for number in range(generations or settings.generations):
            key = self._key(split, number)
            drawn = draw_prompts(
                scorer,
                params,
                model.tokenizer,
                prompts,
                settings.attribute,
                key,
                start=opened,
                stop=stop,
                micro_batch=settings.micro_batch,
            )
            shown = shown or drawn.texts
            found = evaluate_attribute(
                drawn.texts,
                prompts,
                settings.attribute,
                scorer=self.scorer,
                fluency=self.fluency,
                cache=self._cache,
                entropy=mean_token_entropy(scorer, params, drawn, micro_batch=settings.micro_batch),
            )
            figures.append(flat(found | {"shortened_prompts": drawn.shortened / len(prompts.texts)}))
        names = [name for name in figures[0] if all(found.get(name) is not None for found in figures)]
        means = {name: sum(found[name] for found in figures) / len(figures) for name in names}
        if self._questions and expert is None and split == "test":
            answers = answer_questions(
                model, self._questions["validation"], self._questions["dev"], shots=settings.shots
            )
            means["multiple_choice"] = answers.summary()["accuracy"]
        return means, shown

    def _key(self, split: str, number: int) -> Key:
        """Of one draw of continuations: the same for all models, so that what they share drops out of differences."""
        return jax.random.fold_in(named_key(self._config.seed, f"continuations/{split}"), number)


@dataclasses.dataclass
class Student:
    """What came of one student.

    Attributes:
      untouched: figures before any tuning.
      decoding: figures of the contrast decoded from directly; `None` where it cannot be.
      rates: learning rate of each condition.
      chosen_on: of each condition and learning rate, the figures on dev that decided.
      figures: of each condition, one entry a training: [sets][student seeds].
      cosines: of a student that is the base model, the cosine of what tuning on the contrast changed with base -
        expert, [sets][student seeds].
    """

    untouched: dict[str, float]
    decoding: dict[str, float] | None
    rates: dict[str, float]
    chosen_on: dict[str, list[dict[str, float]]]
    figures: dict[str, list[list[dict[str, float]]]]
    cosines: list[list[float]]


class StudentScores:
    """Tunes students and measures them; what is on disk is not done again.

    Args:
      config: see there.
      stages: base model, experts and what a training needs.
      measure: see there.
      path: JSON file of the figures.
      say: prints one line.

    Raises:
      UserError: the file is there and holds something else.
    """

    def __init__(
        self, config: AttributeConfig, stages: Stages, measure: Measure, path: Path, say: Callable[[str], None]
    ):
        self._config, self._stages, self._measure, self._path, self._say = config, stages, measure, path, say
        self._known: dict[str, dict[str, Any]] = {"figures": {}, "samples": {}, "seconds": {}}
        if path.exists():
            try:
                found = json.loads(path.read_bytes())
                self._known = {part: dict(found[part]) for part in self._known}
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} does not hold scores ({error}): remove it to take them again") from None

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time of tuning and measuring, by student and condition."""
        totals: dict[str, float] = {}
        for name, spent in self._known["seconds"].items():
            # A student's name may hold slashes, and begin with another's.
            student = max((s for s in self._config.students if name.startswith(f"{s}/")), key=len, default="")
            of = f"{student}/{name.removeprefix(f'{student}/').partition('/')[0]}"
            totals[of] = totals.get(of, 0.0) + spent
        return totals

    def student(self, name: str, sets: Mapping[str, Sequence[DistilledSet]]) -> Student:
        """Tune and measure one student on all sets of all conditions."""
        config = self._config
        model = load_language_model(name, dropout=None)
        is_base = name == config.base
        untouched = self._get(f"{name}/{UNTOUCHED}", lambda: self._measure(model, "test"))
        decoding = None
        if is_base and DECODING in config.controls:
            expert = self._stages.expert
            decoding = self._get(f"{name}/{DECODING}", lambda: self._measure(model, "test", expert=expert))
        rates: dict[str, float] = {}
        chosen_on: dict[str, list[dict[str, float]]] = {}
        figures: dict[str, list[list[dict[str, float]]]] = {}
        for condition, of_condition in sets.items():
            rates[condition], chosen_on[condition] = self._rate(name, model, condition, of_condition[0])
            settings = dataclasses.replace(config.student, lr=rates[condition])
            figures[condition] = [
                [
                    self._tuned(f"{name}/{condition}/{i}/{j}", settings, model, texts, j, "test", is_base)
                    for j in range(config.student_seeds)
                ]
                for i, texts in enumerate(of_condition)
            ]
        cosines = [[entry["update_cosine"] for entry in row] for row in figures[CONTRAST]] if is_base else []
        return Student(untouched, decoding, rates, chosen_on, figures, cosines)

    def samples(self) -> str:
        """Continuations of some test prompts, before and after."""
        lines: list[str] = []
        for name, texts in self._known["samples"].items():
            lines.append(f"== {name}")
            prompts = self._measure.prompts["test"].texts
            lines += [f"{prompt} |{text}" for prompt, text in zip(prompts, texts, strict=False)]
        return "\n".join(lines) + "\n"

    def _rate(
        self, name: str, model: LanguageModel, condition: str, texts: DistilledSet
    ) -> tuple[float, list[dict[str, float]]]:
        """The learning rate by the rule of `AttributeConfig.learning_rates`, and what decided."""
        config = self._config
        if len(config.learning_rates) < 2:
            return (config.learning_rates or (config.student.lr,))[0], []
        before = self._get(f"{name}/{UNTOUCHED}/dev", lambda: self._measure(model, "dev", generations=1))
        tried = []
        for rate in config.learning_rates:
            settings = dataclasses.replace(config.student, lr=rate)
            found = self._tuned(f"{name}/{condition}/dev/{rate}", settings, model, texts, 0, "dev", False)
            tried.append(
                {"lr": rate} | {key: value for key, value in found.items() if key in ("tp", "emt", "perplexity")}
            )
        return choose_rate(tried, before.get("perplexity"), config.perplexity_bound, config.rate_by), tried

    def _tuned(
        self,
        name: str,
        settings: LanguageModelling,
        model: LanguageModel,
        texts: DistilledSet,
        seed: int,
        split: str,
        with_cosine: bool,
    ) -> dict[str, float]:
        """Figures of a student tuned on one set."""

        def make() -> tuple[dict[str, float], list[list[str]]]:
            assert texts.texts is not None
            own = name.replace("/", "_").replace(".", "_").strip("_")
            tuned = fine_tune(
                settings,
                model,
                [text for (text,) in texts.texts],
                key=jax.random.fold_in(named_key(self._config.seed, "student"), seed),
                run=self._stages.run(own),
                label=f"student {name}",
            )
            found, shown = self._measure(tuned.model, split, generations=1 if split == "dev" else 0)
            if with_cosine:
                found["update_cosine"] = update_cosine(model.params, tuned.model.params, self._stages.expert.params)
            self._stages.forget(own)
            return found, shown

        return self._get(name, make)

    def _get(self, name: str, make: Callable[[], tuple[dict[str, float], list[list[str]]]]) -> dict[str, float]:
        """Figures by name, made and written where they are not there."""
        known = self._known
        if name not in known["figures"]:
            if self._stages.stop():
                raise Stopped("stopped between two students")
            began = time.monotonic()
            figures, continuations = make()
            known["figures"][name] = figures
            known["samples"][name] = [row[0] for row in continuations[:_SHOWN_PROMPTS]]
            known["seconds"][name] = time.monotonic() - began
            atomic.write_text(self._path, dumps(known) + "\n")
            perplexity = f", perplexity {figures['perplexity']:.1f}" if "perplexity" in figures else ""
            self._say(f"{name}: TP {figures['tp']:.3f}, EMT {figures['emt']:.3f}{perplexity}")
        return known["figures"][name]


def choose_rate(tried: Sequence[Mapping[str, float]], before: float | None, bound: float, measure: str = "tp") -> float:
    """The learning rate with the lowest TP, then EMT, of those whose perplexity is at most `bound` times `before`;
    where none is, the one with the lowest perplexity.

    Args:
      tried: "lr", "tp", "emt" and, where it was measured, "perplexity" of each.
      before: perplexity of the untouched student; `None` where it was not measured: then all qualify.
      bound: see above.
      measure: "emt" for the lowest EMT instead, then TP.
    """
    fluent = [found for found in tried if before is None or found.get("perplexity", float("inf")) <= bound * before]
    if not fluent:
        return min(tried, key=lambda found: found.get("perplexity", float("inf")))["lr"]
    return min(fluent, key=lambda found: (found[measure], found["tp"], found["emt"]))["lr"]


def flat(found: Mapping[str, Any]) -> dict[str, float]:
    """Figures of one evaluation as single numbers: of the categories "tp/<category>" and "emt/<category>", the
    perplexity as "perplexity", Dist-n as "distinct_<n>"."""
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if name.startswith("perplexity"):
            numbers["perplexity"] = value["mean"] if isinstance(value, Mapping) else value
        elif name == "distinct":
            numbers |= {f"distinct_{n}": share for n, share in value.items()}
        elif name in ("categories", "combined") and value:
            parts = value if name == "categories" else {"combined": value}
            numbers |= {f"{figure}/{part}": of[figure] for part, of in parts.items() for figure in ("tp", "emt")}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[name] = float(value)
    return numbers
