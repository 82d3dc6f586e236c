"""Texts that one language model finds likelier than another does: what sets the two apart, distilled into text.

Source: H. Lu, M. Isonuma, J. Mori, I. Sakata, "UniDetox: Universal Detoxification of Large Language Models via Dataset
Distillation", ICLR 2025. There the second model, the expert, has been trained on toxic texts, and language models that
are fine-tuned on the texts become less toxic. Any attribute does that an expert can be trained to have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Key
from jaxdistill.evaluation.likelihoods import LanguageModel
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.contrast import Contrast, Pair
from jaxdistill.generation.scorers import Model
from jaxdistill.generation.texts import GeneratedTexts, generate_texts
from jaxdistill.models.decoder_config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class ContrastiveTexts:
    """How texts are drawn.

    Attributes:
      count: texts of a set.
      length: tokens of a text at most, the start token included.
      alpha: a token may be drawn where the base model gives it at least this share of its greatest probability.
      beta: weight of the expert; inf for the plain difference, 0 for the base model alone (under the same `alpha`). See
        `generation.contrast.Contrast`.
      temperature, top_p: of the draw.
      top_k: only so many tokens may be drawn; 0 for no limit. Published code has 50, its library's default.
      shared_cache: the expert reads the base model's keys and values, as in published code; see `Contrast`.
      micro_batch: texts at once; they do not depend on it.
    """

    count: int = 640
    length: int = 256
    alpha: float = 0.1
    beta: float = math.inf
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    shared_cache: bool = False
    micro_batch: int = 32

    def __post_init__(self):
        for field, least in {"count": 1, "length": 2, "top_k": 0, "micro_batch": 1}.items():
            if (value := getattr(self, field)) < least:
                raise UserError(f"texts.{field} is {value}: accepted is {least} or more")
        if not 0.0 < self.alpha <= 1.0:
            raise UserError(f"texts.alpha is {self.alpha}: accepted is a share in (0, 1]")
        if not self.beta >= 0.0:
            raise UserError(f"texts.beta is {self.beta}: accepted is a number from 0, or inf for the plain difference")
        self.sampling(())  # refuses what cannot be

    def sampling(self, stop: tuple[int, ...]) -> Sampling:
        """How tokens are drawn of the scores."""
        top_k = self.top_k or None
        return Sampling(self.length - 1, temperature=self.temperature, top_p=self.top_p, top_k=top_k, stop=stop)


def contrastive_distil(
    settings: ContrastiveTexts, base: LanguageModel, expert: LanguageModel, *, key: Key, label: str | None = None
) -> GeneratedTexts:
    """Draw a set of texts from the contrast of two language models, each from the start token on.

    Texts without a visible character are drawn again: nothing can be learned of them.

    Args:
      settings: see there.
      base: what texts have to be plausible for.
      expert: the same, further trained; of low-rank adapters, merged (`models.lora.merge_adapters`).
      key: of all texts.
      label: of progress lines; none without.

    Raises:
      UserError: the models do not have one vocabulary and tokenizer, no start or end token, or fewer positions than
        texts are long; most texts are empty.
    """
    if base.tokenizer.get_vocab() != expert.tokenizer.get_vocab():
        raise UserError(
            f"contrast: the tokenizers of {base.name!r} (base, {base.tokenizer.get_vocab_size()} tokens) and "
            f"{expert.name!r} (expert, {expert.tokenizer.get_vocab_size()} tokens) differ; both models must have the "
            "same one"
        )
    options = {"alpha": settings.alpha, "beta": settings.beta, "shared_cache": settings.shared_cache}
    contrast = Contrast(Model(base.decoder), Model(expert.decoder), **options)
    check_length(settings, contrast.positions)
    start, stop = boundary_tokens(base.decoder.config, base.name)

    def read(tokens: Sequence[int]) -> str | None:
        text = base.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text if text.strip() else None

    return generate_texts(
        contrast,
        Pair(base.params, expert.params),
        base.tokenizer,
        start,
        settings.count,
        settings.sampling(stop),
        key,
        micro_batch=settings.micro_batch,
        read=read,
        label=label,
    )


def check_length(settings: ContrastiveTexts, positions: int) -> None:
    """Raise `UserError` where texts are longer than the positions that models read."""
    if settings.length > positions:
        raise UserError(
            f"texts.length is {settings.length}, and the models read {positions} positions: accepted are as many or "
            "fewer"
        )


def boundary_tokens(config: DecoderConfig, name: str) -> tuple[int, tuple[int, ...]]:
    """(the token that texts start from, those that end them) of a language model called `name`.

    Raises:
      UserError: its config names no end token. Without a start token of its own, texts start from the end token.
    """
    if not config.end_tokens:
        raise UserError(f"language model {name!r}: its config.json names no end token (eos_token_id); expected one")
    start = config.end_tokens[0] if config.start_token is None else config.start_token
    return start, config.end_tokens
