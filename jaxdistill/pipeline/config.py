"""The configuration of an experiment: typed, frozen, checked at construction."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxdistill.core.errors import UserError
from jaxdistill.data.balance import BALANCE_OBJECTIVES
from jaxdistill.evaluation.protocols import protocol_named
from jaxdistill.evaluation.recipes import DILM, Recipe
from jaxdistill.evaluation.text_models import is_text_model, target_named
from jaxdistill.methods import dallme, dilm_settings, gradmm_settings
from jaxdistill.methods.dallme import DaLLME
from jaxdistill.methods.dilm_settings import DiLM
from jaxdistill.methods.gradmm_settings import GRADMM
from jaxdistill.methods.registry import BASELINES, method_named
from jaxdistill.models.classic_learner import NETWORKS, ClassicOptions
from jaxdistill.pipeline.checks import at_least, check_types

LARGEST_SEED = 2**31 - 1
SENTENCES = "sentences:"


@dataclasses.dataclass(frozen=True)
class BalanceConfig:
    """Balanced training, of data with protected groups: the training split is cut or weighed; dev and test stay as they
    are.

    Attributes:
      objective: "none", or what is made even: "stratified_y" keeps the classes' shares and makes the groups even within
        each; see `data.balance` for this one, joint, y, g, stratified_g and eo.
      by: "resampling" takes as many examples of each cell as of the smallest, "reweighting" weighs them.
      skew: first make the training split biased, for controlled studies: the share of one class in each group, see
        `data.balance.skew`; 0 leaves it as it is.
      seed: of the choices.
    """

    objective: str = "none"
    by: Literal["resampling", "reweighting"] = "resampling"
    skew: float = 0.0
    seed: int = 0

    def __post_init__(self):
        check_types(self, "task.balance")
        at_least(self, "task.balance", {"seed": 0})
        if not 0.0 <= self.skew < 1.0:
            raise UserError(f"task.balance.skew is {self.skew}: accepted is a share below 1, or 0 for none")
        if self.objective not in ("none", *BALANCE_OBJECTIVES):
            accepted = ", ".join(("none", *BALANCE_OBJECTIVES))
            raise UserError(f"unknown task.balance.objective {self.objective!r}: accepted are {accepted}")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Which data, and how much of a text is read.

    Attributes:
      name: of the task table, or any name with `data_dir`, `text_columns` and `label_column`.
      data_dir: folder of parquet, csv, tsv or jsonl files, one a split; empty looks in `$JAXDISTILL_DATA`, then on the
        hub.
      text_columns, label_column, label_names, group_column: empty takes those of the task table; the group is a
        protected attribute of the writer or of who is written of.
      balance: of the training split, see `BalanceConfig`.
      max_length: tokens of a text at most; 0 takes that of the task table.
      row_length: positions of a packed row; 0 takes max_length.
    """

    name: str = "toy/reviews"
    data_dir: str = ""
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    label_names: tuple[str, ...] = ()
    group_column: str = ""
    balance: BalanceConfig = BalanceConfig()
    max_length: int = 0
    row_length: int = 0

    def __post_init__(self):
        check_types(self, "task")
        at_least(self, "task", {"max_length": 0, "row_length": 0})


@dataclasses.dataclass(frozen=True)
class WordsConfig:
    """Word vectors of a small network.

    Attributes:
      vectors: a GloVe file, its name under `$JAXDISTILL_WEIGHTS`, or an encoder whose word table serves ("minilm"). For
        mlp also "sentences:minilm": one vector a text, the mean of that encoder's last hidden states. Not read for a
        task of vectors, which has its own.
      rows: read the first so many words of a file only; 0 for all.
      split: "words" cuts off punctuation and contractions; "whitespace" cuts at white space alone. Of a file.
      std: scale the vectors so that their numbers have this root mean square; 0 leaves them.
    """

    vectors: str = "minilm"
    rows: int = 0
    split: Literal["words", "whitespace"] = "words"
    std: float = 0.0

    def __post_init__(self):
        check_types(self, "learner.words")
        at_least(self, "learner.words", {"rows": 0, "std": 0})
        if self.sentence_encoder == "":
            raise UserError(f"learner.words.vectors is {self.vectors!r}: behind it stands an encoder, sentences:minilm")

    @property
    def sentence_encoder(self) -> str | None:
        """The encoder of "sentences:<encoder>"; `None` for vectors of words."""
        return self.vectors.removeprefix(SENTENCES) if self.vectors.startswith(SENTENCES) else None


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Which model learns.

    Attributes:
      name: a pretrained model ("minilm", a Hugging Face folder, or a hub id: BERT, RoBERTa, DistilBERT, XLNet, T5,
        GPT-2, OPT, Llama, Phi or Falcon), a tiny random one ("tiny", "tiny:gpt2", ...), or a small network over frozen
        word vectors (text_cnn, bi_rnn, bi_lstm, conv_lstm, mlp).
      trainable: "all", "head" or, for pretrained models, "last_k:2".
      dtype: float32 or, for pretrained models, bfloat16, of matrix products.
      dropout: whether learners drop features at the model's own rates in inner loops too, anew in each step.
      scan_layers, remat_layers: of pretrained models: smaller programs, less memory; see `models.encoder.Encoder`.
      words: of small networks: which vectors, see `WordsConfig`.
      network: of small networks: see `models.classic_learner.ClassicOptions`.
    """

    name: str = "minilm"
    trainable: str = "all"
    dtype: str = "float32"
    dropout: bool = False
    scan_layers: bool = False
    remat_layers: bool = False
    words: WordsConfig = WordsConfig()
    network: ClassicOptions = ClassicOptions()

    def __post_init__(self):
        check_types(self, "learner")
        check_types(self.network, "learner.network")
        if self.name in NETWORKS and (self.scan_layers or self.remat_layers):
            raise UserError(f"learner.scan_layers and remat_layers are for encoders, not for {self.name}")
        if self.words.sentence_encoder is not None and self.name != "mlp":
            raise UserError(f"learner.words.vectors is {self.words.vectors!r}, which is for mlp, not for {self.name}")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"learner.dtype is {self.dtype!r}: accepted are float32 and bfloat16")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured.

    Attributes:
      protocol: clean or paper.
      students: fresh learners of the reported number, each scored on the whole test split; 0 takes the protocol's.
      baselines: coresets, or `teacher_labels`, with their default settings, evaluated beside the method: learners train
        by `recipe`.
      baseline_students: fresh learners of each baseline, at least 2: a difference without an interval says nothing.
      train_by: how learners train on the distilled set: "schedule" by its learned step sizes, "recipe" by `recipe` on
        its texts; "auto" by the schedule where the set has one that fits the learner, and else, if it holds texts, by
        the recipe with its soft labels.
      recipe: how learners train on texts.
      full_epochs: epochs of the full-data reference; 0 leaves it out.
      full_lr: its peak learning rate, and that of other learners of real data (teachers, those that score texts) which
        have none of their own.
      full_students: learners of the full-data reference.
      targets: other models, trained on the same texts beside the learners. Learners are named as in `LearnerConfig`
        and train by `recipe`. Of models that are not neural there are "logistic_regression", "linear_svm",
        "naive_bayes" and "random_forest", then what they see of a text: "/tfidf", "/tfidf_train" or "/encoder"; see
        `evaluation.text_models.Target`. Of sets of texts only.
      target_seeds: random subsets of the baseline `random` for each target, and trainings on each set of learners and
        random forests.
      language_model: a decoder (a folder, a hub id, or "tiny") under which the perplexity of texts that a method wrote
        is measured, beside their diversity and their overlap with the training texts; empty for none.
      text_encoder: an encoder whose sentence vectors find the training texts nearest to those; empty finds them by
        shared words. It reads the whole training split: a hundred short texts a second on one CPU core.
    """

    protocol: str = "clean"
    students: int = 0
    baselines: tuple[str, ...] = ("random", "k_center", "herding", "k_means")
    baseline_students: int = 10
    train_by: Literal["auto", "schedule", "recipe"] = "auto"
    recipe: Recipe = DILM
    full_epochs: float = 1.0
    full_lr: float = 5e-5
    full_students: int = 1
    targets: tuple[str, ...] = ()
    target_seeds: int = 10
    language_model: str = ""
    text_encoder: str = ""

    def __post_init__(self):
        check_types(self, "evaluation")
        protocol_named(self.protocol)
        least = {"students": 0, "full_students": 1, "full_epochs": 0, "baseline_students": 2 if self.baselines else 0}
        at_least(self, "evaluation", least | {"target_seeds": 2})
        for target in self.targets:
            if not target:
                raise UserError("evaluation.targets holds an empty name: give those of learners and text models")
            if is_text_model(target):
                target_named(target)
        if not 0.0 < self.full_lr < float("inf"):
            raise UserError(f"evaluation.full_lr is {self.full_lr}: accepted is a number above 0")
        if unknown := [name for name in self.baselines if name not in BASELINES]:
            raise UserError(f"unknown baseline {unknown[0]!r}: accepted are {', '.join(BASELINES)}")

    @property
    def test_students(self) -> int:
        return self.students or protocol_named(self.protocol).students_test


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One cell of a table.

    Attributes:
      method: name in the registry of methods.
      settings: the method's own configuration; `None` takes its default.
      seed: all randomness.
      seeds: distillations, of seeds seed, seed + 1, ...
      devices: of the mesh; 0 uses one device without a mesh, -1 all there are. Several processes use all of theirs.
      checkpoint_seconds: time between checkpoints.
    """

    task: TaskConfig = TaskConfig()
    learner: LearnerConfig = LearnerConfig()
    method: str = "attention_label"
    settings: Any = None
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0
    seeds: int = 1
    devices: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        check_types(self, "config")
        expected = method_named(self.method).config
        if self.settings is None:
            object.__setattr__(self, "settings", expected())
        elif not isinstance(self.settings, expected):
            raise UserError(
                f"method {self.method!r} takes settings of type {expected.__name__}, "
                f"not {type(self.settings).__name__}: give both, or neither"
            )
        if self.seeds < 1:
            raise UserError(f"seeds is {self.seeds}: at least 1 distillation is needed")
        at_least(self, "config", {"devices": -1, "checkpoint_seconds": 0})
        if not 0 <= self.seed <= LARGEST_SEED - (self.seeds - 1):
            raise UserError(
                f"seed is {self.seed} with {self.seeds} distillations: accepted are seeds from 0 to {LARGEST_SEED}"
            )
        privacy = getattr(self.settings, "privacy", None)
        if privacy is not None and privacy.private and not privacy.leaky:
            if self.evaluation.baselines:
                raise UserError(
                    f"evaluation.baselines {', '.join(self.evaluation.baselines)} keep or show real texts, and privacy "
                    f"is {privacy.mode}: leave them out, or set privacy.leaky"
                )
            if self.evaluation.full_epochs:
                raise UserError(
                    f"evaluation.full_epochs is {self.evaluation.full_epochs:g}, and a learner of all real texts is "
                    "not private: accepted is 0, or set privacy.leaky"
                )
            if self.seeds > 1:
                raise UserError(
                    f"seeds is {self.seeds}, and each distillation would spend the privacy budget anew: accepted is 1"
                )


def smoke(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment on toy data with a tiny learner, two outer steps and two students: runs in seconds."""
    settings = config.settings
    changes: dict[str, Any] = {}
    if hasattr(settings, "outer"):
        small = {"updates": 2, "batch_size": 8, "selections": 1, "inits": min(settings.outer.inits, 2)}
        # Rates are constants of a program: with equal ones, smoke forms share what is compiled.
        changes["outer"] = dataclasses.replace(settings.outer, **small, lr=0.01, decay_every=1)
    if hasattr(settings, "length"):
        changes["length"] = min(settings.length, 16)
    if hasattr(settings, "batch_per_class"):  # the fewest samples and steps that are of the same kind
        batches = min(settings.per_class // settings.batch_per_class, 2)
        changes |= {"per_class": batches, "batch_per_class": 1, "steps": max(batches, min(settings.steps, 2))}
    if hasattr(settings, "pool"):
        changes["pool"] = 50
    if hasattr(settings, "scoring"):
        changes["scoring"] = dataclasses.replace(settings.scoring, learners=1)
    if hasattr(settings, "temperatures"):
        changes |= {"epochs": (0.02, 0.04), "temperatures": settings.temperatures[:1], "students": 1}
    if hasattr(settings, "experts"):
        experts = settings.experts
        changes["experts"] = dataclasses.replace(experts, count=1, epoch_steps=2, span=1, latest_start=0, batch_size=8)
    if isinstance(settings, DiLM):
        settings = dilm_settings.smoke(settings)
    elif isinstance(settings, GRADMM):
        settings, changes = gradmm_settings.smoke(settings), {}
    elif isinstance(settings, DaLLME):
        settings, changes = dallme.smoke(settings), {}
    name = config.learner.name if config.learner.name in NETWORKS else "tiny"
    words = dataclasses.replace(config.learner.words, vectors="tiny")
    evaluation = dataclasses.replace(
        config.evaluation,
        students=2,
        # What fine-tunes a small network is compiled anew for each: baselines run with encoders.
        baselines=config.evaluation.baselines[:1] if name == "tiny" else (),
        baseline_students=2,
        recipe=dataclasses.replace(config.evaluation.recipe, steps=2),
        full_epochs=0.0,
        targets=tuple(map(_quick_target, config.evaluation.targets[:1])),
        target_seeds=2,
        language_model="tiny" if config.evaluation.language_model else "",
        text_encoder="tiny" if config.evaluation.text_encoder else "",
    )
    balance = config.task.balance
    grouped = config.method == "fair" or balance.objective != "none" or balance.skew
    grouped = grouped or getattr(settings, "groupwise", False)
    task = TaskConfig(
        name="toy/reviews:0.8" if grouped else "toy/reviews",
        # A text that is one vector stays a few words.
        max_length=max(changes.get("length", 32), 8),
        balance=balance,
    )
    return dataclasses.replace(
        config,
        task=task,
        learner=dataclasses.replace(config.learner, name=name, words=words),
        settings=dataclasses.replace(settings, **changes),
        evaluation=evaluation,
        seeds=1,
    )


def _quick_target(name: str) -> str:
    """A target of the same kind that is quickly trained."""
    return name if is_text_model(name) or name in NETWORKS or name.startswith("tiny") else "tiny"
