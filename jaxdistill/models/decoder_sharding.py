"""How the parameters of a large decoder are cut along the "model" axis of a mesh."""

from __future__ import annotations

from jax.sharding import PartitionSpec as P

from jaxdistill.models.decoder_config import DecoderConfig


def sharding_rules(config: DecoderConfig, parts: int, *, scan_layers: bool = False) -> list[tuple[str, P]]:
    """Rules for `parallel.mesh.rule_shardings`: whole heads and columns of the feed-forward layer to each part.

    Then a layer needs two sums over the axis, after attention and after the feed-forward layer (Shoeybi et al.,
    "Megatron-LM", 2019). The word table and the head are cut along the vocabulary, or along the features where the
    parts do not divide it. Keys and values whose heads do not divide stay whole; so does what has no rule.

    Args:
      config: of the decoder.
      parts: size of the "model" axis.
      scan_layers: whether the layers are stacked.
    """
    first = (None,) if scan_layers else ()
    columns = [("expand|gate", config.intermediate)]
    columns += [("query", config.heads), ("key|value", config.kv_heads)]
    rules: list[tuple[str, P]] = []
    for names, units in columns:
        if units % parts == 0:
            rules.append((rf"^layers/.*\b({names})/kernel$", P(*first, None, "model")))
            rules.append((rf"^layers/.*\b({names})/bias$", P(*first, "model")))
    for name, units in (("output", config.heads), ("contract", config.intermediate)):
        if units % parts == 0:
            rules.append((rf"^layers/.*\b{name}/kernel$", P(*first, "model", None)))
    if config.vocabulary % parts == 0:
        rules += [("word/table$", P("model", None)), ("^head/kernel$", P(None, "model")), ("^head/bias$", P("model"))]
    elif config.embedding_width % parts == 0:
        rules += [("word/table$", P(None, "model")), ("^head/kernel$", P("model", None))]
    return rules
