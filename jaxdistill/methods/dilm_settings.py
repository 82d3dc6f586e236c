"""Settings of DiLM, with its presets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import optax

from jaxdistill.core.errors import UserError
from jaxdistill.methods.dilm_learners import Learners
from jaxdistill.methods.dilm_pool import Pooling
from jaxdistill.methods.language_settings import LanguageModelling
from jaxdistill.objectives.generator import Reduction


@dataclasses.dataclass(frozen=True)
class Matching:
    """Stage 1: teaching the generator by gradient matching.

    Attributes:
      updates: of the generator; 0 leaves the language model as stage 0 made it ("vanilla LM").
      lr, warmup, first_update_is_zero, weight_decay, decay_norms, clip: of AdamW with warm-up and cosine decay, see
        `methods.language_settings.LanguageModelling`.
      temperature: weights of a class's texts are softmax(-loss / temperature).
      reduction: see `objectives.generator.text_losses`.
      dropout: whether the generator's own rates are used.
      micro_batch: texts in the generator at once, see `objectives.generator.generator_matching`; 0 for all.
      selections: how often sets are drawn and scored on dev; once more before the first update.
      sets, students, per_class: of a selection: sets drawn, learners trained on each, texts a class. They share dev:
        each learner scores its own part.
      keep: "best" of the selections, or "last".
    """

    updates: int = 20000
    lr: float = 3e-7
    warmup: float = 0.05
    first_update_is_zero: bool = False
    weight_decay: float = 0.01
    decay_norms: bool = False
    clip: float = 1.0
    temperature: float = 1.0
    reduction: Reduction = "text_mean"
    dropout: bool = True
    micro_batch: int = 0
    selections: int = 10
    sets: int = 5
    students: int = 5
    per_class: int = 20
    keep: Literal["best", "last"] = "best"

    def __post_init__(self):
        least = {"updates": 0, "micro_batch": 0, "selections": 1, "sets": 1, "students": 1, "per_class": 1}
        for field, bound in least.items():
            if (value := getattr(self, field)) < bound:
                raise UserError(f"matching.{field} is {value}: accepted is {bound} or more")
        for field in ("temperature", "lr"):
            if not 0.0 < (value := getattr(self, field)) < float("inf"):
                raise UserError(f"matching.{field} is {value}: accepted is a number above 0")
        if self.reduction not in ("text_mean", "padded_mean"):
            raise UserError(f"matching.reduction is {self.reduction!r}: give text_mean or padded_mean")
        if self.micro_batch and self.reduction == "padded_mean":
            raise UserError("matching.micro_batch must be 0 with padded_mean: a text's loss depends on its batch")
        if self.updates:
            self.optimizer()

    @property
    def select_at(self) -> tuple[int, ...]:
        """Numbers of updates after which the generator is scored."""
        count = min(self.selections, self.updates)
        return (0, *(round(self.updates * (i + 1) / count) for i in range(count)))

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW as language models are trained by."""
        fields = ("updates", "lr", "warmup", "first_update_is_zero", "weight_decay", "decay_norms", "clip", "keep")
        settings = LanguageModelling(epochs=0.0, **{field: getattr(self, field) for field in fields})
        return settings.optimizer(self.updates)


@dataclasses.dataclass(frozen=True)
class DiLM:
    """Settings. Texts train learners by a fixed recipe.

    Attributes:
      per_class: texts a class.
      generator: the causal language model that is trained: "tiny", a folder or a hub id.
      trained: folder of a generator that an earlier run has kept (`generator`, or `language_model` as it was before
        stage 1): stages 0 and 1 are left out.
      max_length: most tokens of a generated example, start and end included.
      language_model: stage 0, training on all real texts.
      matching, learners, pooling: stage 1.
      oversample: texts drawn for each one that is kept; 1 keeps what is drawn first.
      choose: how those kept are chosen, by the learner's sentence vectors before any training.
    """

    per_class: int = 10
    generator: str = "openai-community/gpt2"
    trained: str = ""
    max_length: int = 68
    language_model: LanguageModelling = LanguageModelling(
        updates=80000,
        epochs=0.0,
        rows=64,
        row_length=68,
        reduction="text_mean",
        truncate=True,
        lr=1e-5,
        warmup=0.1,
        dropout=True,
        selections=16,
        keep="last",
    )
    matching: Matching = Matching()
    learners: Learners = Learners()
    pooling: Pooling = Pooling()
    oversample: int = 100
    choose: Literal["k_means", "herding", "random"] = "k_means"

    def __post_init__(self):
        for field, least in {"per_class": 1, "max_length": 4, "oversample": 1}.items():
            if (value := getattr(self, field)) < least:
                raise UserError(f"{field} is {value}: accepted is {least} or more")
        if self.choose not in ("k_means", "herding", "random"):
            raise UserError(f"choose is {self.choose!r}: give k_means, herding or random")
        if self.language_model.row_length < self.max_length:
            raise UserError(
                f"language_model.row_length is {self.language_model.row_length}: it must be at least max_length, "
                f"{self.max_length}"
            )


def smoke(settings: DiLM) -> DiLM:
    """The same method, with a tiny language model and a few steps of everything."""
    language_model = dataclasses.replace(
        settings.language_model, updates=2, epochs=0.0, rows=8, micro_batches=1, row_length=32, selections=1
    )
    few = {"updates": min(settings.matching.updates, 2), "selections": 1, "sets": 1, "students": 1, "per_class": 1}
    recipe = dataclasses.replace(settings.learners.recipe, steps=2, batch_size=8)
    teacher = {"teacher_sets": 1, "teacher_per_class": 4, "teacher_pool": 40}
    return dataclasses.replace(
        settings,
        per_class=1,
        generator="tiny",
        trained="",
        max_length=32,
        oversample=min(settings.oversample, 2),
        language_model=language_model,
        matching=dataclasses.replace(settings.matching, micro_batch=0, **few),
        learners=dataclasses.replace(settings.learners, trainings=1, matches=2, every=2, recipe=recipe, **teacher),
        pooling=dataclasses.replace(settings.pooling, batch=2, refresh=1, texts=0, micro_batch=4),
    )


def reference(**changes: Any) -> DiLM:
    """What the published code does (Maekawa et al. 2024).

    But for the split that it selects on, see `Run.protocol`; for the vectors by which texts are clustered (here what
    the learner's head reads) and chosen (here the mean over tokens), which are the last layer's [CLS] there; and for
    stage 1 in bfloat16, which is float32 here.
    """
    given = DiLM(**changes)
    loops = -(-given.matching.updates // given.learners.matches)
    return dataclasses.replace(
        given,
        language_model=dataclasses.replace(
            given.language_model, reduction="padded_mean", first_update_is_zero=True, decay_norms=True, dtype="bfloat16"
        ),
        matching=dataclasses.replace(
            given.matching, reduction="padded_mean", first_update_is_zero=True, decay_norms=True, keep="last"
        ),
        learners=dataclasses.replace(given.learners, trainings=max(loops, 1)),
        pooling=dataclasses.replace(given.pooling, pick="cycle"),
    )
