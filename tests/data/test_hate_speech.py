"""The filter of the toxic corpus, on harmless rows."""

from __future__ import annotations

import pytest
from helpers import refused

from jaxdistill.data import hate_speech
from jaxdistill.data.hate_speech import TARGETS, read_hate_speech

ROWS = """,text,label,type,target,split
1,first,hate,animosity,wom,train
2,"second, with a comma",hate,derogation,mus.wom,train
3,two targets,hate,derogation,"bla, wom",train
4,another two,hate,derogation,"gay.man, jew",dev
5,harmless,nothate,none,wom,train
6,left out on purpose,hate,animosity,dis,train
7,none named,hate,none,none,test
8,third,hate,animosity,asi.chin,dev
9,fourth,hate,animosity,gay,test
10,fifth,hate,animosity,for,test
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data.csv").write_text(ROWS)
    return tmp_path / "data.csv"


def test_thirty_four_targets():
    assert len(TARGETS) == len(set(TARGETS)) == 34
    assert not any("dis" in target for target in TARGETS)


def test_rows_with_one_target(path):
    found = read_hate_speech(path)
    assert found.train == ("first", "second, with a comma")
    assert found.dev == ("third",) and found.test == ("fourth", "fifth")
    assert found.notes == ("data.csv: 2 training texts pass the filter, 20,165 to 20,168 in the published work",)


def test_the_published_number_needs_no_note(path, monkeypatch):
    monkeypatch.setattr(hate_speech, "PUBLISHED_TRAIN", (2, 3))
    assert read_hate_speech(path).notes == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("asi.chin,dev", "asi.chin,validation", "row 8: split 'validation' is unknown; accepted are train, dev, test"),
        ("target", "aim", "no column 'target'"),
        (",train", ",dev", "no training row with label 'hate' and one of the 34 targets"),
    ],
)
def test_refuses(path, old, new, message):
    path.write_text(path.read_text().replace(old, new))
    with refused(message):
        read_hate_speech(path)
