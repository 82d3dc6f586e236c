"""Any sequence classifier of a Hugging Face folder as a judge of texts: toxicity, sentiment, topic."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, PyTree
from jaxdistill.data.batching import eval_batches
from jaxdistill.data.encoding import encode
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.features import ROWS, read_batches
from jaxdistill.evaluation.score_cache import cached_scores, parameter_hash
from jaxdistill.io.plain import fingerprint
from jaxdistill.models.config import EncoderConfig
from jaxdistill.models.encoder import Encoder, init_params
from jaxdistill.models.hub import find_folder
from jaxdistill.models.huggingface import load_folder
from jaxdistill.models.model_folder import read_config_values
from jaxdistill.models.pretrained import short_name
from jaxdistill.models.tiny import tiny_config, tiny_tokenizer
from jaxdistill.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SHORTEST_ROW = 64


@dataclasses.dataclass(frozen=True, eq=False)
class AttributeScorer:
    """A trained classifier with its own head.

    Attributes:
      name: short; belongs to the name of every metric that it gives.
      labels: names of its c outputs.
      multi_label: whether each output is a probability of its own (sigmoid), or all together sum to 1 (softmax).
      encoder: static.
      params: of the encoder, classifier included.
      tokenizer: of the encoder.
      max_length: tokens of a text at most; longer ones are cut at the end.
    """

    name: str
    labels: tuple[str, ...]
    multi_label: bool
    encoder: Encoder
    params: PyTree
    tokenizer: Tokenizer
    max_length: int

    @functools.cached_property
    def digest(self) -> str:
        """Hash of everything that its scores depend on."""
        fixed = [self.encoder.config, str(self.encoder.dtype), self.multi_label, self.max_length]
        return fingerprint([fixed, self.tokenizer.to_str(), parameter_hash(self.params)])


def load_attribute_scorer(
    name: str | os.PathLike[str], *, dtype: str = "float32", max_length: int = 512
) -> AttributeScorer:
    """A classifier as its makers saved it: body, head, names of the labels, and what its outputs mean.

    `problem_type` of its `config.json` settles the latter: "multi_label_classification" is a sigmoid of each output,
    "single_label_classification", or nothing, a softmax; a single output is a sigmoid.

    Args:
      name: a folder or a hub id of a BERT, RoBERTa or DistilBERT classifier, or "tiny" (random, of two labels, for
        tests and smoke runs).
      dtype: of matrix products: float32 or bfloat16.
      max_length: tokens of a text at most; the model's own bound holds too.

    Raises:
      UserError: the name leads nowhere, the checkpoint has no classifier of its own, its labels do not fit the
        classifier, or it is a regression.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"attribute scorer: dtype {dtype!r} is unknown; accepted are float32 and bfloat16")
    source = os.fspath(name)
    if source == "tiny":
        return _tiny(jnp.dtype(dtype))
    folder = find_folder(source)
    checkpoint = load_folder(folder)
    lacking = [part for part in ("pooler", "classifier") if part not in checkpoint.params]
    if lacking:
        raise UserError(
            f"attribute scorer {source!r}: the checkpoint has no {lacking[0]} of its own, and a fresh one would judge "
            "at random; expected a trained sequence classifier"
        )
    values = read_config_values(folder)
    labels = _label_names(values, outputs=len(checkpoint.params["classifier"]["bias"]), source=source)
    problem = values.get("problem_type")
    if problem not in (None, "single_label_classification", "multi_label_classification"):
        raise UserError(
            f"attribute scorer {source!r}: problem_type {problem!r} gives no probabilities; accepted are "
            "single_label_classification and multi_label_classification"
        )
    multi_label = len(labels) == 1 if problem is None else problem == "multi_label_classification"
    return AttributeScorer(
        name=short_name(source),
        labels=labels,
        multi_label=multi_label,
        encoder=Encoder(checkpoint.config, len(labels), jnp.dtype(dtype)),
        params=jax.tree.map(jnp.asarray, checkpoint.params),
        tokenizer=load_tokenizer(folder),
        max_length=min(max_length, checkpoint.config.max_length),
    )


def label_probabilities(
    scorer: AttributeScorer, texts: Sequence[str], *, cache: Path | None = None, label: str = ""
) -> Float64[np.ndarray, "n c"]:
    """Probability of each of the scorer's labels for each text.

    Args:
      scorer: who judges.
      texts: any; cut at the scorer's `max_length`.
      cache: folder in which scores are kept, see `score_cache`.
      label: of a progress line; empty shows none.
    """

    def score(missing: list[int]) -> Iterator[tuple[Sequence[int], Sequence[Sequence[float]]]]:
        split = Split([(texts[i],) for i in missing], np.zeros(len(missing), np.int32))
        encoded = encode(split, scorer.tokenizer, scorer.max_length)
        # Several texts a row, so one program; rows of a few lengths, so few programs over many calls.
        longest = int(encoded.lengths.max())
        row_length = min(max(_SHORTEST_ROW, 1 << (longest - 1).bit_length()), scorer.max_length)
        batches = eval_batches(encoded, row_length=row_length, rows=ROWS)
        read = functools.partial(_probabilities, scorer.encoder, scorer.multi_label, scorer.params)
        found = read_batches(read, batches, label=label)
        yield [missing[i] for i in np.concatenate(batches.indices)], found.tolist()

    rows = cached_scores(list(texts), score, folder=cache, scorer=lambda: scorer.digest)
    return np.asarray(rows, np.float64).reshape(len(texts), len(scorer.labels))


def attribute_scores(
    scorer: AttributeScorer, texts: Sequence[str], label: str, *, cache: Path | None = None, progress: str = ""
) -> Float64[np.ndarray, " n"]:
    """Probability that each text has the attribute `label`; see `label_probabilities`, whose `label` is `progress`.

    Raises:
      UserError: the scorer has no such label.
    """
    if label not in scorer.labels:
        raise UserError(
            f"attribute scorer {scorer.name!r} has no label {label!r}: accepted are {', '.join(scorer.labels)}"
        )
    return label_probabilities(scorer, texts, cache=cache, label=progress)[:, scorer.labels.index(label)]


def _tiny(dtype: jnp.dtype) -> AttributeScorer:
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.get_vocab_size())
    assert isinstance(config, EncoderConfig)
    encoder = Encoder(config, 2, dtype)
    params = init_params(encoder, jax.random.key(0))
    return AttributeScorer("tiny", ("LABEL_0", "LABEL_1"), False, encoder, params, tokenizer, config.max_length)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _probabilities(encoder: Encoder, multi_label: bool, params: PyTree, batch: Batch) -> Float[Array, "n c"]:
    logits: Any = encoder.apply({"params": params}, batch)
    return jax.nn.sigmoid(logits.logits) if multi_label else jax.nn.softmax(logits.logits)


def _label_names(values: Mapping[str, Any], *, outputs: int, source: str) -> tuple[str, ...]:
    """Names of the outputs by `id2label`; transformers leaves it out where they are LABEL_0 and LABEL_1."""
    names = values.get("id2label")
    if names is None:
        return tuple(f"LABEL_{i}" for i in range(outputs))
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(outputs))):
        raise UserError(
            f"attribute scorer {source!r}: id2label of config.json does not name its {outputs} outputs, numbered from 0"
        )
    return tuple(str(names[str(i)]) for i in range(outputs))
