"""GRADMM's promises: what a text adds, what is told before anything is read, what reads the texts by mistake."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.data.sources import load_task
from jaxdistill.methods.gradmm_reading import Form, Rows
from jaxdistill.methods.gradmm_settings import Privacy
from jaxdistill.methods.gradmm_target import Reader, clean_target, private_target
from jaxdistill.models.decoder import Decoder, init_decoder
from jaxdistill.models.tiny import tiny_decoder_config
from jaxdistill.objectives.head_sketch import make_sketch
from jaxdistill.privacy.mechanism import Sealed, clipped_sums

FORM = Form((19,), (17, 18), (1, 2))
PRIVACY = Privacy(mode="gaussian", epsilon=4.0, size=6, records=2000, noise_seed=3)


@pytest.fixture(scope="module")
def reader():
    decoder = Decoder(tiny_decoder_config(20))
    return Reader(decoder, init_decoder(decoder, jax.random.key(0)), FORM, 4)


def rows_of(count, seed=0):
    ids = np.asarray(jax.random.randint(jax.random.key(seed), (count, 6), 0, 16), np.int32)
    return Rows(ids, np.full(count, 5, np.int32), np.arange(count, dtype=np.int32) % 2, 0)


def released(reader, rows, say=lambda line: None):
    records = Sealed({"token_ids": rows.token_ids, "last": rows.last, "label": rows.labels})
    return private_target(reader, records, Sealed(rows.labels), PRIVACY, identity={}, folder=None, say=say)


def test_one_text_moves_the_sketched_sums_by_no_more_than_the_bound(reader):
    rows, bound = rows_of(6), 0.01
    sketch, _ = make_sketch("label_rows+gauss", 6, jnp.asarray(FORM.labels), 20, 33, jax.random.key(0))

    def sums(keep):
        records = {"token_ids": rows.token_ids[keep], "last": rows.last[keep], "label": rows.labels[keep]}
        return clipped_sums(
            lambda part: sketch(reader.parts(part["token_ids"], part["last"], part["label"])),
            records,
            jnp.asarray(rows.labels[keep]),
            jnp.ones(len(keep), bool),
            2,
            bound=bound,
            micro_batch=4,
        )

    whole = sums(np.arange(6))
    moved = [float(jnp.linalg.norm(whole - sums(np.delete(np.arange(6), i)))) for i in range(6)]
    assert max(moved) <= bound * (1 + 1e-5) and min(moved) > 0.5 * bound  # gradients are longer than the bound


def test_what_is_told_beforehand_is_made_of_public_numbers(reader):
    lines: list[list[str]] = [[], []]
    released(reader, rows_of(6), lines[0].append)
    released(reader, rows_of(3, seed=1), lines[1].append)
    assert lines[0] == lines[1] and lines[0][0].startswith("private: sigma 1.0812, 6 numbers a class")


def test_what_reads_the_sealed_texts_fails(reader):
    """A filter by clean gradients, for one, has nothing to read them from."""
    rows = rows_of(6)
    sealed = Rows(Sealed(rows.token_ids), Sealed(rows.last), Sealed(rows.labels), 0)  # type: ignore[arg-type]
    with pytest.raises((PermissionError, TypeError)):
        clean_target(reader, sealed)


@pytest.mark.needs_data("sst2")
def test_the_published_split_of_sst2(data_dir, monkeypatch):
    """Its 50 real texts: the first of 100 that scikit-learn takes of the validation split, 29 positive, 21 negative."""
    from sklearn.model_selection import train_test_split

    monkeypatch.setenv("JAXDISTILL_DATA", str(data_dir))
    labels = load_task("sst2").test.labels
    _, taken = train_test_split(np.arange(len(labels)), test_size=100, random_state=42, stratify=labels)
    assert np.bincount(labels[taken[:50]]).tolist() == [21, 29]
