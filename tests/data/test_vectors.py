"""Published vector formats from tiny files of the same layout, a user's own arrays, and the line of each bad file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data import vectors as module
from jaxdistill.data.sources import load_task
from jaxdistill.data.vectors import MOJI_FILES, moji_counts

WIDTH = 5


def rows(n, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(dtype)


def write_moji(folder, dtype=np.float32, sizes=(80, 7, 6)):
    """Row i of a file holds i in its first number and the number of its cell in its second."""
    for split, size in zip(("train", "dev", "test"), sizes, strict=True):
        (folder / split).mkdir(parents=True)
        for cell, name in enumerate(MOJI_FILES):
            array = np.zeros((size, WIDTH), dtype)
            array[:, 0], array[:, 1] = np.arange(size), cell
            np.save(folder / split / f"{name}.npy", array)
    return folder


@pytest.fixture
def small_moji(monkeypatch):
    monkeypatch.setattr(module, "MOJI_ROWS", 200)


def cells(split):
    return {
        pair: int(np.sum((split.labels == pair[0]) & (split.attributes["group"] == pair[1])))
        for pair in MOJI_FILES.values()
    }


def test_published_counts_of_moji():
    assert moji_counts() == {"pos_pos": 40_000, "pos_neg": 9_999, "neg_pos": 9_999, "neg_neg": 40_000}
    assert set(moji_counts(ratio=0.5).values()) == {25_000}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_moji(tmp_path, small_moji, dtype):
    data = load_task("moji", data_dir=write_moji(tmp_path, dtype))
    assert cells(data.train) == {(1, 1): 80, (1, 0): 19, (0, 1): 19, (0, 0): 80}
    assert set(cells(data.dev).values()) == {7} and set(cells(data.test).values()) == {6}
    assert data.vectors.shape == (198 + 28 + 24, WIDTH) and data.vectors.dtype == dtype
    # The first rows of each file, cell by cell; then dev and test.
    assert data.vectors[:198, 0].tolist() == [*range(80), *range(19), *range(19), *range(80)]
    assert data.vectors[198:, 1].tolist() == np.repeat([0, 1, 2, 3], 7).tolist() + np.repeat([0, 1, 2, 3], 6).tolist()
    assert data.train.texts[:2] == [("train/0",), ("train/1",)] and data.test.texts[-1] == ("test/23",)
    assert data.task.label_names == ("sad", "happy") and data.task.group_names == ("SAE", "AAE")


def test_vectors_and_groups_enter_the_hash(tmp_path, small_moji):
    folder = write_moji(tmp_path)
    before = load_task("moji", data_dir=folder).source_hash
    assert load_task("moji", data_dir=folder).source_hash == before
    path = folder / "test" / "pos_neg.npy"
    array = np.load(path)
    array[2, 3] += 1
    np.save(path, array)
    assert load_task("moji", data_dir=folder).source_hash != before


def moji_error(folder, message):
    with pytest.raises(UserError) as caught:
        load_task("moji", data_dir=folder)
    assert str(caught.value) == message.replace("{d}", str(folder))


def test_bad_moji_files_give_one_line(tmp_path, small_moji):
    moji_error(tmp_path / "no", "data folder '{d}' does not exist; task 'moji' needs one")
    folder = write_moji(tmp_path / "short", sizes=(79, 7, 6))
    moji_error(folder, "{d}/train/pos_pos.npy: 79 rows; 80 are needed")

    folder = write_moji(tmp_path / "data")
    path = folder / "dev" / "neg_pos.npy"
    good = np.load(path)
    path.unlink()
    moji_error(folder, "{d}/dev/neg_pos.npy: no such file")
    np.save(path, good[:, :3])
    moji_error(folder, "{d}/dev/neg_pos.npy: vectors of 3 numbers, the files before have 5")
    bad = good.copy()
    bad[1, 0], bad[4, 2] = np.nan, np.inf
    np.save(path, bad)
    moji_error(folder, "{d}/dev/neg_pos.npy: 2 of 7 rows hold NaN or infinity")
    np.save(path, good.astype(np.int32))
    moji_error(
        folder, "{d}/dev/neg_pos.npy: an array of shape (7, 5) of int32; vectors are a matrix of float16 or float32"
    )
    advice = (
        "a pickle, which is refused; save it as a plain array of numbers, numpy.save(path, array.astype('float32'))"
    )
    np.save(path, np.array([{}, 1], object), allow_pickle=True)
    moji_error(folder, "{d}/dev/neg_pos.npy: " + advice)
    path.write_bytes(b"\x80\x04N.")
    moji_error(folder, "{d}/dev/neg_pos.npy: " + advice)
    np.save(path, good)
    for name in MOJI_FILES:
        np.save(folder / "test" / f"{name}.npy", good[:, :4])
    moji_error(
        folder,
        "task 'moji': vectors must have one width, there are 5 in {d}/train, 5 in {d}/dev, 4 in {d}/test",
    )


def write_bios(folder, kind="csv"):
    """Rows of every third profession, men first."""
    folder.mkdir(exist_ok=True)
    for number, (split, size) in enumerate((("train", 12), ("dev", 6), ("test", 6))):
        np.save(folder / f"{split}_avg.npy", rows(size, number))
        professions = [("nurse", "surgeon", "dj")[i % 3] for i in range(size)]
        genders = ["mf"[i >= size // 2] for i in range(size)]
        if kind == "csv":
            lines = [f"{i},{g},{p}" for i, (g, p) in enumerate(zip(genders, professions, strict=True))]
            (folder / f"{split}.csv").write_text("\n".join(["n,g,p", *lines]) + "\n")
        else:
            np.save(folder / f"{split}_p.npy", np.array(professions))
            np.save(folder / f"{split}_g.npy", np.array([int(g == "f") for g in genders]))
    return folder


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_bios(tmp_path, kind):
    data = load_task("bios", data_dir=write_bios(tmp_path, kind))
    assert len(data.task.label_names) == 28 and data.task.label_names[13] == "nurse"
    assert (len(data.train), len(data.dev), len(data.test)) == (12, 6, 6)
    assert data.train.labels[:3].tolist() == [13, 25, 8]
    assert data.train.attributes["group"].tolist() == [0] * 6 + [1] * 6
    np.testing.assert_array_equal(data.vectors, np.concatenate([rows(12, 0), rows(6, 1), rows(6, 2)]))
    assert "vectors are those of <split>_avg.npy" in data.notes


def test_bad_bios_files_give_one_line(tmp_path):
    def fails(message):
        with pytest.raises(UserError) as caught:
            load_task("bios", data_dir=folder)
        assert str(caught.value) == message.replace("{d}", str(folder))

    folder = write_bios(tmp_path / "data")
    (folder / "dev.csv").unlink()
    fails("{d}: no dev.csv (or .parquet) with columns 'p' and 'g'")
    (folder / "dev.pickle").write_bytes(b"\x80\x04N.")
    fails(
        "{d}: no dev.csv (or .parquet) with columns 'p' and 'g'; dev.pickle is a pickle, which is refused: where you "
        "trust it, run once pandas.DataFrame(pandas.read_pickle('dev.pickle'))[['p', 'g']]"
        ".to_csv('dev.csv', index=False)"
    )
    (folder / "dev.csv").write_text("p,g\nnurse,m\n")
    fails("{d}/dev_avg.npy: 6 vectors, but 1 values of 'p' for them")
    (folder / "dev.csv").write_text("p,g\n" + "nurse,x\n" * 6)
    fails("{d}/dev: row 1: group 'x' is outside the groups 0..1 (m, f)")
    (folder / "train_avg.npy").unlink()
    fails("{d}: neither train_avg.npy nor train_cls.npy; give the vectors of each split as .npy")


def write_own(folder, splits=("train", "test"), suffix=".npz", **more):
    folder.mkdir(exist_ok=True)
    for number, split in enumerate(splits):
        arrays = {"vectors": rows(40, number), "labels": np.array(["no", "yes"] * 20)} | {
            name: np.array(values) for name, values in more.items()
        }
        if suffix == ".npz":
            np.savez(folder / f"{split}.npz", **arrays)
        else:
            lists = pa.array(list(arrays.pop("vectors")), pa.list_(pa.float32()))
            pq.write_table(pa.table({"vectors": lists, **arrays}), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_own_vectors(tmp_path, suffix):
    groups = [10, 9, 9, 10] * 10
    data = load_task("mine", data_dir=write_own(tmp_path, suffix=suffix, group=groups))
    assert data.task.label_names == ("no", "yes") and data.task.group_names == ("9", "10")
    assert (len(data.train), len(data.dev), len(data.test)) == (36, 4, 40)
    assert data.dev.class_counts(2).tolist() == [2, 2] and data.dev.attributes["group"].sum() == 2
    # Each row's vector is that of its name, also where dev was cut out of train.
    source = {"train": rows(40, 0), "test": rows(40, 1)}
    for split, start in ((data.train, 0), (data.dev, 36), (data.test, 40)):
        for i, (name,) in enumerate(split.texts):
            role, row = name.split("/")
            np.testing.assert_array_equal(data.vectors[start + i], source[role][int(row)])
            assert split.labels[i] == int(row) % 2


def test_own_dev_split_and_arrays_of_other_names(tmp_path):
    folder = write_own(tmp_path, ("train", "dev", "test"), kind=[0, 1, 2, 3] * 10)
    data = load_task("mine", data_dir=folder, label_column="kind", group_column="labels")
    assert data.task.label_names == ("0", "1", "2", "3") and data.task.group_names == ("no", "yes")
    assert (len(data.train), len(data.dev), len(data.test)) == (40, 40, 40)
    assert load_task("mine", data_dir=folder).task.group_names == ()


def test_bad_own_vectors_give_one_line(tmp_path):
    def fails(message, **options):
        with pytest.raises(UserError) as caught:
            load_task("mine", data_dir=tmp_path, **options)
        assert str(caught.value) == message.replace("{d}", str(tmp_path))

    write_own(tmp_path, ("train",))
    fails("{d}: no split test or validation; give train.npz and test.npz (or .parquet)")
    write_own(tmp_path)
    fails("{d}/train.npz: no column 'sex'; there are 'vectors', 'labels'", group_column="sex")
    np.savez(tmp_path / "test.npz", vectors=rows(3), labels=np.array([0, 1]))
    fails("{d}/test.npz: 3 vectors, but 2 values of 'labels' for them")
    np.savez(tmp_path / "test.npz", vectors=rows(2), labels=np.array([{}, 1], object))
    fails("{d}/test.npz: it holds pickled objects, which are refused: save numbers or strings")
    (tmp_path / "test.npz").write_bytes(b"PK no")
    fails("{d}/test.npz: not a readable .npz file")
    (tmp_path / "test.npz").unlink()
    lists = pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"vectors": lists, "labels": ["no", "yes"]}), tmp_path / "test.parquet")
    fails("{d}/test.parquet: column 'vectors' holds nulls or lists of several lengths; one length is expected")


def test_tasks_of_vectors_take_no_columns(tmp_path):
    with pytest.raises(UserError, match="^task 'moji' is of vectors, whose files name all: it takes no columns"):
        load_task("moji", data_dir=tmp_path, text_columns=("text",))


def test_vectors_that_are_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_task("bios")
    assert str(caught.value) == (
        f"task 'bios' is nowhere to be found: no data_dir is given, $JAXDISTILL_DATA '{tmp_path}' has no folder "
        "'bios', and it is not on the hub; task 'toy/bias' needs no data"
    )
