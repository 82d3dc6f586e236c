"""Every real data folder loads, with the sizes and class counts it is published with."""

from __future__ import annotations

import numpy as np
import pytest

from jaxdistill.data.sources import load_task

# train and dev together, then test.
COUNTS = {
    "ag_news": ([10853, 10992, 10833, 12018], [1900] * 4),
    "sst2": ([29780, 37569], [428, 444]),
    "sst5": ([1092, 2218, 1624, 2322, 1288], [279, 633, 389, 510, 399]),
    "mrpc": ([1194, 2474], [129, 279]),
    "qqp": ([5000, 5000], [5000, 5000]),
    "trec": ([86, 1250, 1162, 1223, 835, 896], [9, 94, 138, 65, 81, 113]),
    "imdb": ([12500, 12500], [12500, 12500]),
    "rotten_tomatoes": ([4265, 4265], [533, 533]),
    "tweet_emotion": ([1400, 708, 294, 855], [558, 358, 123, 382]),
}
CUT = {"qnli": [2702, 2761], "mnli": [3479, 3123, 3213]}


def cases(names):
    return [pytest.param(name, marks=pytest.mark.needs_data(name)) for name in names]


def load(name, data_dir, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(data_dir))
    data = load_task(name)
    classes = data.task.num_classes
    assert not set(data.train.texts) & set(data.dev.texts)
    train, dev, test = (split.class_counts(classes) for split in (data.train, data.dev, data.test))
    assert len(data.dev) <= 5000
    fraction = len(data.dev) / (len(data.train) + len(data.dev))
    # The class of a text that occurs under several labels is its lowest, hence the slack.
    np.testing.assert_allclose(dev, fraction * (train + dev), rtol=0.05, atol=2)
    return data, train + dev, test


@pytest.mark.parametrize("name", cases(COUNTS))
def test_published_splits(name, data_dir, monkeypatch):
    _, train, test = load(name, data_dir, monkeypatch)
    assert (train.tolist(), test.tolist()) == COUNTS[name]


@pytest.mark.parametrize("name", cases(CUT))
def test_split_of_the_test_role_is_cut_where_train_is_absent(name, data_dir, monkeypatch):
    data, train, test = load(name, data_dir, monkeypatch)
    assert (train + test).tolist() == CUT[name]
    assert 0.19 < len(data.test) / sum(CUT[name]) <= 0.2
    assert "there is no split 'train'" in data.notes[0]


@pytest.mark.needs_data("trec")
def test_fine_questions_keep_every_class_in_dev(data_dir, monkeypatch):
    monkeypatch.setenv("JAXDISTILL_DATA", str(data_dir))
    data = load_task("trec_fine")
    assert len(data.train) + len(data.dev) == 5452
    assert data.dev.class_counts(50).min() == 1
    assert data.train.class_counts(50).min() == 3
