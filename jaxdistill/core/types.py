"""The pytrees and callable types that every part of jaxdistill speaks.

Shapes use one alphabet: n examples, r packed rows, l positions, d features, c classes, h heads, k layers,
q attention query rows, t inner steps, g learning-rate groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int

PyTree = Any
Key = jax.Array
AttentionRows = Literal["none", "cls", "all"]


def pytree(cls: type) -> Any:
    """Make `cls` a frozen dataclass whose fields are all pytree children."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class Batch:
    """Examples for one forward pass; absent parts are `None`.

    Exactly one of `token_ids` and `embeddings` is given. Unpacked, row i is example i. Packed (`segments` given),
    a row holds several examples one after another: `segments` numbers them within the row from 1 (0 is padding),
    `positions` restarts at each, attention never crosses a segment, and `starts` tells, for each of the n examples,
    the index of its first token in the flattened r*l positions.

    Attributes:
      token_ids: word-piece ids.
      embeddings: vectors that replace the word embeddings (position and type embeddings are still added).
      mask: True where there is a token; `None` when every position holds one.
      token_types: 0 for the first text, 1 for the second; `None` means all 0.
      positions: position ids; `None` means 0..l-1 in each row.
      segments: segment numbers of a packed batch.
      starts: flat index of each example's first token, in a packed batch.
      labels: class ids, or target scores of any sign and sum.
      weights: weight of each example in the mean; 0 for filler examples. `None` means all 1.
      groups: protected group of each example, one-hot, so that their number g is known.
      attention: attention labels, as scores over the keys (softmax over the last axis gives the target).
    """

    token_ids: Int[Array, "r l"] | None = None
    embeddings: Float[Array, "r l d"] | None = None
    mask: Bool[Array, "r l"] | None = None
    token_types: Int[Array, "r l"] | None = None
    positions: Int[Array, "r l"] | None = None
    segments: Int[Array, "r l"] | None = None
    starts: Int[Array, " n"] | None = None
    labels: Int[Array, " n"] | Float[Array, "n c"] | None = None
    weights: Float[Array, " n"] | None = None
    groups: Float[Array, "n g"] | None = None
    attention: Float[Array, "n k h q l"] | None = None


@pytree
class Outputs:
    """What a learner says of a batch.

    Attributes:
      logits: unnormalised class scores, float32.
      features: the vector the classification head reads.
      attentions: log attention probabilities of the requested query rows ("cls": row 0 alone; "all": every row),
        or `None` when none were requested.
      hidden: of a perceptron, what its last activation reads; `None` for other learners.
    """

    logits: Float[Array, "n c"]
    features: Float[Array, "n d"]
    attentions: Float[Array, "n k h q l"] | None = None
    hidden: Float[Array, "n d"] | None = None


@pytree
class Variables:
    """Parameters of a learner, cut in two nested dicts: `trainable` is what inner loops update and everything
    meta-differentiates; `frozen` (the word table, for one) is never updated."""

    trainable: PyTree
    frozen: PyTree


@runtime_checkable
class InitFn(Protocol):
    def __call__(self, key: Key) -> Variables:
        """A full set of parameters: the pretrained ones where there are, fresh ones elsewhere."""
        ...


@runtime_checkable
class RefreshFn(Protocol):
    def __call__(self, variables: Variables, key: Key) -> Variables:
        """Redraw what differs between two fresh learners (the classification head, for a pretrained body).

        Pure and cheap: `vmap` over `key` leaves the shared body unbatched.
        """
        ...


@runtime_checkable
class ApplyFn(Protocol):
    def __call__(
        self,
        variables: Variables,
        batch: Batch,
        *,
        key: Key | None = None,
        train: bool = False,
        attention: AttentionRows = "none",
    ) -> Outputs:
        """Forward pass. `key` feeds dropout and is needed only when `train` and the dropout rate is above 0.
        `train` and `attention` are static."""
        ...


class Learner(NamedTuple):
    """A model to train on distilled data: a few pure functions and static facts.

    Attributes:
      init, refresh, apply: see the protocols.
      randomize: like `refresh`, but redraws everything trainable, pretrained or not.
      groups: tree like `Variables.trainable` whose leaves are numpy int arrays naming the learning-rate group of the
        leaf: shape () for one group, or (k,) when the leaf stacks k layers along its first axis.
      group_names: names of the groups, bottom of the network first.
      word_table: `word_table(variables)` is the [v, d] word-embedding table, for nearest-word reports and for
        embedding token ids; `None` when the learner has none.
      embed: `embed(variables, batch)` is a sentence vector of each example, [n, d], for coresets; `None` when there is
        none.
      max_length: most positions a row may have.
      shape: static sizes: "width" (of the word table), "layers", "heads" (0 where there are no attention rows to give
        labels to), "classes", "logits" (of the head), "vocabulary".
      packs: whether a row may hold several examples.
      min_length: fewest positions a row may have.
      threshold: by how much the last logit must exceed the others for its class to be called.
    """

    init: InitFn
    refresh: RefreshFn
    randomize: RefreshFn
    apply: ApplyFn
    groups: PyTree
    group_names: tuple[str, ...]
    word_table: Callable[[Variables], Array] | None
    embed: Callable[[Variables, Batch], Array] | None
    max_length: int
    shape: dict[str, int]
    packs: bool = True
    min_length: int = 1
    threshold: float = 0.0

    def decision_scores(self, logits: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Logits of which the greatest is the class that is called."""
        return logits.at[..., -1].add(-self.threshold) if self.threshold else logits


@pytree
class Synthetic:
    """A distilled set: what is learned, and nothing that is not an array.

    Attributes:
      inputs: input embeddings of each sample, or `None` when the texts are real (see `Support`).
      labels: label scores; how they become targets is the label kind (`objectives.labels`).
      attention: attention-label scores; softmax over the last axis gives the target.
      raw_lr: softplus of it is the step size, one a step or one a step and parameter group.
    """

    inputs: Float[Array, "n l d"] | None = None
    labels: Float[Array, "n c"] | None = None
    attention: Float[Array, "n k h q l"] | None = None
    raw_lr: Float[Array, " t"] | Float[Array, "t g"] | None = None


@runtime_checkable
class Objective(Protocol):
    def __call__(
        self, learned: PyTree, state: PyTree, constants: PyTree, real_batch: PyTree, key: Key, /
    ) -> tuple[Float[Array, ""], tuple[PyTree, dict[str, Array]]]:
        """Loss of what is learned: matching loss of a distilled set, for all four families alike; likelihood of texts.

        Args:
          learned: differentiated; a `Synthetic`, or a model's parameters.
          state: arrays the objective changes from step to step; checkpointed. `()` when it has none.
          constants: arrays it only reads (a pretrained body, expert trajectories, the texts of a coreset); given
            again on resume, so neither checkpointed nor donated nor returned.
          real_batch: one batch of real data, or what stands for it (`objectives.trajectory.Segment`, a dict of these).
          key: randomness of this evaluation.

        Returns:
          loss, (new state, scalar metrics by name).
        """
        ...
