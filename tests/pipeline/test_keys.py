"""Keys of stages are all different: of each other, and of what the stages themselves split."""

from __future__ import annotations

import jax
import numpy as np

from jaxdistill.pipeline.keys import named_key


def words(key: jax.Array) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist()}


def test_stages_do_not_share_keys():
    names = ["evaluate", "distill", *(f"baseline/{name}/{i}" for name in ("random", "k_means") for i in range(100))]
    keys = [words(named_key(seed, name)) for seed in range(3) for name in names]
    assert len(set.union(*keys)) == len(keys)


def test_learners_of_the_evaluation_are_not_those_of_the_distillation():
    """Folding a small number into `key(seed)` gave the evaluator what splitting it gave the distillation."""
    seed = jax.random.key(0)
    assert words(jax.random.fold_in(seed, 1)) == words(jax.random.split(seed)[1])
    evaluate, distill = named_key(0, "evaluate"), named_key(0, "distill")
    for count in (2, 3, 100):
        learners = words(jax.vmap(jax.random.fold_in, (None, 0))(evaluate, np.arange(count)))
        for other in (seed, distill, jax.random.split(distill)[1]):
            assert not learners & words(jax.random.split(other, count))


def test_a_name_gives_the_same_key_in_every_process():
    np.testing.assert_array_equal(jax.random.key_data(named_key(5, "x")), jax.random.key_data(named_key(5, "x")))
    folded = jax.random.fold_in(jax.random.key(5), 0x8CDC1683)  # CRC-32 of "x"
    assert words(named_key(5, "x")) == words(folded)
