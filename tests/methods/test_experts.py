"""Experts: what is kept, how exactly, how large; damage, interruption, several at once."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.methods.base import Run, Stopped
from jaxdistill.methods.experts import Experts, train_experts

CONFIG = Experts(count=2, epoch_steps=3, span=2, latest_start=2, lr=1e-2, batch_size=8)
KEY = jax.random.key(7)


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(x)) for x in jax.tree.leaves(tree)])


def train(problem, folder, config=CONFIG, **run):
    return train_experts(config, problem, key=KEY, run=Run(folder=folder, **run))


@pytest.fixture(scope="module")
def trained(toy_problem, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(toy_problem, folder), folder


def test_epochs_that_are_read():
    assert (CONFIG.starts, CONFIG.kept) == ((0, 2), (2, 4))
    assert Experts(span=3, latest_start=7).kept == (3, 6, 9)


def test_snapshots_are_those_of_the_training(trained, toy_problem):
    """bfloat16 keeps a difference to 1 part in 256; the same training, by hand, gives the exact one."""
    import optax

    from jaxdistill.core.losses import cross_entropy
    from jaxdistill.core.random import numpy_seed
    from jaxdistill.core.types import Variables
    from jaxdistill.data.batching import TrainBatches

    library, _ = trained
    learner = toy_problem.pretrained.learner
    head_key, data_key, _ = jax.random.split(KEY, 3)
    start = learner.refresh(toy_problem.base(), jax.random.fold_in(head_key, 1))
    batches = TrainBatches(
        toy_problem.train,
        batch_size=8,
        seed=numpy_seed(jax.random.fold_in(data_key, 1)),
        row_length=toy_problem.row_length,
        usual_shapes=0,
    )
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, batch):
        def loss(p):
            logits = learner.apply(Variables(p, start.frozen), batch).logits
            return cross_entropy(logits, batch.labels, batch.weights)

        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return optax.apply_updates(params, updates), state

    params, state = start.trainable, optimizer.init(start.trainable)
    np.testing.assert_allclose(flat(library.params(1, 0)), flat(params), atol=1e-7)
    for number in range(12):
        params, state = step(params, state, batches(number))
        if number + 1 in (6, 12):
            moved = flat(params) - flat(start.trainable)
            found = flat(library.params(1, (number + 1) // 3)) - flat(start.trainable)
            assert np.linalg.norm(found - moved) < 0.01 * np.linalg.norm(moved)


def test_segments_are_a_pure_function_of_the_step(trained):
    library, _ = trained
    drawn = [library.segment(step) for step in range(20)]
    np.testing.assert_array_equal(flat(drawn[3]), flat(library.segment(3)))
    ends = {
        (round(float(np.linalg.norm(flat(s.start))), 4), round(float(np.linalg.norm(flat(s.target))), 4)) for s in drawn
    }
    assert len(ends) == 4  # two experts, two starts


def test_storage_is_at_most_a_third_of_full_snapshots(trained):
    library, folder = trained
    stored = sum(path.stat().st_size for path in (folder / "experts").rglob("*") if path.is_file())
    full = 2 * (1 + CONFIG.kept[-1]) * 4 * flat(library.params(0, 0)).size
    assert stored <= full / 3


def test_an_interrupted_training_goes_on_and_ends_the_same(trained, toy_problem, tmp_path):
    library, _ = trained
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 6  # in the second expert

    with pytest.raises(Stopped, match="1 of 2 done"):
        train(toy_problem, tmp_path, stop=stop)
    assert [path.name for path in sorted((tmp_path / "experts").iterdir())] == ["expert_000"]
    again = train(toy_problem, tmp_path)
    for expert in (0, 1):
        np.testing.assert_array_equal(flat(again.params(expert, 4)), flat(library.params(expert, 4)))


def test_several_at_once_are_those_one_after_another(trained, toy_problem, tmp_path):
    together = train_experts(CONFIG, toy_problem, key=KEY, run=Run(folder=tmp_path), axis="vmap")
    for expert in (0, 1):
        begin = flat(together.params(expert, 0))
        moved, expected = (flat(library.params(expert, 4)) - begin for library in (together, trained[0]))
        assert np.linalg.norm(moved - expected) < 0.02 * np.linalg.norm(expected)


def test_a_damaged_file_is_named_and_refused(trained, toy_problem, tmp_path):
    train(toy_problem, tmp_path)
    path = tmp_path / "experts" / "expert_001" / "differences.bfloat16"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="expert_001/differences.bfloat16 is damaged"):
        train(toy_problem, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="expert_001/differences.bfloat16 cannot be read"):
        train(toy_problem, tmp_path)
    (path.parent / "index.json").write_text("{}")
    with pytest.raises(UserError, match="index.json cannot be read"):
        train(toy_problem, tmp_path)


def test_experts_of_another_configuration_are_refused(trained, toy_problem):
    _, folder = trained
    with pytest.raises(UserError, match="expert_000 holds the training of another learner or configuration"):
        train(toy_problem, folder, dataclasses.replace(CONFIG, lr=2e-2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "experts.count is 0"),
        ({"span": 0}, "experts.span is 0"),
        ({"latest_start": -1}, "experts.latest_start is -1"),
        ({"optimizer": "adamw"}, "experts.optimizer is 'adamw'"),
        ({"lr": 0.0}, "experts.lr is 0.0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UserError, match=message):
        Experts(**changes)


def test_divergence_is_said(toy_problem, tmp_path):
    wild = dataclasses.replace(CONFIG, optimizer="sgd", lr=1e30)
    with pytest.raises(UserError, match="diverged in epoch 1: lower experts.lr"):
        train(toy_problem, tmp_path, wild)
