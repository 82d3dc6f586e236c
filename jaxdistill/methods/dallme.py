"""DaLLME-style distillation: embed the training texts, cluster them, invert one vector a cluster to a text.

After Y. Tao, L. Kong, A. Kan, L. Callot, "Textual Dataset Distillation via Language Model Embedding", Findings of EMNLP
2024, of which no code and no settings are public: what is beyond its abstract here is ours.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.random import numpy_seed
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.coresets.centroids import LabelledClusters, cluster_by_class, cluster_globally
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.embed_space import Embedder, EmbedSpace
from jaxdistill.evaluation.inversion_targets import inversion_targets, off_manifold_ratio
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.round_trip import random_cosine, round_trip
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run, manifest
from jaxdistill.methods.coreset import set_of
from jaxdistill.methods.inversion import END, PADDING, START, Correcting, Models, choose_tokens, invert
from jaxdistill.methods.inverter_folder import TrainedInverter, load_inverter, text_hashes
from jaxdistill.models.inverter import Inverter, init_inverter
from jaxdistill.models.t5_config import T5Config
from jaxdistill.objectives.inner_problem import InnerSpec

_TINY = "tiny"


@dataclasses.dataclass(frozen=True)
class DaLLME:
    """Settings. Texts train learners by a fixed recipe.

    Attributes:
      per_class: texts a class.
      inverter: folder of one, see `experiments.train_inverter`; its space is the one that texts are embedded in.
      pool: random training texts that are clustered; 0 for all.
      clusters: "by_class": `per_class` of each class. "global": as many in all over all texts, whose soft labels are
        the shares of the classes in each.
      variant: see `coresets.centroids.cluster`.
      restarts, iterations: of each clustering.
      target, tau: see `evaluation.inversion_targets`.
      correcting: see `methods.inversion.Correcting`.
      round_trip: dev texts that are inverted first, to see whether the inverter can be trusted here.
      least_cosine: median cosine of that round trip below which nothing is distilled. It has to exceed what random
        pairs of texts reach, too.
      fallback: a text whose cosine is lower than 19 of 20 in the round trip gives way to the real text nearest to its
        cluster's centre. Without, it is dropped, as is one that stands in the training split, and others are made of
        another clustering.
      attempts: clusterings at most, without `fallback`.
    """

    per_class: int = 10
    inverter: str = "runs/sst2_inverter/model"
    pool: int = 0
    clusters: Literal["by_class", "global"] = "by_class"
    variant: Literal["euclidean", "spherical", "medoids"] = "spherical"
    restarts: int = 10
    iterations: int = 100
    target: Literal["centroid", "shrunk", "medoid"] = "shrunk"
    tau: float = 0.5
    correcting: Correcting = Correcting()
    round_trip: int = 200
    least_cosine: float = 0.9
    fallback: bool = True
    attempts: int = 5

    def __post_init__(self):
        least = {"per_class": 1, "pool": 0, "restarts": 1, "iterations": 1, "round_trip": 2, "attempts": 1}
        for field, bound in least.items():
            if (value := getattr(self, field)) < bound:
                raise UserError(f"{field} is {value}: accepted is {bound} or more")
        if not 0.0 <= self.tau <= 1.0:
            raise UserError(f"tau is {self.tau}: accepted is a share from 0 to 1")
        if not -1.0 <= self.least_cosine <= 1.0:
            raise UserError(f"least_cosine is {self.least_cosine}: accepted is a cosine")
        accepted = {
            "clusters": ("by_class", "global"),
            "variant": ("euclidean", "spherical", "medoids"),
            "target": ("centroid", "shrunk", "medoid"),
        }
        for field, choices in accepted.items():
            if getattr(self, field) not in choices:
                raise UserError(f"{field} is {getattr(self, field)!r}: accepted are {', '.join(choices)}")


class Made(NamedTuple):
    """Texts of some clusters.

    Attributes:
      texts: inverted.
      medoids: the real text nearest to each centre.
      cosines: of the texts' embeddings with what was asked for.
      labels: p(class | cluster).
      shares: of the clusters in their class, or in all texts.
      off_manifold: how far what was asked for lies from real texts, over how far these lie from one another.
      facts: plain.
    """

    texts: list[str]
    medoids: list[str]
    cosines: Float[np.ndarray, " m"]
    labels: Float[np.ndarray, "m c"]
    shares: Float[np.ndarray, " m"]
    off_manifold: Float[np.ndarray, " m"]
    facts: dict[str, Any]


class _Space(NamedTuple):
    """What a distillation works in."""

    trained: TrainedInverter
    embedder: Embedder
    models: Models


def distill(config: DaLLME, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Embed, cluster, invert; see `methods.base.DistillFn`.

    Raises:
      UserError: texts do not come back well enough from their embeddings, or too few usable texts were made.
    """
    began = time.monotonic()
    if jax.process_count() > 1:
        raise UserError("dallme runs in one process: start it without launching several")
    if len(problem.data.task.text_columns) != 1 or problem.data.vectors is not None:
        raise UserError("dallme writes examples of one text: the task must have one text column")
    pool_key, gate_key, made_key = jax.random.split(key, 3)
    space = _space(config, problem)
    found, gate = _gate(config, problem, space, gate_key, run)
    members = _pool(config, problem, pool_key)
    train = problem.data.train.take(members)
    label = "training texts embedded: batches"
    vectors = _embedded(space, [text for (text,) in train.texts], run, label)
    texts, labels, facts = _chosen(config, problem, train, vectors, space, gate, made_key)
    hard = labels.argmax(axis=1).astype(np.int32)
    result = set_of(Split([(text,) for text in texts], hard), problem)
    if config.clusters == "global":
        result = dataclasses.replace(result, soft_labels=labels.astype(np.float32))
    cost = CostRecord(
        distill_seconds=time.monotonic() - began,
        peak_bytes=peak_memory_bytes(),
        distilled_bytes=result.size_in_bytes,
        real_examples=len(train) + int(space.trained.facts.get("real_examples", 0)),
    )
    given = manifest("dallme", config, problem, key, cost.to_json())
    made_by = {"space": space.trained.digest, "inverter": space.trained.parameters}
    given["generator"] = made_by | {"round_trip": found} | facts
    if len(members) < len(problem.data.train):
        given["members"] = members.tolist()
    inverted = "none inverted" if facts["mean_cosine"] is None else f"cosine of the others {facts['mean_cosine']:.3f}"
    run.say(
        f"{len(texts)} texts, {100 * facts['medoid_share']:.0f} % of them real ones, {inverted}; targets are "
        f"{facts['off_manifold']:.2f} times as far from real texts as these from one another"
    )
    return dataclasses.replace(result, manifest=given)


def _space(config: DaLLME, problem: Problem) -> _Space:
    trained = _tiny(problem) if config.inverter == _TINY else load_inverter(config.inverter)
    if config.variant == "spherical" and not trained.space.normalised:
        raise UserError("variant is spherical, and the inverter's embeddings are not of length 1: give euclidean")
    held_out = [text for split in (problem.data.dev, problem.data.test) for (text,) in split.texts]
    if known := int(np.isin(text_hashes(held_out), trained.read).sum()):
        raise UserError(
            f"{known} of {len(held_out)} dev and test texts of {problem.data.task.name} are among those that the "
            "inverter was trained on, so that their scores would tell nothing: train one on this task's own texts"
        )
    embedder = Embedder(trained.space)
    return _Space(trained, embedder, trained.models(embedder))


def _tiny(problem: Problem) -> TrainedInverter:
    """An inverter of random weights, for smoke forms."""
    space = EmbedSpace(model=_TINY, max_length=32)
    embedder = Embedder(space)
    special = (*embedder.prefix, *embedder.suffix)
    texts = [text for (text,) in problem.data.train.texts[:50]]
    tokens = choose_tokens(embedder.tokenizer, texts, special, 0, 0)
    sizes = T5Config(
        vocabulary=len(tokens.embedder_ids),
        width=16,
        heads=2,
        head_width=8,
        intermediate=32,
        encoder_layers=1,
        decoder_layers=1,
        start=START,
        end=END,
        padding=PADDING,
    )
    inverter = Inverter(sizes, embedder.width, 2)
    return TrainedInverter(
        space,
        embedder.digest,
        tokens,
        8,
        inverter,
        init_inverter(inverter, jax.random.key(0)),
        None,
        {},
        text_hashes(()),
    )


def _embedded(space: _Space, texts: list[str], run: Run, label: str) -> Float[np.ndarray, "n d"]:
    cache = None if run.folder is None else run.folder / "embeddings"
    return space.embedder.texts(texts, cache=cache, label=label)


def _gate(config: DaLLME, problem: Problem, space: _Space, key: Key, run: Run) -> tuple[dict[str, float], float]:
    """(figures of the round trip of random dev texts, the cosine that 19 of 20 of them reach).

    Raises:
      UserError: the median is too low.
    """
    dev: list[str] = []
    for row in np.random.default_rng(numpy_seed(key)).permutation(len(problem.data.dev)):
        (text,) = problem.data.dev.texts[row]
        if space.embedder.tokenizer.encode(text, add_special_tokens=False).ids:
            dev.append(text)
        if len(dev) == config.round_trip:
            break
    vectors = _embedded(space, dev, run, "dev texts embedded: batches")
    back = invert(space.models, vectors, config.correcting, label="dev texts inverted")
    again = space.trained.tokens.decode(space.embedder.tokenizer, back.token_ids, back.lengths)
    found = round_trip(dev, again, space.embedder.cosines(again, vectors))
    chance = random_cosine(vectors)
    run.say(
        f"round trip of {len(dev)} dev texts: cosine {found['median_cosine']:.3f}, token F1 {found['token_f1']:.3f}, "
        f"BLEU {found['bleu']:.1f}, exact {100 * found['exact']:.1f} %; random pairs stay below {chance:.3f}"
    )
    bound = config.least_cosine if config.inverter == _TINY else max(config.least_cosine, chance)
    if found["median_cosine"] < bound:
        raise UserError(
            f"the round trip of dev texts has a median cosine of {found['median_cosine']:.3f}, below {bound:.3f}: the "
            "inverter does not know such texts; train it longer or on texts like these, or lower least_cosine where it "
            "is that"
        )
    return found | {"random_cosine": chance}, found["low_cosine"]


def _pool(config: DaLLME, problem: Problem, key: Key) -> Int[np.ndarray, " n"]:
    """Rows of the training texts that are clustered."""
    count = len(problem.data.train)
    if not 0 < config.pool < count:
        return np.arange(count)
    return np.sort(np.random.default_rng(numpy_seed(key)).permutation(count)[: config.pool])


def _chosen(
    config: DaLLME,
    problem: Problem,
    train: Split,
    vectors: Float[np.ndarray, "n d"],
    space: _Space,
    gate: float,
    key: Key,
) -> tuple[list[str], Float[np.ndarray, "m c"], dict[str, Any]]:
    """(texts, p(class | text), facts), classes in turn."""
    real = {tuple(words_of(text)) for (text,) in problem.data.train.texts}
    wanted = config.per_class * problem.classes
    texts: list[str] = []
    labels: list[np.ndarray] = []
    sources: list[str] = []
    shares: list[float] = []
    cosines: list[float] = []
    off: list[float] = []
    counts = np.zeros(problem.classes, np.int64)
    facts: dict[str, Any] = {}
    for attempt in range(1 if config.fallback else config.attempts):
        made = _made(config, problem, train, vectors, space, jax.random.fold_in(key, attempt))
        facts = facts or made.facts
        for i, text in enumerate(made.texts):
            label = int(made.labels[i].argmax())
            good = made.cosines[i] >= gate and bool(text)
            if not config.fallback:
                good = good and tuple(words_of(text)) not in real and text not in texts
                by_class = config.clusters == "by_class"
                if not good or len(texts) >= wanted or (by_class and counts[label] >= config.per_class):
                    continue
            counts[label] += 1
            texts.append(text if good else made.medoids[i])
            labels.append(made.labels[i])
            sources.append("inverted" if good else "medoid")
            shares.append(float(made.shares[i]))
            cosines.append(float(made.cosines[i]))
            off.append(float(made.off_manifold[i]))
        if len(texts) >= wanted:
            break
    if len(texts) < wanted:
        raise UserError(
            f"{len(texts)} of {wanted} texts are usable after {config.attempts} clusterings: raise attempts, or allow "
            "the fallback to real texts"
        )
    hard = np.array([row.argmax() for row in labels])
    # One of each class in turn, so that the first n hold as many of each.
    ranks = np.array([np.sum(hard[:i] == hard[i]) for i in range(wanted)])
    order = np.lexsort((hard, ranks))
    inverted = [cosine for cosine, source in zip(cosines, sources, strict=True) if source == "inverted"]
    facts |= {
        "sources": [sources[i] for i in order],
        "shares": [shares[i] for i in order],
        "mean_cosine": float(np.mean(inverted)) if inverted else None,
        "off_manifold": float(np.mean(off)),
        "medoid_share": sources.count("medoid") / wanted,
        "gate": gate,
    }
    return [texts[i] for i in order], np.stack([labels[i] for i in order]), facts


def _made(
    config: DaLLME, problem: Problem, train: Split, vectors: Float[np.ndarray, "n d"], space: _Space, key: Key
) -> Made:
    """One clustering, inverted."""
    make = cluster_by_class if config.clusters == "by_class" else cluster_globally
    found: LabelledClusters = make(
        vectors,
        train.labels,
        problem.classes,
        config.per_class,
        key,
        variant=config.variant,
        restarts=config.restarts,
        iterations=config.iterations,
    )
    targets = inversion_targets(vectors, found.clusters, kind=config.target, tau=config.tau)
    away = off_manifold_ratio(targets, vectors)
    back = invert(space.models, targets, config.correcting, label="clusters inverted")
    texts = space.trained.tokens.decode(space.embedder.tokenizer, back.token_ids, back.lengths)
    medoids = [train.texts[row][0] for row in found.clusters.medoids]
    cosines = space.embedder.cosines(texts, targets)
    facts = {"inertia": float(found.clusters.inertia)}
    return Made(texts, medoids, cosines, found.labels, np.asarray(found.shares), away, facts)


def smoke(settings: DaLLME) -> DaLLME:
    """The same method with an inverter of random weights and few clusterings."""
    return dataclasses.replace(
        settings,
        per_class=1,
        inverter=_TINY,
        pool=40,
        restarts=2,
        iterations=5,
        correcting=Correcting(steps=0, beams=1, rows=4),
        round_trip=4,
        least_cosine=-1.0,
        fallback=True,
    )


def inner_spec(config: DaLLME, classes: int) -> InnerSpec | None:
    """`None`: learners train on the texts by a recipe."""
    return None


def initial(config: DaLLME, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """There is no `Synthetic` to begin with.

    Raises:
      UserError: always.
    """
    raise UserError("method 'dallme' makes texts by an inverter: it has no outer step to show beforehand")


METHOD = Method(DaLLME, distill, initial, inner_spec, makes_texts=True)
"""Registered in `methods.registry`."""
