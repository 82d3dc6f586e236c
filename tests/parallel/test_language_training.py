"""The training of a language model on eight devices, parameters cut over them, against one device."""

from __future__ import annotations

import json

import pytest
from helpers import run_python

PROGRAM = """
    import dataclasses, json, os
    import jax, numpy as np
    from jaxdistill.data.encoding import Encoded
    from jaxdistill.io.checkpoints import Checkpoints
    from jaxdistill.methods.base import Run, Stopped
    from jaxdistill.methods.language_modelling import make_training, run_training, train_language_model
    from jaxdistill.methods.language_settings import LanguageModelling
    from jaxdistill.models.decoder import Decoder, init_decoder
    from jaxdistill.parallel.mesh import make_mesh
    from jaxdistill.pipeline.language_config import ModelConfig

    sizes = ModelConfig(family="llama", width=16, layers=2, heads=4, kv_heads=4, intermediate=24)
    decoder = Decoder(sizes.decoder_config(vocabulary=20, positions=16), scan_layers=True, remat_layers=True)
    params = init_decoder(decoder, jax.random.key(0))
    ids = np.random.default_rng(0).integers(20, size=(24, 16)).astype(np.int32)
    offsets = np.arange(25) * 16
    texts = Encoded(ids.ravel(), np.zeros(ids.size, np.int8), offsets, np.zeros(24, np.int32), 0)
    full = LanguageModelling(updates=2, epochs=0.0, rows=8, row_length=16, lr=0.01, selections=1, warmup=0.0)
    # One factor of an adapter begins with a gradient of zero: with Adam's usual epsilon, rounding would become steps.
    adapters = dataclasses.replace(full, lora_rank=4, micro_batches=2, epsilon=1e-3, keep="last")
    settings = {"full": full, "adapters": adapters}

    def train(name, mesh, **changes):
        run = Run(mesh=mesh, say=lambda line: None, **changes)
        dev = texts if name == "full" else None
        return train_language_model(settings[name], decoder, params, texts, dev, key=jax.random.key(1), run=run)

    mesh = make_mesh(8, model=4)
    for name in settings:
        on_mesh, alone = train(name, mesh), train(name, None)
        error = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), on_mesh.params, alone.params)
        moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), on_mesh.params, params)
        losses = [one.record["kept"]["dev_loss"] for one in (on_mesh, alone)]
        worst, largest = (max(jax.tree.leaves(differences)) for differences in (error, moved))
        print(json.dumps([name, worst, largest, losses, on_mesh.record["skipped"]]))
        if name == "full":
            unbroken = on_mesh
    answers = iter([True])
    checkpoints = Checkpoints(os.environ["KEPT"], config_hash="x")
    try:
        train("full", mesh, checkpoints=checkpoints, stop=lambda: next(answers))
    except Stopped:
        pass
    again = train("full", mesh, checkpoints=checkpoints)
    same = jax.tree.map(np.array_equal, again.params, unbroken.params)
    print(json.dumps(["resumed", all(jax.tree.leaves(same)), checkpoints.steps()]))
    for name in settings:
        training = make_training(settings[name], decoder, params, texts, key=jax.random.key(1), mesh=mesh)
        here = {jax.tree_util.keystr(path, simple=True, separator="/"): (x.shape, x.addressable_shards[0].data.shape)
                for path, x in jax.tree.leaves_with_path((training.state, training.constants))}
        print(json.dumps(here))
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return [json.loads(line) for line in run_python(PROGRAM, devices=8, KEPT=str(folder)).splitlines()]


@pytest.mark.parametrize("number, kind", [(0, "full"), (1, "adapters")])
def test_a_mesh_of_two_by_four_trains_as_one_device_does(lines, number, kind):
    name, error, moved, losses, skipped = lines[number]
    assert name == kind and skipped == 0
    assert error < 1e-5 and moved > 1e-3
    assert losses[0] == (None if name == "adapters" else pytest.approx(losses[1], rel=1e-5))


def test_a_stopped_run_goes_on_to_the_same_bits_on_a_mesh(lines):
    assert lines[2] == ["resumed", True, [1, 2]]


def test_parameters_moments_and_adapters_are_cut_over_both_axes(lines):
    full, adapters = lines[3:]
    for part in ("0/learned", "0/optimizer/1/mu", "0/optimizer/1/nu"):
        assert full[f"{part}/layers/query/kernel"] == [[2, 16, 16], [2, 8, 4]]
        assert full[f"{part}/layers/contract/kernel"] == [[2, 24, 16], [2, 6, 8]]
        assert full[f"{part}/embeddings/word/table"] == [[20, 16], [5, 8]]
        assert full[f"{part}/head/kernel"] == [[16, 20], [8, 5]]
        assert full[f"{part}/layers/norm/scale"] == [[2, 16], [2, 16]]
        if part != "0/learned":
            assert adapters[f"{part}/layers/query/kernel/a"] == [[2, 16, 4], [2, 8, 4]]
            assert adapters[f"{part}/layers/output/kernel/a"] == [[2, 16, 4], [2, 4, 4]]
            assert adapters[f"{part}/layers/query/kernel/b"] == [[2, 4, 16], [2, 4, 4]]
    assert adapters["1/layers/query/kernel"] == [[2, 16, 16], [2, 8, 4]]
