"""Settings of GRADMM, with its presets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxdistill.core.errors import UserError
from jaxdistill.generation.vocabulary import VocabularyFilter
from jaxdistill.methods.gradmm_admm import ADMM
from jaxdistill.objectives.head_sketch import SketchKind
from jaxdistill.privacy.accounting import Adjacency, Budget
from jaxdistill.privacy.mechanism import Clip


@dataclasses.dataclass(frozen=True)
class Privacy:
    """What the result may tell of the training texts.

    Attributes:
      mode: "off"; "paper", the published noise on each class's mean gradient, which is NOT private from end to end;
        "gaussian", one noisy clipped sum over all training texts, which all that follows is made of alone; "poisson",
        several such sums over random parts of them.
      epsilon, delta, adjacency: of the whole run, see `privacy.accounting.Budget`. One labelled text is the unit.
      bound: largest norm of what a text contributes.
      clip: see `privacy.mechanism.Mechanism`.
      sketch, size: of the gradients, see `objectives.head_sketch`; size of those that have one.
      sketch_seed: public.
      rate, releases: of "poisson".
      records: texts of a class, a public estimate: the signal that can be hoped for is told from it.
      least_ratio: the lowest ratio of signal to noise, by that estimate, that a run is worth starting with.
      force: start in spite of it.
      noise_seed: makes the noise reproducible and so void of privacy, for research; below 0 the noise is secret.
      leaky: allow baselines of real texts; marks the run as not private.
      signal: False releases noise alone: the control that shows what the private texts were worth.
    """

    mode: Literal["off", "paper", "gaussian", "poisson"] = "off"
    epsilon: float = 4.0
    delta: float = 1e-5
    adjacency: Adjacency = "add_remove"
    bound: float = 1.0
    clip: Clip = "clip"
    sketch: SketchKind = "label_rows+gauss"
    size: int = 1024
    sketch_seed: int = 0
    rate: float = 0.01
    releases: int = 1
    records: int = 0
    least_ratio: float = 0.5
    force: bool = False
    noise_seed: int = -1
    leaky: bool = False
    signal: bool = True

    def __post_init__(self):
        if self.mode == "off":
            return
        self.budget()
        if self.mode == "poisson" and self.adjacency == "replace_one":
            raise UserError(
                "privacy.adjacency replace_one is accounted for mode gaussian only: Poisson needs add_remove"
            )
        if not 0.0 < self.bound < float("inf"):
            raise UserError(f"privacy.bound is {self.bound}: accepted is a number above 0")
        if not 0.0 < self.rate <= 1.0 or self.releases < 1 or self.size < 1:
            raise UserError(
                f"privacy.rate {self.rate}, releases {self.releases} and size {self.size}: accepted are a rate above 0 "
                "and at most 1, and whole numbers from 1"
            )
        if self.private and self.records < 1:
            raise UserError(
                f"privacy.records is {self.records}: give a public estimate of how many training texts a class has"
            )

    @property
    def private(self) -> bool:
        """Whether the mode promises anything."""
        return self.mode in ("gaussian", "poisson")

    def budget(self) -> Budget:
        return Budget(self.epsilon, self.delta, self.adjacency)


# In a prefix: the label word of the class.
LABEL = "{label}"


@dataclasses.dataclass(frozen=True)
class Filtering:
    """Which of the texts are kept.

    Attributes:
      distance_weight, likelihood_weight: texts are sorted by the one times their distance plus the other times their
        negative log-likelihood a token; with both 0 they are kept as they come.
      few_shot: drop texts that the language model, shown `examples`, would label otherwise.
      examples: texts with their labels for that, class by class, hand-written.
      zero_shot: drop texts that it would label otherwise when asked by the prompt.
      balance: afterwards drop the worst texts of a class whose mean score is higher than the other's; two classes only.
    """

    distance_weight: float = 1.0
    likelihood_weight: float = 0.0
    few_shot: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    zero_shot: bool = False
    balance: bool = False

    def __post_init__(self):
        for field in ("distance_weight", "likelihood_weight"):
            if not 0.0 <= (value := getattr(self, field)) < float("inf"):
                raise UserError(f"filtering.{field} is {value}: accepted is 0 or more")
        if self.few_shot and not self.examples:
            raise UserError("filtering.few_shot needs filtering.examples: some texts with their labels")


@dataclasses.dataclass(frozen=True)
class GRADMM:
    """Settings. Texts train learners by a fixed recipe.

    Attributes:
      per_class: texts a class that are kept.
      model: the language model whose head's gradients are matched, and that reads the texts out: "tiny", a folder or a
        hub id.
      prompt, label_words: see `gradmm_reading.make_form`; empty takes those of the task table.
      head: whose gradient is matched: "trained", the language model's own; "fresh", one of zeros over the label words.
        A head that fits the task gives texts of all classes the same gradients but for their sign, since their sum is 0
        there, and what is matched is that of texts it judges wrongly. The gradients of a fresh one are the classes'
        mean features.
      making: "admm"; or "sampling", where the language model goes on from the prefix by itself: the control that shows
        what matching adds. With `filtering.distance_weight` 0 nothing is matched at all.
      prefix: what the language model has read before it chooses a text, the same for all classes; of "sampling"
        {label} in it stands for the class's label word.
      length: tokens of a text; 0 takes the mean of the real texts, 32 where these are private.
      rounds, texts: of each class: `rounds` x `texts` texts, those of a round matched together.
      rounds_at_once: of each class, in memory together; 0 for all.
      real_per_class: random training texts whose gradient is the target; 0 for all. Modes that are private take all.
      real_length: tokens of a real text that are read.
      vocabulary: tokens that texts may be made of, see `generation.vocabulary`.
      micro_batch: real texts in the model at once.
      admm, filtering, privacy: see there.
    """

    per_class: int = 50
    model: str = "microsoft/phi-1_5"
    prompt: str = ""
    label_words: tuple[str, ...] = ()
    head: Literal["trained", "fresh"] = "trained"
    making: Literal["admm", "sampling"] = "admm"
    prefix: str = "The"
    length: int = 0
    rounds: int = 10
    texts: int = 10
    rounds_at_once: int = 0
    real_per_class: int = 50
    real_length: int = 128
    vocabulary: VocabularyFilter = "punct"
    micro_batch: int = 32
    admm: ADMM = ADMM()
    filtering: Filtering = Filtering()
    privacy: Privacy = Privacy()

    def __post_init__(self):
        least = {"per_class": 1, "length": 0, "rounds": 1, "texts": 1, "rounds_at_once": 0, "real_per_class": 0}
        for field, bound in (least | {"real_length": 1, "micro_batch": 1}).items():
            if (value := getattr(self, field)) < bound:
                raise UserError(f"{field} is {value}: accepted is {bound} or more")
        if self.per_class > self.rounds * self.texts:
            raise UserError(
                f"per_class is {self.per_class}, and {self.rounds} rounds of {self.texts} texts are made: accepted are "
                "as many or fewer"
            )
        if self.head not in ("trained", "fresh"):
            raise UserError(f"head is {self.head!r}: give trained or fresh")
        if self.making not in ("admm", "sampling"):
            raise UserError(f"making is {self.making!r}: give admm or sampling")
        if "{" in (self.prefix.replace(LABEL, "") if self.making == "sampling" else self.prefix):
            taken = "it is taken word for word, but for {label} where making is sampling"
            raise UserError(f"prefix {self.prefix!r} has a brace: {taken}")
        if not self.prefix:
            raise UserError("prefix is empty: give a word at least, which texts follow on")
        if self.privacy.private and self.admm.distance != "cos":
            raise UserError(f"admm.distance is {self.admm.distance!r}: a noisy sum has a direction alone, give cos")

    @property
    def groups(self) -> tuple[int, ...]:
        """Rounds of each class that are in memory together, group by group."""
        at_once = self.rounds_at_once or self.rounds
        return tuple(min(at_once, self.rounds - begin) for begin in range(0, self.rounds, at_once))

    @property
    def outer_steps(self) -> int:
        """Of all groups, one after another."""
        return self.admm.outer_steps * len(self.groups)


def smoke(settings: GRADMM) -> GRADMM:
    """The same method, with a tiny language model and a few steps of everything."""
    privacy = settings.privacy
    if privacy.private:
        privacy = dataclasses.replace(privacy, size=8, force=True)
    return dataclasses.replace(
        settings,
        per_class=1,
        model="tiny",
        prompt=" it was ",
        label_words=(),
        prefix="the",
        length=4,
        rounds=1,
        texts=2,
        rounds_at_once=0,
        real_per_class=min(settings.real_per_class, 4),
        real_length=8,
        vocabulary="none",
        admm=dataclasses.replace(settings.admm, outer_steps=2, inner_steps=2, candidates=2, nearest=5, start_norm=0.0),
        filtering=dataclasses.replace(settings.filtering, few_shot=False),
        privacy=privacy,
    )


def reference(**changes: Any) -> GRADMM:
    """What the published code does (Nguyen et al. 2025).

    But for the schedule of the learning rate, which never takes effect there, and for what is copied there from a round
    to each of its texts, which is of the text itself here.
    """
    given = GRADMM(**changes)
    return dataclasses.replace(
        given,
        vocabulary="alpha",
        admm=dataclasses.replace(given.admm, start_norm=1.4, freeze_prompt=False, keep="loss"),
        filtering=dataclasses.replace(given.filtering, balance=True),
    )
