"""Real texts as the distilled set: chosen by a coreset rule, optionally with learned soft labels and step sizes."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.coresets import scores, selection
from jaxdistill.data.encoding import encode
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.features import mean_features
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run, manifest
from jaxdistill.methods.example_scores import SCORES, Scoring
from jaxdistill.methods.meta_learning import LrPer, Outer, check_lr_per, finish, initial_step_sizes, learn
from jaxdistill.models.pretrained import load_model
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LabelKind, initial_labels, label_targets


@dataclasses.dataclass(frozen=True)
class ChosenTexts:
    """Settings of every coreset.

    Attributes:
      per_class: texts a class.
      pool: at most about this many random training texts, the same number of each class, are looked at; 0 for all.
      learn_labels: learn label scores and step sizes by the meta-gradient; the texts stay as they are. Otherwise the
        result is texts with hard labels, for a fixed fine-tuning recipe.
      steps, batch_per_class, label_kind, lr_per, initial_lr: of the inner loop, when `learn_labels`.
      outer: of the outer loop, when `learn_labels`.
    """

    per_class: int = 1
    pool: int = 5000
    learn_labels: bool = False
    steps: int = 1
    batch_per_class: int = 1
    label_kind: LabelKind = "soft"
    lr_per: LrPer = "layer"
    initial_lr: float = 0.1
    outer: Outer = Outer()

    def __post_init__(self):
        if self.per_class < 1 or self.pool < 0:
            raise UserError(f"per_class {self.per_class} must be at least 1 and pool {self.pool} at least 0")
        check_lr_per(self.lr_per)
        inner_spec(self, 2)


@dataclasses.dataclass(frozen=True)
class Coreset(ChosenTexts):
    """Settings of coresets that choose by sentence vectors, or by nothing.

    Attributes:
      features: whose sentence vectors tell texts apart: the learner's, or always MiniLM's.
    """

    features: Literal["learner", "minilm"] = "learner"

    def __post_init__(self):
        super().__post_init__()
        if self.features not in ("learner", "minilm"):
            raise UserError(f"unknown features {self.features!r}: give learner or minilm")


@dataclasses.dataclass(frozen=True)
class Scored(ChosenTexts):
    """Settings of coresets that choose by how hard a text is to learn.

    Attributes:
      scoring: how that is found out, by learners trained on the pool, and which texts are kept.
    """

    scoring: Scoring = Scoring()


@dataclasses.dataclass(frozen=True)
class Forgetting(Scored):
    """As `Scored`. Texts are watched over several epochs, two at least."""

    scoring: Scoring = Scoring(learners=1, epochs=4.0)

    def __post_init__(self):
        super().__post_init__()
        if self.scoring.epochs < 2:
            raise UserError(
                f"scoring.epochs is {self.scoring.epochs}: a text can be forgotten at its second visit, give 2 or more"
            )


def inner_spec(config: ChosenTexts, classes: int) -> InnerSpec | None:
    """How a learner trains on a set with learned labels; `None` for plain texts."""
    if not config.learn_labels:
        return None
    return InnerSpec(
        classes=classes,
        per_class=config.per_class,
        batch_per_class=config.batch_per_class,
        steps=config.steps,
        label_kind=config.label_kind,
    )


def text_support(problem: Problem, texts: Split, spec: InnerSpec) -> Batch:
    """Token ids of texts, padded, as the `support` of an inner problem; with labels when these are not learned."""
    encoded = encode(texts, problem.pretrained.tokenizer, int(problem.train.lengths.max()))
    learner = problem.pretrained.learner
    length = max(min(-(-int(encoded.lengths.max()) // 8) * 8, learner.max_length), learner.min_length)
    batch = pad(encoded, np.arange(len(encoded)), length=length)
    hard = np.eye(spec.classes, dtype=np.float32)[texts.labels] if spec.label_kind == "hard" else None
    return Batch(token_ids=batch.token_ids, mask=batch.mask, token_types=batch.token_types, labels=hard)


def choose(selector: str, config: ChosenTexts, problem: Problem, key: Key, run: Run) -> Int[np.ndarray, " n"]:
    """Indices of the chosen training texts, interleaved by class.

    Raises:
      UserError: a class has too few texts; see also `methods.example_scores.ScoreFn`.
      Stopped: the run was asked to stop.
    """
    pool_key, pick_key = jax.random.split(key)
    names, labels = problem.data.task.label_names, problem.train.labels
    if isinstance(config, Scored):
        members = _pool(config, problem, pool_key)
        score_key, tie_key = jax.random.split(pick_key)
        hardness = SCORES[selector](config.scoring, problem, members, key=score_key, run=run)
        picked = scores.select_by_score(
            hardness,
            labels[members],
            config.per_class,
            keep=config.scoring.keep,
            class_names=names,
            seed=numpy_seed(tie_key),
        )
        return members[picked]
    assert isinstance(config, Coreset), "these are the settings of coresets that look at features, or at nothing"
    return _chosen(selector, config, problem, pool_key, [pick_key])[0]


def choose_several(
    selector: str, config: Coreset, problem: Problem, keys: Sequence[Key]
) -> list[Int[np.ndarray, " n"]]:
    """As `choose` does with each key, but all from the pool of the first, whose features are made once."""
    pairs = [jax.random.split(key) for key in keys]
    return _chosen(selector, config, problem, pairs[0][0], [pick for _, pick in pairs])


def _chosen(
    selector: str, config: Coreset, problem: Problem, pool_key: Key, pick_keys: Sequence[Key]
) -> list[Int[np.ndarray, " n"]]:
    names, labels = problem.data.task.label_names, problem.train.labels
    members = np.arange(len(labels))
    features: Float[np.ndarray, "n d"] | None = None
    if selection.coreset_named(selector).needs_features:
        members = _pool(config, problem, pool_key)
        features = _features(config, problem, members)

    def pick(key: Key) -> Int[np.ndarray, " n"]:
        picked = selection.select(
            selector, features, labels[members], config.per_class, class_names=names, seed=numpy_seed(key)
        )
        return members[picked]

    return [pick(key) for key in pick_keys]


def random_texts(per_class: int, problem: Problem, key: Key) -> Int[np.ndarray, " n"]:
    """What `choose` gives for `random`.

    Raises:
      UserError: a class has too few texts.
    """
    return choose("random", Coreset(per_class=per_class), problem, key, Run())


def set_of(chosen: Split, problem: Problem) -> DistilledSet:
    """These texts as a distilled set; the manifest is still to be filled."""
    return DistilledSet(
        labels=chosen.labels.astype(np.int32),
        label_names=problem.data.task.label_names,
        manifest={},
        texts=chosen.texts,
        text_columns=problem.data.task.text_columns,
    )


def initial(selector: str, config: ChosenTexts, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """(what is learned, what is not) before the first outer step; random texts stand for those that only training
    could choose, since nothing is trained here.

    Raises:
      UserError: the settings learn nothing.
    """
    if isinstance(config, Scored):
        chosen = random_texts(config.per_class, problem, key)
    else:
        chosen = choose(selector, config, problem, key, Run())
    return _learned_parts(selector, config, problem, problem.data.train.take(chosen))


def distill(selector: str, config: ChosenTexts, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Choose texts, and learn their labels if asked; see `methods.base.DistillFn`."""
    choose_key, learn_key = jax.random.split(key)
    began = time.monotonic()
    chosen = problem.data.train.take(choose(selector, config, problem, choose_key, run))
    seconds = time.monotonic() - began
    result = set_of(chosen, problem)
    spec = inner_spec(config, problem.classes)
    if spec is None:
        cost = CostRecord(
            distill_seconds=seconds,
            peak_bytes=peak_memory_bytes(),
            distilled_bytes=result.size_in_bytes,
        )
        given = manifest(selector, config, problem, key, cost.to_json())
        if isinstance(config, Scored) or selection.coreset_named(selector).needs_features:
            members = _pool(config, problem, jax.random.split(choose_key)[0])
            if len(members) < len(problem.data.train):
                given["members"] = members.tolist()
        return dataclasses.replace(result, manifest=given)
    synthetic, support = _learned_parts(selector, config, problem, chosen)
    fitted = learn(problem, synthetic, support, spec, config.outer, key=learn_key, run=run)
    result = dataclasses.replace(result, synthetic=fitted.learned)
    if config.label_kind == "soft":  # the only kind whose targets are probabilities
        targets = label_targets(jnp.asarray(fitted.learned.labels), config.label_kind)
        result = dataclasses.replace(result, soft_labels=np.asarray(targets))
    return finish(result, selector, config, problem, key, fitted, config.outer, run)


def _learned_parts(selector: str, config: ChosenTexts, problem: Problem, chosen: Split) -> tuple[Synthetic, Batch]:
    spec = inner_spec(config, problem.classes)
    if spec is None:
        raise UserError(f"method {selector!r} learns nothing without learn_labels: there is no outer step")
    labels = initial_labels(spec.sample_classes, spec.classes, spec.label_kind)
    synthetic = Synthetic(
        labels=None if spec.label_kind == "hard" else labels,
        raw_lr=initial_step_sizes(config.initial_lr, config.lr_per, config.steps, problem.pretrained.learner),
    )
    return synthetic, text_support(problem, chosen, spec)


def _pool(config: ChosenTexts, problem: Problem, key: Key) -> Int[np.ndarray, " m"]:
    """The training texts that are looked at."""
    labels = problem.train.labels
    if not config.pool:
        return np.arange(len(labels))
    share = max(config.pool // problem.classes, config.per_class)
    rng = np.random.default_rng(numpy_seed(key))
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:share] for c in range(problem.classes)]
    return np.sort(np.concatenate(drawn))


def _features(config: Coreset, problem: Problem, members: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
    """Sentence vectors of some training texts."""
    if config.features == "learner" or problem.pretrained.source == "minilm":
        learner, row_length = problem.pretrained.learner, problem.row_length
        return mean_features(learner, problem.base(), problem.train, members, row_length=row_length)
    if problem.data.task.vector_format is not None:
        raise UserError(f"features is 'minilm', but task {problem.data.task.name!r} has no texts: give learner")
    minilm = load_model("minilm", num_classes=problem.classes)
    length = min(int(problem.train.lengths.max()), minilm.learner.max_length)
    encoded = encode(problem.data.train.take(members), minilm.tokenizer, length)
    variables = minilm.learner.init(jax.random.key(0))
    return mean_features(minilm.learner, variables, encoded, np.arange(len(members)), row_length=length)


SETTINGS: dict[str, type[ChosenTexts]] = dict.fromkeys(selection.CORESETS, Coreset)
SETTINGS |= {name: Forgetting if name == "forgetting" else Scored for name in SCORES}

METHODS = {
    name: Method(
        settings, functools.partial(distill, name), functools.partial(initial, name), inner_spec, makes_texts=True
    )
    for name, settings in SETTINGS.items()
}
