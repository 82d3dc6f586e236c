"""Columns from the Hugging Face hub."""

from __future__ import annotations

import os
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.data.readers import Columns, check_columns
from jaxdistill.data.tasks import Task

PROBE_SECONDS = 5.0


def read_hub(task: Task) -> dict[str, Columns]:
    """All splits of a task, as columns, from the hub or its local cache.

    One short request asks first whether the hub answers, because `datasets` retries for a minute where it does not.
    With `HF_HUB_OFFLINE=1` nothing is asked and the cache alone is read.

    Raises:
      UserError: the hub does not answer in seconds, does not have the data set, or lacks a column.
    """
    assert task.hub_id is not None
    name = task.hub_id + (f" ({task.hub_config})" if task.hub_config else "")
    # The client raises errors of a dozen unrelated types; here, at the border, all mean "not to be had".
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() not in {"1", "ON", "YES", "TRUE"}:
            import huggingface_hub

            huggingface_hub.HfApi().dataset_info(task.hub_id, timeout=PROBE_SECONDS)
        import datasets

        loaded: Any = datasets.load_dataset(task.hub_id, task.hub_config, revision=task.hub_revision)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise UserError(f"hub data set {name} cannot be loaded: {type(error).__name__}: {reason}") from error
    wanted = task.columns
    splits: dict[str, Columns] = {}
    for split, table in loaded.items():
        check_columns(f"hub data set {name}, split {split}", table.column_names, wanted)
        splits[split] = table.select_columns(list(wanted)).to_dict()
    return splits
