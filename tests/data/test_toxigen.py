"""The groups of ToxiGen and their categories."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import refused

from jaxdistill.data.readers import read_columns
from jaxdistill.data.toxigen import TOXIGEN_GROUPS, toxigen_category
from jaxdistill.evaluation.toxicity import IN_DISTRIBUTION


def test_groups_of_toxigen():
    assert toxigen_category("women") == "gender_lgbtq" and toxigen_category("physical_dis") == "disability"
    assert toxigen_category("black/african-american folks") == "race_nationalities"
    assert toxigen_category("muslim folks") == "religion"
    assert {name: len(groups) for name, groups in TOXIGEN_GROUPS.items()} == {
        "gender_lgbtq": 3, "race_nationalities": 16, "religion": 4, "disability": 4,
    }  # fmt: skip
    assert set(IN_DISTRIBUTION) == set(TOXIGEN_GROUPS) - {"disability"}
    with refused("no target_group 'Women': accepted are women, lgbtq"):
        toxigen_category("Women")


@pytest.mark.needs_data("toxigen")
def test_every_row_of_toxigen_has_a_category(data_dir):
    groups = read_columns(data_dir / "toxigen" / "train.parquet", ("target_group",))["target_group"]
    found = np.unique([toxigen_category(group) for group in groups], return_counts=True)
    assert dict(zip(*found, strict=True)) == {
        "disability": 1399, "gender_lgbtq": 1431, "race_nationalities": 4758, "religion": 1372,
    }  # fmt: skip
