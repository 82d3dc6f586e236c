"""Real texts as the distilled set: chosen by a coreset rule, optionally with learned soft labels and step sizes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.coresets import selection
from jaxdistill.data.encoding import Encoded, encode
from jaxdistill.data.packing import pad
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.features import mean_features
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run, manifest
from jaxdistill.methods.meta_learning import LrPer, Outer, finish, initial_step_sizes, learn
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.objectives.labels import LabelKind, initial_labels, label_targets


@dataclasses.dataclass(frozen=True)
class Coreset:
    """Settings.

    Attributes:
      per_class: texts a class.
      pool: at most this many random training texts are looked at; 0 looks at all.
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
    label_kind: LabelKind = "unrestricted"
    lr_per: LrPer = "layer"
    initial_lr: float = 0.1
    outer: Outer = Outer()

    def __post_init__(self):
        inner_spec(self, 2)


def inner_spec(config: Coreset, classes: int) -> InnerSpec | None:
    """How a learner trains on a set with learned labels; `None` for plain texts."""
    spec = InnerSpec(
        classes=classes,
        per_class=config.per_class,
        batch_per_class=config.batch_per_class,
        steps=config.steps,
        label_kind=config.label_kind,
    )
    return spec if config.learn_labels else None


def text_support(encoded: Encoded) -> Batch:
    """Token ids of the chosen texts, padded, as the `support` of an inner problem."""
    length = -(-int(encoded.lengths.max()) // 8) * 8
    batch = pad(encoded, np.arange(len(encoded)), length=length)
    return Batch(token_ids=jnp.asarray(batch.token_ids), mask=jnp.asarray(batch.mask), token_types=batch.token_types)


def choose(selector: str, config: Coreset, problem: Problem, key: Key) -> np.ndarray:
    """Indices of the chosen training texts, interleaved by class."""
    seed = int(np.asarray(jax.random.key_data(key)).astype(np.uint32)[-1])
    labels = problem.train.labels
    members = np.arange(len(labels))
    if config.pool and config.pool < len(labels) and selector != "random":
        members = np.sort(np.random.default_rng(seed).choice(members, config.pool, replace=False))
    features: Float[np.ndarray, "n d"] | None = None
    if selection.coreset_named(selector).needs_features:
        learner, row_length = problem.pretrained.learner, problem.row_length
        features = mean_features(learner, problem.base(), problem.train, members, row_length=row_length)
    names = problem.data.task.label_names
    picked = selection.select(selector, features, labels[members], config.per_class, class_names=names, seed=seed)
    return members[picked]


def distill(selector: str, config: Coreset, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Choose texts, and learn their labels if asked; see `methods.base.DistillFn`."""
    choose_key, learn_key = jax.random.split(key)
    with run.stopwatch.stage("distill"):
        indices = choose(selector, config, problem, choose_key)
        chosen = problem.data.train.take(indices)
        spec = inner_spec(config, problem.classes)
        result = DistilledSet(
            labels=chosen.labels.astype(np.int32),
            label_names=problem.data.task.label_names,
            manifest={},
            texts=chosen.texts,
            text_columns=problem.data.task.text_columns,
        )
        if spec is not None:
            encoded = encode(chosen, problem.pretrained.tokenizer, int(problem.train.lengths.max()))
            learner = problem.pretrained.learner
            synthetic = Synthetic(
                labels=initial_labels(spec.samples, spec.classes, spec.label_kind),
                raw_lr=initial_step_sizes(config.initial_lr, config.lr_per, config.steps, learner),
            )
            fitted = learn(problem, synthetic, text_support(encoded), spec, config.outer, key=learn_key, run=run)
    if spec is None:
        cost = CostRecord(
            distill_seconds=run.stopwatch.seconds.get("distill"),
            peak_bytes=peak_memory_bytes(),
            distilled_bytes=result.size_in_bytes,
        )
        facts = manifest(selector, config, problem, key, cost.to_json())
        return dataclasses.replace(result, manifest=facts)
    soft = np.asarray(label_targets(jnp.asarray(fitted.synthetic.labels), spec.label_kind))
    result = dataclasses.replace(result, synthetic=fitted.synthetic, soft_labels=soft)
    return finish(result, selector, config, problem, key, fitted, config.outer, run)


METHODS = {name: Method(Coreset, functools.partial(distill, name), inner_spec) for name in selection.CORESETS}
