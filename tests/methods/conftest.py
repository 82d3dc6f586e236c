"""A toy problem with the tiny learner, shared by the tests of methods."""

from __future__ import annotations

import pytest

from jaxdistill.pipeline.config import LearnerConfig, TaskConfig
from jaxdistill.pipeline.prepare import prepare


@pytest.fixture(scope="session")
def toy_problem():
    return prepare(TaskConfig(name="toy/reviews", max_length=32), LearnerConfig(name="tiny"))
