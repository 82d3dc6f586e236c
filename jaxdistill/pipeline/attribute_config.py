"""The configuration of removing an attribute from language models: typed, frozen, checked at construction."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.attribute_evaluation import AttributeEvaluation
from jaxdistill.methods.contrastive import ContrastiveTexts
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.pipeline.checks import at_least, check_types
from jaxdistill.pipeline.config import LARGEST_SEED

# What a student is tuned on, or how it decodes; "contrast" is the method, the others are its controls.
CONTRAST, BASE_TEXTS, RANDOM_EXPERT, REAL_TEXTS, DECODING = "contrast", "base", "random_expert", "real", "decoding"
UNTOUCHED = "untouched"
Control = Literal["base", "random_expert", "real", "decoding"]


@dataclasses.dataclass(frozen=True)
class PromptsConfig:
    """What students are asked to go on with; see `data.prompts.load_prompts`.

    Attributes:
      source: "toxigen", or a task whose texts begin the prompts.
      words: of a text that make its prompt; 0 takes the whole text ("toxigen").
      dev: prompts that settings are chosen on, at most; 0 for all.
      test: prompts of the result, at most; 0 for all.
    """

    source: str = "toxigen"
    words: int = 0
    dev: int = 0
    test: int = 0

    def __post_init__(self):
        check_types(self, "evaluation.prompts")
        at_least(self, "evaluation.prompts", {"words": 0, "dev": 0, "test": 0})


@dataclasses.dataclass(frozen=True)
class AttributeEvaluationConfig:
    """How students are measured.

    Attributes:
      prompts: see there.
      scorer: folder or hub id of a sequence classifier that knows the attribute.
      attribute: how many continuations of which kind, and which of the scorer's labels counts.
      language_model: a decoder under which the continuations' perplexity is measured; empty for none.
      generations: draws of all continuations, each with a seed of its own; a student's figures are means over them.
      multiple_choice: folder of MMLU questions, see `data.multiple_choice`; empty for none.
      shots: solved questions in front of each of those.
      micro_batch: continuations at once; they do not depend on it.
    """

    prompts: PromptsConfig = PromptsConfig()
    scorer: str = "unitary/toxic-bert"
    attribute: AttributeEvaluation = AttributeEvaluation()
    language_model: str = ""
    generations: int = 5
    multiple_choice: str = ""
    shots: int = 5
    micro_batch: int = 64

    def __post_init__(self):
        check_types(self, "evaluation")
        at_least(self, "evaluation", {"generations": 1, "shots": 0, "micro_batch": 1})
        if not self.scorer:
            raise UserError("evaluation.scorer is empty: give a classifier that knows the attribute")


@dataclasses.dataclass(frozen=True)
class AttributeConfig:
    """One attribute distilled into texts, and students tuned on them.

    Attributes:
      base: language model that the texts are written by, a folder or hub id.
      attribute: corpus that the expert is trained on, see `data.corpus.load_corpus`; its dev part is the expert's.
      neutral: corpus of the control "random_expert": as many of its texts.
      real: corpus of the control "real": texts without the attribute.
      expert: how both experts are trained.
      texts: how texts are drawn.
      students: language models to tune, folders or hub ids.
      student: how they are tuned.
      learning_rates: of the students, chosen on dev prompts for each student and each condition by one rule: of
        those whose perplexity is at most `perplexity_bound` times that of the untouched student the one with the lowest
        `rate_by`; where none is, the one with the lowest perplexity. Empty takes `student.lr`.
      rate_by: "tp", ties by EMT; or "emt", which few dev prompts tell better.
      perplexity_bound: see `learning_rates`.
      controls: texts that other students are tuned on: "base" from the base model alone under the same alpha,
        "random_expert" from the contrast with an expert trained on neutral text, "real" of a corpus; "decoding" is the
        contrast itself, decoded from without any training (of students that are the base model).
      sets: sets of texts, each drawn anew.
      student_seeds: trainings on each set.
      export_expert: keep the expert in the run folder; else it is removed when the run is done.
      seed: all randomness.
      checkpoint_seconds: time between checkpoints.
    """

    base: str = "openai-community/gpt2-xl"
    attribute: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    expert: LanguageModelling = LanguageModelling()
    texts: ContrastiveTexts = ContrastiveTexts()
    students: tuple[str, ...] = ()
    student: LanguageModelling = LanguageModelling()
    learning_rates: tuple[float, ...] = ()
    rate_by: Literal["tp", "emt"] = "tp"
    perplexity_bound: float = 1.1
    controls: tuple[Control, ...] = (BASE_TEXTS, RANDOM_EXPERT, REAL_TEXTS, DECODING)
    sets: int = 3
    student_seeds: int = 3
    evaluation: AttributeEvaluationConfig = AttributeEvaluationConfig()
    export_expert: bool = False
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        check_types(self, "config")
        at_least(self, "config", {"sets": 1, "student_seeds": 1, "checkpoint_seconds": 0})
        for field in ("base", "attribute", "students"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty: give the models or corpora it names")
        for control, corpus in ((RANDOM_EXPERT, "neutral"), (REAL_TEXTS, "real")):
            if control in self.controls and not getattr(self, corpus):
                raise UserError(f"{corpus} is empty, and the control {control!r} needs a corpus of such texts")
        if len(set(self.controls)) < len(self.controls) or len(set(self.students)) < len(self.students):
            raise UserError("controls and students must each be named once")
        if any(not 0.0 < rate < float("inf") for rate in self.learning_rates):
            raise UserError(f"learning_rates are {self.learning_rates}: accepted are numbers above 0")
        if self.student.keep != "last":
            raise UserError("student.keep is 'best': students have no dev texts; accepted is 'last'")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UserError(f"seed is {self.seed}: accepted are seeds from 0 to {LARGEST_SEED}")

    @property
    def conditions(self) -> tuple[str, ...]:
        """What students are tuned on, the method first."""
        return (CONTRAST, *(control for control in self.controls if control != DECODING))


def smoke_attribute(config: AttributeConfig) -> AttributeConfig:
    """The same steps on the built-in reviews with tiny random models, in seconds."""

    def brief(training: LanguageModelling) -> LanguageModelling:
        return dataclasses.replace(
            training, updates=2, epochs=0.0, rows=4, micro_batches=1, selections=1, row_length=32, dtype="float32"
        )

    evaluation = config.evaluation
    return dataclasses.replace(
        config,
        base="tiny",
        attribute=("toy/reviews[negative]",),
        neutral=("toy/reviews",),
        real=("toy/reviews[positive]",),
        expert=brief(config.expert),
        texts=dataclasses.replace(config.texts, count=4, length=16, micro_batch=4),
        students=("tiny",),
        student=brief(config.student),
        learning_rates=(),
        sets=1,
        student_seeds=1,
        evaluation=dataclasses.replace(
            evaluation,
            prompts=PromptsConfig("toy/reviews", words=2, dev=2, test=3),
            scorer="tiny",
            attribute=dataclasses.replace(
                evaluation.attribute, label="LABEL_1", continuations=2, max_new=6, combined=()
            ),
            language_model="tiny",
            generations=1,
            multiple_choice="",
            micro_batch=8,
        ),
    )
