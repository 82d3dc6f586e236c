from __future__ import annotations

import dataclasses

import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.protocols import CLEAN, PAPER, protocol_named, segments

STUDENTS_OF_THE_PAPER = {
    "ag_news": (7600, 30),
    "sst2": (872, 4),
    "mrpc": (408, 2),
    "qnli": (5463, 22),
    "qqp": (40430, 23),
    "mnli": (9815, 39),
}


@pytest.mark.parametrize(("rows", "students"), STUDENTS_OF_THE_PAPER.values(), ids=STUDENTS_OF_THE_PAPER)
def test_paper_uses_the_published_number_of_students(rows, students):
    cut = PAPER.selection_slices(rows)
    assert len(cut) == students
    assert [row for part in cut for row in range(rows)[part]] == list(range(rows))


def test_segments_are_whole_batches_but_for_the_last():
    assert [part.stop - part.start for part in segments(40430)] == [7 * 256] * 22 + [40430 - 22 * 7 * 256]
    assert segments(10, eval_batch=4) == [slice(0, 4), slice(4, 8), slice(8, 10)]


def test_clean_never_selects_on_test():
    assert protocol_named("clean") is CLEAN
    assert (CLEAN.select_on, CLEAN.select_by, CLEAN.std_ddof) == ("dev", "metric", 1)
    assert CLEAN.students_test == 100 and CLEAN.distillation_seeds == 3


@pytest.mark.parametrize(("rows", "students"), [(872, 20), (7, 7)])
def test_clean_gives_every_row_to_one_of_twenty_students(rows, students):
    cut = CLEAN.selection_slices(rows)
    assert len(cut) == students
    assert sorted(row for part in cut for row in range(rows)[part]) == list(range(rows))
    sizes = [len(range(rows)[part]) for part in cut]
    assert max(sizes) - min(sizes) <= 1


def test_paper_selects_by_loss_on_the_reported_split():
    assert protocol_named("paper") is PAPER
    assert (PAPER.select_on, PAPER.select_by, PAPER.std_ddof, PAPER.students_test) == ("test", "loss", 0, 100)


def test_unknown_protocol_names_the_known_ones():
    with pytest.raises(UserError, match="unknown protocol 'best': accepted are clean, paper"):
        protocol_named("best")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"students_test": 0}, "protocol 'clean': students_test is 0, must be at least 1"),
        ({"std_ddof": 2}, "protocol 'clean': std_ddof is 2, must be 0 or 1"),
    ],
)
def test_impossible_protocols_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CLEAN, **change)
