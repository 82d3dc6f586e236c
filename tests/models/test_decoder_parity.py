"""Checkpoints of transformers' torch decoders, causal language models and classifiers, give the same logits here, and
the other way round."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.types import Batch, Variables
from jaxdistill.models.decoder_classifier import load_decoder_classifier, save_decoder_classifier
from jaxdistill.models.decoder_folder import load_decoder, save_decoder
from jaxdistill.models.decoder_learner import decoder_learner
from jaxdistill.models.decoding import prefill, step

pytestmark = pytest.mark.needs_torch

LENGTH, PROMPT, SLOTS = 9, 6, 10
# Padding, and which of its sides.
LENGTHS = (9, 7, 4)
FULL = np.ones((len(LENGTHS), LENGTH), bool)
RIGHT = np.arange(LENGTH) < np.array(LENGTHS)[:, None]
LEFT = RIGHT[:, ::-1]

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
OPT = SIZES | {"ffn_dim": 40, "dropout": 0.1}
LLAMA = SIZES | {"intermediate_size": 40}
SWITCHES = {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "activation_function": "gelu"}
VARIANTS = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-switches": ("GPT2", GPT2 | SWITCHES | {"n_inner": 40, "tie_word_embeddings": False}),
    "gpt2-unscaled": ("GPT2", GPT2 | {"scale_attn_weights": False, "n_layer": 1, "activation_function": "gelu_fast"}),
    "opt": ("OPT", OPT),
    "opt-projected": ("OPT", OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "opt-bare": ("OPT", OPT | {"enable_bias": False, "layer_norm_elementwise_affine": False}),
    "opt-no-final-norm": ("OPT", OPT | {"_remove_final_layer_norm": True, "activation_function": "gelu"}),
    "llama": ("Llama", LLAMA),
    "llama-grouped": ("Llama", LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 12}),
    "llama-linear": ("Llama", LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "attention_bias": True}),
    "llama-llama3": (
        "Llama",
        LLAMA
        | {"num_key_value_heads": 1, "mlp_bias": True}
        | {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 40, "rope_theta": 500.0}},
    ),
    "phi": ("Phi", LLAMA),
    "phi-grouped": ("Phi", LLAMA | {"num_key_value_heads": 2, "partial_rotary_factor": 0.25, "rope_theta": 100.0}),
    "falcon-7b": ("Falcon", SIZES),
    "falcon-40b": ("Falcon", SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon-11b": (
        "Falcon",
        SIZES | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon-rw": (
        "Falcon",
        SIZES | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "falcon-alibi": (
        "Falcon",
        SIZES | {"hidden_size": 24, "num_attention_heads": 6, "alibi": True, "ffn_hidden_size": 40},
    ),
}
CLASSES = {"GPT2ForCausalLM": "GPT2LMHeadModel"}


def torch_model(variant: str, task: str = "CausalLM", **changes):
    """A model whose every parameter, biases and normalisation included, is random.

    It attends as transformers does by default; "eager", its Falcon gives other numbers.
    """
    import torch
    import transformers

    family, values = VARIANTS[variant]
    config = getattr(transformers, f"{family}Config")(**values, **changes)
    torch.manual_seed(0)
    name = f"{family}For{task}"
    model = getattr(transformers, CLASSES.get(name, name))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def tokens(mask: np.ndarray) -> np.ndarray:
    ids = np.random.default_rng(1).integers(3, 50, mask.shape)
    return np.where(mask, ids, 1).astype(np.int32)


def torch_logits(model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import torch

    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        out = model(**{name: torch.tensor(np.ascontiguousarray(value)).long() for name, value in given.items()})
    return out.logits.numpy()


@functools.partial(jax.jit, static_argnums=0)
def logits_with_and_without_cache(decoder, params, ids, mask):
    """Logits of all positions, and those of the prompt's last token and the steps after it."""
    whole = decoder.apply({"params": params}, Batch(token_ids=ids, mask=mask))
    first, cache = prefill(decoder, params, ids[:, :PROMPT], mask[:, :PROMPT], length=SLOTS)

    def run(cache, given):
        logits, cache = step(decoder, params, given[0], cache, given[1])
        return cache, logits

    _, rest = jax.lax.scan(run, cache, (ids[:, PROMPT:].T, mask[:, PROMPT:].T))
    return whole, jnp.concatenate([first[:, None], jnp.swapaxes(rest, 0, 1)], axis=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_checkpoint(variant, tmp_path):
    model = torch_model(variant)
    model.save_pretrained(tmp_path / "theirs")
    for scan_layers in (False, True) if variant in ("gpt2", "falcon-40b") else (True,):
        decoder, params, config, *_ = load_decoder(tmp_path / "theirs", scan_layers=scan_layers)
        for mask in (FULL, RIGHT, LEFT):
            ids = tokens(mask)
            expected = torch_logits(model, ids, mask)
            whole, cached = logits_with_and_without_cache(decoder, params, ids, mask)
            np.testing.assert_allclose(whole[mask], expected[mask], atol=1e-4)
            # A row padded on the right has its last logits of the prompt where the prompt ends.
            last = PROMPT - 1 - np.argmax(mask[:, :PROMPT][:, ::-1], axis=1)
            np.testing.assert_allclose(cached[:, 0], expected[np.arange(len(ids)), last], atol=1e-4)
            kept = mask[:, PROMPT:]
            np.testing.assert_allclose(cached[:, 1:][kept], expected[:, PROMPT:][kept], atol=1e-4)
    # transformers reads what is saved here.
    save_decoder(tmp_path / "ours", config, params)
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_allclose(torch_logits(again.eval(), ids, mask), expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["gpt2", "opt-projected", "llama", "phi", "falcon-40b"])
def test_classifier(variant, tmp_path):
    """transformers reads the last token that is not the padding token, here it is the last one in the mask."""
    model = torch_model(variant, "SequenceClassification", num_labels=3, pad_token_id=1)
    model.save_pretrained(tmp_path / "theirs")
    config, params, notes = load_decoder_classifier(tmp_path / "theirs")
    assert notes == ()
    learner = decoder_learner(config, params, num_classes=3)
    drawn = learner.init(jax.random.key(0))
    variables = Variables(drawn.trainable | {"classifier": params["classifier"]}, drawn.frozen)
    ids = tokens(RIGHT)
    expected = torch_logits(model, ids, RIGHT)
    outputs = jax.jit(learner.apply)(variables, Batch(token_ids=ids, mask=RIGHT))
    np.testing.assert_allclose(outputs.logits, expected, atol=1e-4)
    np.testing.assert_allclose(outputs.features @ params["classifier"]["kernel"], expected, atol=1e-4)
    save_decoder_classifier(tmp_path / "ours", config, params)
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    np.testing.assert_allclose(torch_logits(again.eval(), ids, RIGHT), expected, atol=1e-5)
