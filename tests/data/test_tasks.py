from __future__ import annotations

import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.data.tasks import TASKS, task_named

CLASSES = {
    "ag_news": 4,
    "sst2": 2,
    "sst5": 5,
    "mrpc": 2,
    "qnli": 2,
    "qqp": 2,
    "mnli": 3,
    "trec": 6,
    "trec_fine": 50,
    "imdb": 2,
    "rotten_tomatoes": 2,
    "tweet_emotion": 4,
    "toxigen": 2,
    "moji": 2,
    "bios": 28,
    "toy/reviews": 2,
    "toy/bias": 2,
}


def test_table_holds_the_tasks_with_their_classes():
    assert {name: task.num_classes for name, task in TASKS.items()} == CLASSES
    assert all(len(set(task.label_names)) == task.num_classes for task in TASKS.values())


def test_pair_tasks_and_metrics():
    assert {name for name, task in TASKS.items() if len(task.text_columns) == 2} == {"mrpc", "qnli", "qqp", "mnli"}
    assert {name for name, task in TASKS.items() if task.metric == "accuracy_f1_mean"} == {"mrpc", "qqp"}


def test_reported_split_is_the_first_test_role():
    roles = {name: task.test_splits[0] for name, task in TASKS.items()}
    assert {name for name, role in roles.items() if role == "validation"} == {"sst2", "mrpc", "qnli", "qqp"}
    assert roles["mnli"] == "validation_matched"
    assert roles["ag_news"] == roles["trec"] == "test"


def test_unknown_task_names_close_matches_and_all():
    with pytest.raises(UserError) as caught:
        task_named("sst-2")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("unknown task 'sst-2': did you mean sst2 or sst5? known are ag_news, sst2, ")
