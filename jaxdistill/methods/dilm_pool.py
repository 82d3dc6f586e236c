"""The generator's own texts that it is taught on: drawn, told apart by a learner, dealt out in varied batches.

Source: DiLM (Maekawa et al. 2024), stage 1: per class, k-means clusters of the texts, and each batch takes one of each.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key, PyTree
from jaxdistill.coresets.clusters import clusters
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Model
from jaxdistill.generation.texts import GeneratedTexts, generate_texts
from jaxdistill.io import atomic
from jaxdistill.methods.dilm_texts import Generator


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Settings.

    Attributes:
      batch: texts of each class in an update: that many clusters.
      refresh: outer loops after which all texts are drawn anew from the generator as it is then.
      texts: drawn of each class; 0 for as many as the batches until the next refresh hold.
      clustered: otherwise batches are random texts of the class.
      pick: of a cluster: "random", or "cycle", one member after another.
      top_p, temperature: of the draw.
      micro_batch: texts drawn at once.
    """

    batch: int = 64
    refresh: int = 20
    texts: int = 0
    clustered: bool = True
    pick: Literal["random", "cycle"] = "random"
    top_p: float = 0.95
    temperature: float = 1.0
    micro_batch: int = 64

    def __post_init__(self):
        for field, least in {"batch": 2, "refresh": 1, "texts": 0, "micro_batch": 1}.items():
            if (value := getattr(self, field)) < least:
                raise UserError(f"pooling.{field} is {value}: accepted is {least} or more")
        if self.pick not in ("random", "cycle"):
            raise UserError(f"pooling.pick is {self.pick!r}: give random or cycle")
        Sampling(max_new=1, top_p=self.top_p, temperature=self.temperature)  # refuses what cannot be
        if 0 < self.texts < self.batch:
            raise UserError(
                f"pooling.texts is {self.texts}: a batch takes {self.batch} of each class, give as many or more"
            )


class Pool(NamedTuple):
    """Texts, and the batches that they make.

    Attributes:
      texts: of each class, as many of one as of another.
      picks: which of its texts a batch takes of each class.
    """

    texts: list[list[tuple[str, ...]]]
    picks: Int[np.ndarray, "b c k"]

    def batch(self, number: int) -> list[tuple[str, ...]]:
        """Texts of a batch, those of class 0, then those of class 1, and so on."""
        return [self.texts[c][i] for c, row in enumerate(self.picks[number]) for i in row]


def draw_texts(
    generator: Generator,
    params: PyTree,
    count: int,
    key: Key,
    *,
    top_p: float = 0.95,
    temperature: float = 1.0,
    micro_batch: int = 64,
    label: str | None = None,
) -> tuple[list[list[tuple[str, ...]]], GeneratedTexts]:
    """Draw texts of each class from a generator.

    Start tokens and padding are banned before the nucleus is cut. A text with too few fields, or one that spells a
    token of the form, is drawn again.

    Args:
      generator, params: the language model, and its parameters in place of the generator's own.
      count: texts of each class.
      key: of all texts.
      top_p, temperature, micro_batch, label: see `generation.texts.generate_texts`.

    Returns:
      the texts by class, and what they cost.

    Raises:
      UserError: as many texts were rejected as were asked for.
    """
    form = generator.form
    sampling = Sampling(
        max_new=form.max_length - 1,
        top_p=top_p,
        temperature=temperature,
        banned=(*form.starts, form.padding),
        stop=(form.end,),
    )
    special = form.tokens.values()

    def read(tokens: Sequence[int]) -> tuple[str, ...] | None:
        texts = form.decode(tokens)
        if texts is None or any(token in text for text in texts for token in special):
            return None
        return texts

    found = generate_texts(
        Model(generator.decoder),
        params,
        form.tokenizer,
        [[start] for start in form.starts],
        count,
        sampling,
        key,
        micro_batch=micro_batch,
        read=read,
        label=label,
    )
    return [list(found.texts[c * count : (c + 1) * count]) for c in range(len(form.starts))], found


def deal(
    features: Float[np.ndarray, "n d"] | None, batches: int, settings: Pooling, key: Key, count: int
) -> Int[np.ndarray, "b k"]:
    """Batches of the texts of a class: one of each cluster.

    Args:
      features: of the texts; `None` for random batches.
      batches: b.
      settings: see `Pooling`.
      key: of clusters and choice.
      count: n.
    """
    cluster_key, pick_key = jax.random.split(key)
    if features is None:
        rows = jax.vmap(lambda k: jax.random.permutation(k, count)[: settings.batch])
        return np.asarray(rows(jax.random.split(pick_key, batches)))
    assigned = np.asarray(clusters(jnp.asarray(features, jnp.float32), settings.batch, cluster_key))
    picks = np.zeros((batches, settings.batch), np.int64)
    draws = np.asarray(jax.random.uniform(pick_key, picks.shape))
    for cluster in range(settings.batch):
        members = np.flatnonzero(assigned == cluster)
        if not len(members):  # different texts that the learner cannot tell apart
            members = np.arange(count)
        if settings.pick == "cycle":
            picks[:, cluster] = members[np.arange(batches) % len(members)]
        else:
            picks[:, cluster] = members[(draws[:, cluster] * len(members)).astype(np.int64)]
    return picks


def make_pool(
    generator: Generator,
    params: PyTree,
    read: Callable[[list[tuple[str, ...]], int], Float[np.ndarray, "n d"]],
    batches: int,
    settings: Pooling,
    key: Key,
) -> Pool:
    """Draw texts of each class and deal them out.

    Args:
      generator, params: see `draw_texts`.
      read: features of the texts of a class.
      batches: that the pool makes.
      settings: see there.
      key: of everything.

    Raises:
      UserError: the generator writes fewer different texts of a class than a batch takes; see also `draw_texts`.
    """
    draw_key, *deal_keys = jax.random.split(key, 1 + len(generator.form.starts))
    count = settings.texts or batches * settings.batch
    texts, _ = draw_texts(
        generator,
        params,
        count,
        draw_key,
        top_p=settings.top_p,
        temperature=settings.temperature,
        micro_batch=settings.micro_batch,
        label="texts of the generator",
    )
    picks = []
    for label, (own, own_key) in enumerate(zip(texts, deal_keys, strict=True)):
        if (different := len(set(own))) < settings.batch:
            raise UserError(
                f"the generator writes {different} different texts of class {label} in {count}, and a batch takes "
                f"{settings.batch}: lower pooling.batch, or train the language model less"
            )
        picks.append(deal(read(own, label) if settings.clustered else None, batches, settings, own_key, count))
    return Pool(texts, np.stack(picks, axis=1))


def save_pool(path: Path, pool: Pool) -> None:
    """Write a pool, whole or not at all."""
    content = {"texts": pool.texts, "picks": pool.picks.tolist()}
    atomic.write_text(path, json.dumps(content, ensure_ascii=False))


def load_pool(path: Path) -> Pool:
    """Read what `save_pool` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        return Pool([[tuple(text) for text in own] for own in content["texts"]], np.asarray(content["picks"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it to draw the texts again") from None
