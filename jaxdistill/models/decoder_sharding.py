"""How the parameters of a large decoder are cut along the axes of a mesh."""

from __future__ import annotations

from jax.sharding import PartitionSpec as P

from jaxdistill.models.decoder_config import DecoderConfig


def sharding_rules(
    config: DecoderConfig, parts: int, *, scan_layers: bool = False, data: int = 1
) -> list[tuple[str, P]]:
    """Rules for `parallel.mesh.rule_shardings`: whole heads and columns of the feed-forward layer to each part.

    Then a layer needs two sums over the axis, after attention and after the feed-forward layer (Shoeybi et al.,
    "Megatron-LM", 2019). The word table and the head are cut along the vocabulary, or along the features where the
    parts do not divide it. Keys and values whose heads do not divide stay whole; so does what has no rule.

    With `data`, the other axis of each matrix is cut along "data" as well (Rajbhandari et al., "ZeRO", 2020, stage 3):
    a parameter is gathered where it is read, and nothing is held twice. The rules fit the parameters wherever they lie
    in a tree, and so the optimiser's moments of them; low-rank adapters are cut as the matrix that they change.

    Args:
      config: of the decoder.
      parts: size of the "model" axis.
      scan_layers: whether the layers are stacked.
      data: size of the "data" axis, to cut along it too; 1 leaves parameters whole along it.
    """
    layers, first = r"\blayers/.*\b", (None,) if scan_layers else ()
    width, narrow, words = (
        "data" if data > 1 and size % data == 0 else None
        for size in (config.width, config.embedding_width, config.vocabulary)
    )
    rules: list[tuple[str, P]] = []
    columns = [("expand|gate", config.intermediate)]
    columns += [("query", config.heads), ("key|value", config.kv_heads)]
    for names, units in columns:
        cut = "model" if units % parts == 0 else None
        rules += _matrix(f"{layers}({names})/kernel", (*first, width, cut))
        if cut:
            rules.append((f"{layers}({names})/bias$", P(*first, cut)))
    for name, units in (("output", config.heads), ("contract", config.intermediate)):
        rules += _matrix(f"{layers}{name}/kernel", (*first, "model" if units % parts == 0 else None, width))
    if config.vocabulary % parts == 0:
        table = ("model", narrow)
        rules.append((r"\bhead/bias$", P("model")))
    else:
        table = (words, "model" if config.embedding_width % parts == 0 else None)
    rules += _matrix(r"\bword/table", table)
    rules += _matrix(r"\bhead/kernel", (table[1], table[0]))
    rules.append((r"\bposition/table$", P(None, width)))
    return [(pattern, spec) for pattern, spec in rules if any(spec)]


def _matrix(pattern: str, spec: tuple[str | None, ...]) -> list[tuple[str, P]]:
    """Rules of a matrix and of its adapters, A [..., i, r] and B [..., r, o]."""
    *first, rows, columns = spec
    return [
        (f"{pattern}$", P(*spec)),
        (f"{pattern}/a$", P(*first, rows, None)),
        (f"{pattern}/b$", P(*first, None, columns)),
    ]
