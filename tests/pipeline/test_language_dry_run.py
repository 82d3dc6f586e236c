"""Dry runs of a language model: by shape alone, on more devices than there are, without making an array."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT, refused, run_python

from jaxdistill.models.decoder_families import huggingface_config
from jaxdistill.parallel.mesh import pretend_cpu_devices
from jaxdistill.pipeline.language_config import LanguageModelConfig
from jaxdistill.pipeline.language_dry_run import dry_run_language_model, measure_step
from jaxdistill.pipeline.overrides import load_config, override

LLAMA = ROOT / "experiments/configs/language_models/llama_7b.py"
SMALL = {"model.width": "64", "model.layers": "2", "model.heads": "4", "model.intermediate": "128"}
SMALL |= {"tokenizer.vocabulary": "320", "training.row_length": "32", "model.positions": "32", "devices": "0"}
SMALL |= {"model_devices": "1", "training.updates": "10"}
# Table, head, two layers of four matrices of attention and three of the feed-forward layer, five norms.
MATRICES = 2 * 320 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128)
PARAMETERS = MATRICES + 5 * 64

PROGRAM = """
    import json, sys
    import jax, numpy as np
    from jaxdistill.parallel.mesh import pretend_cpu_devices
    pretend_cpu_devices(8)
    from jaxdistill.pipeline.language_config import LanguageModelConfig
    from jaxdistill.pipeline.language_dry_run import measure_step
    from jaxdistill.pipeline.overrides import load_config, override

    config = override(load_config("CONFIG", LanguageModelConfig), json.loads('CHANGES'))
    figures = measure_step(config)
    made = sum(x.nbytes for x in jax.live_arrays() if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
    memory = figures.memory
    print(json.dumps([dict(figures.mesh.shape), figures.parameters, figures.parameter_bytes, figures.state_bytes, made,
                      memory["argument_bytes"], memory["alias_bytes"], memory["temp_bytes"]]))
"""


def small(**changes: str) -> LanguageModelConfig:
    return override(load_config(str(LLAMA), LanguageModelConfig), SMALL | changes)


def test_eight_devices_that_are_not_there_hold_an_eighth_each_and_nothing_is_made():
    changes = json.dumps(SMALL | {"devices": "8", "model_devices": "4"})
    output = run_python(PROGRAM.replace("CONFIG", str(LLAMA)).replace("CHANGES", changes))
    mesh, parameters, here, state, made, arguments, aliased, temporaries = json.loads(output)
    assert mesh == {"data": 2, "model": 4} and parameters == PARAMETERS
    assert here == 4 * (MATRICES / 8 + 5 * 64), "only norms are whole"
    assert state == 3 * here + 5 * 4, "moments are cut alike; there are five counts"
    batch = 8 // 2 * 32 * 5 * 4  # token ids, positions, segments and two weights of this device's rows
    assert arguments == pytest.approx(state + batch, abs=64) and aliased == state and temporaries > 0
    assert made < 100, "bytes of all arrays"


def test_a_model_may_be_its_config_alone(tmp_path):
    sizes = small().model.decoder_config(vocabulary=320, positions=32)
    (tmp_path / "config.json").write_text(json.dumps(huggingface_config(sizes)))
    by_folder = small(**{"model.name": str(tmp_path), "tokenizer.vocabulary": "4096", "training.lora_rank": "2"})
    lines = dry_run_language_model(by_folder).splitlines()
    adapters = 2 * 2 * (4 * (64 + 64) + 3 * (64 + 128))
    assert lines[0] == f"{tmp_path} on no texts"
    assert lines[1] == f"parameters: {PARAMETERS:,}, of which {adapters:,} are learned"
    assert lines[2].startswith("step: 8 rows of 32 tokens in 1 micro-batches, 100.0% of them filled")
    assert lines[3] == "training: 10 steps" and "take the place of arguments" in lines[5]


def test_work_is_that_of_the_products():
    """Forward, backward twice as much, and what is made anew: the head, and layers up to their last product."""
    tokens, scored = 8 * 32, 8 * 31
    attention = 2 * 2 * 2 * tokens * 32 * 64
    layers = 2 * tokens * (MATRICES - 2 * 320 * 64) + attention
    head = 2 * scored * 320 * 64
    last = 2 * 2 * tokens * 128 * 64
    found = measure_step(small())
    assert found.flops == 4 * (layers + head) - last
    assert found.parameter_bytes == 4 * PARAMETERS and found.mesh is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"training.updates": "0", "training.epochs": "1"}, "training.epochs is 1.0: without texts"),
        ({"devices": "64"}, "64 mesh devices were asked for"),
        ({"devices": "8", "model_devices": "3"}, "model_devices is 3: accepted are divisors of devices, which is 8"),
        ({"model_devices": "2"}, "model_devices is 2: accepted are divisors of devices, which is 0"),
        ({"model.kv_heads": "3"}, "model: decoder config: 4 heads cannot share 3 key-value heads"),
        ({"model.kv_heads": "2", "model.family": "gpt2"}, "gpt2 has as many of both"),
        ({"model.family": "opt"}, "model.family is 'opt': accepted are gpt2, llama"),
        ({"model.heads": "64"}, "rotary_width is 1; expected an even number"),
        ({"model.name": "./nowhere", "tokenizer.vocabulary": "4096"}, "no such folder"),
    ],
)
def test_mistakes_end_in_one_line(changes, message):
    with refused(message):
        measure_step(small(**changes))


def test_devices_are_pretended_before_jax_has_counted_them():
    with refused("8 CPU devices must be asked for before anything of JAX touches a device"):
        pretend_cpu_devices(8)
