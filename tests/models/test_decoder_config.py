"""DecoderConfig: what it refuses, and that `config.json` goes both ways."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refused

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch
from jaxdistill.models.decoder_config import DecoderConfig, RotaryScaling
from jaxdistill.models.decoder_families import decoder_config, huggingface_config
from jaxdistill.models.sight import alibi_slopes, rotary_frequencies, see

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SIZES | {"model_type": "llama", "intermediate_size": 40}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 100}
GPT2 = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4}
OPT = SIZES | {"model_type": "opt"}
PHI = LLAMA | {"model_type": "phi"}
FALCON = SIZES | {"model_type": "falcon"}
NEW = {"new_decoder_architecture": True, "num_kv_heads": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "bert"}, "family 'bert' is unknown; supported are gpt2, opt, llama, phi, falcon"),
        ({"activation": "mish"}, "activation 'mish' is unknown; supported are gelu, gelu_new, relu, silu"),
        ({"attention_implementation": "cudnn"}, "'cudnn' is refused because only 'xla' has all the derivatives"),
        ({"layers": 0}, "layers is 0; expected a whole number of at least 1"),
        ({"kv_heads": 5}, "12 heads cannot share 5 key-value heads; expected a divisor"),
        ({"kv_heads": 6}, "6 key-value heads for 12 heads; gpt2 has as many of both"),
        ({"head_width": 60}, "width 768 is not 12 heads of 60; only llama may differ there"),
        ({"embedding_width": 512}, "embedding_width 512 is not the width 768; only opt projects"),
        ({"rotary_width": 8}, "are for positions by rotation, not by table"),
        ({"norm": "rms"}, "norm is 'rms', which gpt2 has not; expected 'layer'"),
        ({"positions_by": "alibi"}, "positions_by is 'alibi', which gpt2 has not; expected 'table'"),
        ({"residual_dropout": 1.0}, "residual_dropout is 1.0; it must lie in [0, 1)"),
        ({"norm_epsilon": 0.0}, "norm_epsilon is 0.0; it must be above 0"),
    ],
)
def test_refuses(change, message):
    with refused(message):
        DecoderConfig(**change)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "t5"}, "c.json: model_type 't5' is not supported; supported are gpt2, opt, llama, phi, falcon"),
        ({}, "model_type None is not supported"),
        (GPT2 | {"n_embd": None}, "c.json: no entry n_embd; a decoder of type gpt2 needs it"),
        (GPT2 | {"n_head": 5}, "n_embd 32 is not a multiple of its 5 heads"),
        (GPT2 | {"add_cross_attention": True}, "add_cross_attention is True; decoders with it are not supported"),
        (GPT2 | {"activation_function": "mish"}, "activation 'mish' is unknown"),
        (LLAMA | {"intermediate_size": None}, "no entry intermediate_size"),
        (LLAMA | {"num_key_value_heads": 3}, "4 heads cannot share 3 key-value heads"),
        (LLAMA | {"head_dim": 7}, "rotary_width is 7; expected an even number from 2 to the head width 7"),
        (LLAMA | {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "of type 'yarn' is not supported; supported are"),
        (LLAMA | {"rope_scaling": {"type": "linear"}}, "rope_scaling of type 'linear' has no factor"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor is 0.5; it must be at least 1"),
        (LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "has no low_freq_factor, high_freq_factor"),
        (LLAMA | {"rope_scaling": LLAMA3 | {"low_freq_factor": 5.0}}, "low 5.0 and high 4.0; expected 0 < low < high"),
        (LLAMA | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; llama rotates whole heads"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}; decoders with it"),
        (PHI | {"qk_layernorm": True}, "qk_layernorm is True"),
        (PHI | {"partial_rotary_factor": 0.4}, "rotary_width is 3; expected an even number"),
        (FALCON | NEW | {"parallel_attn": False}, "new_decoder_architecture is always parallel"),
        (FALCON | {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn 2 needs new_decoder_architecture"),
    ],
)
def test_refuses_huggingface(values, message):
    with pytest.raises(UserError) as caught:
        decoder_config(values, "c.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("c.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        GPT2 | {"n_inner": 40, "scale_attn_by_inverse_layer_idx": True, "eos_token_id": 99},
        OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "dropout": 0.2, "pad_token_id": 1},
        OPT | {"_remove_final_layer_norm": True, "enable_bias": False, "layer_norm_elementwise_affine": False},
        LLAMA | {"num_key_value_heads": 2, "head_dim": 6, "rope_scaling": LLAMA3, "eos_token_id": [3, 4]},
        LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}, "mlp_bias": True},
        LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "tie_word_embeddings": True},
        PHI | {"hidden_size": 200, "partial_rotary_factor": 0.29, "num_key_value_heads": 2},
        FALCON,
        FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
        FALCON | NEW,
        FALCON | NEW | {"num_ln_in_parallel_attn": 1, "ffn_hidden_size": 48},
    ],
)
def test_round_trip(values):
    config = decoder_config(values)
    assert decoder_config(huggingface_config(config)) == config


def test_what_is_derived():
    gpt2, opt, llama, phi, falcon = (decoder_config(values) for values in (GPT2, OPT, LLAMA, PHI, FALCON))
    assert gpt2.intermediate == 128 and gpt2.residual_dropout == 0.1 and gpt2.tied_head
    assert dataclasses.replace(gpt2, family="gpt2").head_width == 8
    assert opt.position_offset == 2 and opt.activation == "relu" and opt.final_norm and opt.parallel_norms == 0
    assert llama.norm == "rms" and llama.gated and not llama.tied_head and not llama.attention_bias
    assert phi.rotary_width == 4 and phi.head_bias and phi.parallel_norms == 1
    assert falcon.kv_heads == 1 and falcon.group == 4 and falcon.parallel_norms == 1
    assert decoder_config(FALCON | NEW).parallel_norms == 2
    assert decoder_config(FALCON | {"multi_query": False, "alibi": True}).positions_by == "alibi"
    assert decoder_config(GPT2 | {"activation_function": "gelu_pytorch_tanh"}).activation == "gelu_new"
    assert decoder_config(GPT2 | {"eos_token_id": [5, 6], "bos_token_id": 7}).end_tokens == (5, 6)


def test_rotary_frequencies():
    config = decoder_config(LLAMA | {"rope_theta": 10000.0})
    plain = [1.0, 0.1, 0.01, 0.001]
    np.testing.assert_allclose(rotary_frequencies(config), plain, rtol=1e-6)
    linear = dataclasses.replace(config, rotary_scaling=RotaryScaling("linear", 4.0))
    np.testing.assert_allclose(rotary_frequencies(linear), np.array(plain) / 4, rtol=1e-6)
    # Waves that fit 15.9, 1.59 and less than one time into 100 positions: kept, between, stretched.
    stretched = dataclasses.replace(config, rotary_scaling=RotaryScaling("llama3", 8.0, 1.0, 4.0, 100))
    share = (10.0 / (2 * np.pi) - 1.0) / 3.0
    expected = [1.0, (1 - share) * 0.1 / 8 + share * 0.1, 0.01 / 8, 0.001 / 8]
    np.testing.assert_allclose(rotary_frequencies(stretched), expected, rtol=1e-6)


def test_alibi():
    np.testing.assert_allclose(alibi_slopes(4), [2**-2, 2**-4, 2**-6, 2**-8])
    np.testing.assert_allclose(alibi_slopes(6), [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])
    config = decoder_config(FALCON | {"alibi": True, "hidden_size": 48, "num_attention_heads": 12})
    _, sight = see(config, Batch(token_ids=jnp.zeros((1, 400), jnp.int32)), None, jnp.dtype("float32"))
    # In bfloat16: the ninth slope 2^-0.5 is 0.70703125; position 399 is 400, and their product 282.8 is 282.
    assert sight.own.shape == (1, 1, 12, 400, 400)
    assert float(sight.own[0, 0, 8, -1, 399]) == 282.0 * 0.5
    assert float(sight.own[0, 0, 0, 10, 11]) == -1e9
