"""Which Hugging Face tensor is which parameter of ours."""

from __future__ import annotations

from jaxdistill.models.config import EncoderConfig

Path = tuple[str, ...]

_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "expand": "ffn.lin1",
    "contract": "ffn.lin2",
    "norm": "output_layer_norm",
}
# Modules of the head; names that start with the family's prefix belong to the body in transformers' classes.
_HEAD = {
    "bert": {"pooler": "bert.pooler.dense", "classifier": "classifier"},
    "roberta": {"pooler": "classifier.dense", "classifier": "classifier.out_proj"},
    "distilbert": {"pooler": "pre_classifier", "classifier": "classifier"},
}


def tensor_names(config: EncoderConfig) -> dict[Path, str]:
    """Path of each parameter (layers not stacked) -> name in the family's `...ForSequenceClassification`."""
    prefix = config.family
    modules: dict[Path, str] = {
        ("embeddings", "word"): f"{prefix}.embeddings.word_embeddings",
        ("embeddings", "position"): f"{prefix}.embeddings.position_embeddings",
        ("embeddings", "norm"): f"{prefix}.embeddings.LayerNorm",
    }
    if config.token_types:
        modules["embeddings", "token_type"] = f"{prefix}.embeddings.token_type_embeddings"
    distilbert = config.family == "distilbert"
    stack = "transformer.layer" if distilbert else "encoder.layer"
    for i in range(config.layers):
        for ours, theirs in (_DISTILBERT_LAYER if distilbert else _BERT_LAYER).items():
            modules["layers", str(i), ours] = f"{prefix}.{stack}.{i}.{theirs}"
    for ours, theirs in _HEAD[config.family].items():
        modules[(ours,)] = theirs
    names: dict[Path, str] = {}
    for path, module in modules.items():
        if path[0] == "embeddings" and path[1] != "norm":
            names[*path, "table"] = f"{module}.weight"
        else:
            weight = "scale" if path[-1].endswith("norm") else "kernel"
            names[*path, weight] = f"{module}.weight"
            names[*path, "bias"] = f"{module}.bias"
    return names


def parameter_shapes(config: EncoderConfig, num_classes: int | None) -> dict[Path, tuple[int, ...]]:
    """Shape of each parameter (layers not stacked); the classifier's is left out when `num_classes` is `None`."""
    width, wide = config.width, config.intermediate
    sizes = {"expand": (width, wide), "contract": (wide, width), "classifier": (width, num_classes)}
    tables = {"word": config.vocabulary, "position": config.positions, "token_type": config.token_types}
    shapes: dict[Path, tuple[int, ...]] = {}
    for path in tensor_names(config):
        module, leaf = path[-2], path[-1]
        if module == "classifier" and num_classes is None:
            continue
        if leaf == "table":
            shapes[path] = (tables[module], width)
        elif leaf == "kernel":
            shapes[path] = sizes.get(module, (width, width))
        else:
            shapes[path] = (sizes[module][1] if module in sizes else width,)
    return shapes


def canonical(name: str, family: str) -> str:
    """A tensor's name as the family's sequence classifier spells it.

    Mends what older or bare checkpoints differ in: `gamma`/`beta` for the weights of a normalisation, and a body saved
    without its prefix.
    """
    module, _, leaf = name.rpartition(".")
    if module.endswith("LayerNorm"):
        name = f"{module}.{ {'gamma': 'weight', 'beta': 'bias'}.get(leaf, leaf) }"
    bare = ("embeddings.", "encoder.", "transformer.", "pooler.")
    return f"{family}.{name}" if name.startswith(bare) else name


def ignorable(name: str) -> bool:
    """True for tensors that checkpoints hold and a classifier does not need: buffers and other tasks' heads."""
    buffers = name.endswith(("position_ids", "token_type_ids"))
    return buffers or name.startswith(("cls.", "lm_head.", "vocab_", "qa_outputs.", "roberta.pooler."))
