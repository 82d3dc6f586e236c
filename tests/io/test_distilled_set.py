from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Synthetic
from jaxdistill.io.distilled import DistilledSet, load_distilled, save_distilled

MANIFEST = {
    "task": "toy/reviews",
    "method": "attention_label",
    "learner": "minilm",
    "config": {"method": {"steps": 1, "per_class": 1}},
    "seeds": [0],
    "source_hash": "f00d",
    "cost": {"distill_seconds": 112.0, "distilled_bytes": 96, "flops": None},
    "versions": {"jax": "0.10.2"},
    "result": {"metric": "accuracy", "test": {"mean": 84.25, "std": 1.5, "n": 20}},
}


@pytest.fixture
def embedding() -> DistilledSet:
    generator = np.random.default_rng(0)
    return DistilledSet(
        labels=np.asarray([0, 1], np.int32),
        label_names=("negative", "positive"),
        manifest=dict(MANIFEST),
        synthetic=Synthetic(
            inputs=generator.normal(size=(2, 3, 4)).astype(np.float32),
            labels=generator.normal(size=(2, 2)).astype(np.float32),
            attention=generator.normal(size=(2, 2, 2, 1, 3)).astype(np.float32),
            raw_lr=np.asarray([[-4.5, -0.0]], np.float32),
        ),
        soft_labels=np.asarray([[0.9, 0.1], [0.2, 0.8]], np.float32),
        support={"segments": np.asarray([1, 2], np.int32)},
    )


@pytest.fixture
def text() -> DistilledSet:
    return DistilledSet(
        labels=np.asarray([1, 0, 1], np.int32),
        label_names=("negative", "positive"),
        manifest=dict(MANIFEST),
        synthetic=Synthetic(raw_lr=np.asarray([-4.0], np.float32)),
        texts=[('a "quoted", text', "b"), ("line\nbreak | pipe", ""), ("ünïcode 你好", "d")],
        text_columns=("premise", "hypothesis"),
        soft_labels=np.asarray([[0.1, 0.9], [0.7, 0.3], [1 / 3, 2 / 3]], np.float32),
    )


def _same(left: DistilledSet, right: DistilledSet) -> None:
    for name in ("texts", "text_columns", "label_names"):
        assert getattr(left, name) == getattr(right, name)
    pairs = [(left.labels, right.labels), (left.soft_labels, right.soft_labels)]
    for name in ("inputs", "labels", "attention", "raw_lr"):
        pairs.append((getattr(left.synthetic, name), getattr(right.synthetic, name)))
    left_support, right_support = left.support or {}, right.support or {}
    assert left_support.keys() == right_support.keys()
    pairs += [(left_support[name], right_support[name]) for name in left_support]
    for a, b in pairs:
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@pytest.mark.parametrize("level", ["embedding", "text"])
def test_round_trip_is_bit_exact(tmp_path, level, request):
    saved = request.getfixturevalue(level)
    save_distilled(tmp_path / "set", saved)
    loaded = load_distilled(tmp_path / "set")
    assert loaded.level == level
    _same(saved, loaded)
    for name, value in MANIFEST.items():
        assert loaded.manifest[name] == value
    # What was loaded can be saved again, to the same bytes.
    save_distilled(tmp_path / "again", loaded)
    for name in os.listdir(tmp_path / "set"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "set" / name).read_bytes()


def test_jax_arrays_can_be_saved(tmp_path, embedding):
    on_device = Synthetic(inputs=jnp.arange(24, dtype=jnp.float32).reshape(2, 3, 4))
    save_distilled(tmp_path / "set", dataclasses.replace(embedding, synthetic=on_device))
    loaded = load_distilled(tmp_path / "set").synthetic
    assert loaded is not None and loaded.inputs is not None
    np.testing.assert_array_equal(np.ravel(loaded.inputs), np.arange(24, dtype=np.float32))


def test_manifest_describes_every_array_and_file(tmp_path, embedding):
    save_distilled(tmp_path / "set", embedding)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["schema"] == 1 and manifest["examples"] == 2
    assert manifest["arrays"]["synthetic.inputs"] == {"shape": [2, 3, 4], "dtype": "float32"}
    data = (tmp_path / "set" / "arrays.safetensors").read_bytes()
    assert manifest["files"] == {"arrays.safetensors": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    assert sorted(os.listdir(tmp_path / "set")) == ["README.md", "arrays.safetensors", "manifest.json"]


def test_size_in_bytes(embedding, text):
    assert embedding.size_in_bytes == 2 * 4 + (24 + 4 + 24 + 2) * 4 + 4 * 4 + 2 * 4
    assert text.size_in_bytes == sum(len(s.encode()) for pair in text.texts for s in pair) + 3 * 4 + 4 + 6 * 4


def test_text_level_loads_with_plain_datasets(tmp_path, text, monkeypatch):
    import datasets

    save_distilled(tmp_path / "set", text)
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["premise", "hypothesis", "label", "label_name", "soft_label"]
    assert list(zip(rows["premise"], rows["hypothesis"], strict=True)) == text.texts
    assert rows["label"] == [1, 0, 1] and rows["label_name"] == ["positive", "negative", "positive"]
    np.testing.assert_array_equal(np.asarray(rows["soft_label"], np.float32), text.soft_labels)


@pytest.mark.parametrize("level", ["embedding", "text"])
def test_data_card(tmp_path, level, request):
    import yaml

    save_distilled(tmp_path / "set", request.getfixturevalue(level))
    card = (tmp_path / "set" / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["pretty_name"] == "toy/reviews distilled by attention_label"
    assert ("configs" in header) == (level == "text")
    assert "test accuracy 84.25 ± 1.50 over 20 trainings" in card and "| distill time | 1 min 52 s |" in card
    assert ("datasets.load_dataset" in card) == (level == "text")


def test_expectations(tmp_path, embedding):
    save_distilled(tmp_path / "set", embedding)
    load_distilled(tmp_path / "set", expect={"level": "embedding", "config": {"method": {"steps": 1}}})
    with pytest.raises(UserError, match="config.method.steps is 1; expected 4$"):
        load_distilled(tmp_path / "set", expect={"config": {"method": {"steps": 4}}})
    with pytest.raises(UserError, match=r"arrays.synthetic.inputs.shape\[1\] is 3; expected 64$"):
        load_distilled(tmp_path / "set", expect={"arrays": {"synthetic.inputs": {"shape": [2, 64, 4]}}})


def _edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        manifest.pop(name) if value is None else manifest.update({name: value})
    path.write_text(json.dumps(manifest))


def _rehash(folder, name):
    data = (folder / name).read_bytes()
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(manifest))


def _edit_arrays(folder, edit):
    path = folder / "arrays.safetensors"
    arrays = load_file(path)
    edit(arrays)
    save_file(arrays, path)
    _rehash(folder, "arrays.safetensors")


def _garble(folder, name):
    (folder / name).write_bytes(b"not what it says")
    _rehash(folder, name)


def _append(folder):
    with open(folder / "arrays.safetensors", "ab") as file:
        file.write(b"\0")


WRONG = {
    "other schema": (lambda f: _edit_manifest(f, schema=9), "has schema 9; this version of jaxdistill reads 1"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest.json; expected a folder written by"),
    "corrupted JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is not valid JSON"),
    "manifest is a list": (lambda f: (f / "manifest.json").write_text("[]"), "has schema None"),
    "missing field": (lambda f: _edit_manifest(f, source_hash=None), "manifest.json lacks the field 'source_hash'"),
    "wrong type of field": (lambda f: _edit_manifest(f, arrays=[]), "arrays is a list in manifest.json; expected dict"),
    "unknown level": (lambda f: _edit_manifest(f, level="word"), "level is 'word'; expected 'text' or 'embedding'"),
    "missing file": (lambda f: (f / "arrays.safetensors").unlink(), "has no arrays.safetensors, which manifest.json"),
    "unlisted file": (lambda f: _edit_manifest(f, files={}), "manifest.json lists no arrays.safetensors"),
    "wrong hash": (_append, "arrays.safetensors has hash .* manifest.json says"),
    "corrupted safetensors": (lambda f: _garble(f, "arrays.safetensors"), "is not a safetensors file"),
    "missing array": (
        lambda f: _edit_arrays(f, lambda a: a.pop("synthetic.inputs")),
        "the array 'synthetic.inputs' is missing from arrays.safetensors",
    ),
    "wrong shape": (
        lambda f: _edit_arrays(f, lambda a: a.update({"synthetic.inputs": np.zeros((2, 5, 4), np.float32)})),
        r"array 'synthetic.inputs' is \{'shape': \[2, 5, 4\], .* manifest.json says \{'shape': \[2, 3, 4\]",
    ),
    "wrong type of array": (
        lambda f: _edit_arrays(f, lambda a: a.update({"synthetic.labels": np.zeros((2, 2), np.float64)})),
        "'dtype': 'float64'}; manifest.json says",
    ),
    "non-finite": (
        lambda f: _edit_arrays(f, lambda a: a["synthetic.inputs"].__setitem__((0, 0, 0), np.nan)),
        "synthetic.inputs holds 1 non-finite numbers of 24",
    ),
    "label outside": (
        lambda f: _edit_arrays(f, lambda a: a["labels"].__setitem__(0, 7)),
        "label 7 is outside the 2 classes negative, positive",
    ),
    "other number of examples": (lambda f: _edit_manifest(f, examples=3), "2 examples; manifest.json says 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path, embedding, case):
    spoil, message = WRONG[case]
    folder = tmp_path / "set"
    save_distilled(folder, embedding)
    spoil(folder)
    with pytest.raises(UserError, match=message) as raised:
        load_distilled(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def _edit_table(folder, edit):
    import pyarrow.parquet as pq

    path = folder / "data.parquet"
    pq.write_table(edit(pq.read_table(path)), path)
    _rehash(folder, "data.parquet")


WRONG_TABLE = {
    "corrupted parquet": (lambda f: _garble(f, "data.parquet"), "data.parquet is not a parquet file"),
    "missing column": (
        lambda f: _edit_table(f, lambda t: t.drop_columns("hypothesis")),
        "data.parquet lacks the column 'hypothesis'; it has premise, label, label_name, soft_label",
    ),
    "no rows": (lambda f: _edit_table(f, lambda t: t.slice(0, 0)), "data.parquet holds no rows"),
    "fewer rows": (lambda f: _edit_table(f, lambda t: t.slice(0, 2)), "2 examples; manifest.json says 3"),
}


@pytest.mark.parametrize("case", WRONG_TABLE)
def test_a_wrong_table_is_said_in_one_line(tmp_path, text, case):
    spoil, message = WRONG_TABLE[case]
    save_distilled(tmp_path / "set", text)
    spoil(tmp_path / "set")
    with pytest.raises(UserError, match=message) as raised:
        load_distilled(tmp_path / "set")
    assert "\n" not in str(raised.value)


def test_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file", "absent"):
        with pytest.raises(UserError, match=f"{name} is not a folder; expected one that holds manifest.json"):
            load_distilled(tmp_path / name)


def test_a_non_finite_set_is_not_saved(tmp_path, embedding):
    bad = dataclasses.replace(embedding, synthetic=Synthetic(inputs=np.full((2, 3, 4), np.inf, np.float32)))
    with pytest.raises(UserError, match="synthetic.inputs holds 24 non-finite numbers of 24"):
        save_distilled(tmp_path / "set", bad)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manifest": {"task": "x"}}, "lacks 'method'"),
        ({"texts": [("a",), ("b",)]}, r"a sample does not have the 0 texts"),
        ({"synthetic": None}, "neither texts nor input embeddings"),
        ({"soft_labels": np.zeros((2, 3), np.float32)}, r"soft_labels has shape \[2, 3\]; expected \[2, 2\]"),
        ({"labels": np.zeros(0, np.int32)}, r"labels is int32\[0\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, embedding, change, message):
    with pytest.raises(ValueError, match=message):
        save_distilled(tmp_path / "set", dataclasses.replace(embedding, **change))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_set(tmp_path, embedding, text, monkeypatch):
    save_distilled(tmp_path / "set", embedding)

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=f"^disk full while writing {tmp_path / 'set'}: "):
            save_distilled(tmp_path / "set", text)
    _same(embedding, load_distilled(tmp_path / "set"))
    assert os.listdir(tmp_path) == ["set"]
