"""Where model folders are: on disk, in a package, on the Hugging Face hub."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from jaxdistill.core.errors import UserError
from jaxdistill.models.minilm import minilm_folder
from jaxdistill.models.tokenizer import FILES as TOKENIZER_FILES

PROBE_SECONDS = 5.0
SAFE_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin*",)


def find_folder(source: str) -> Path:
    """The checkpoint folder that a name stands for; downloads it when it is a hub id that is not in the cache.

    Folders are looked for here and then under `$JAXDISTILL_WEIGHTS`.

    Raises:
      UserError: there is none.
    """
    if source == "minilm":
        return minilm_folder()
    kept = os.environ.get("JAXDISTILL_WEIGHTS")
    for folder in (Path(source).expanduser(), *([Path(kept) / source] if kept and source else [])):
        if folder.is_dir():
            return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise UserError(f"model {source!r}: no such folder; expected minilm, tiny, a folder or a hub id")
    return download(source)


def download(name: str) -> Path:
    """The folder of a hub model: config, tokenizer and weights (safetensors where there are, else the .bin).

    The hub is asked once, briefly, what the model holds; where it does not answer, or `HF_HUB_OFFLINE` is set, only
    the local cache is looked at.

    Args:
      name: hub id, such as "bert-base-uncased" or "google/bert_uncased_L-4_H-256_A-4".

    Raises:
      UserError: neither the hub (within seconds) nor the cache has the model.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    small = ["config.json", *TOKENIZER_FILES]
    reason = "HF_HUB_OFFLINE is set"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() not in {"1", "ON", "YES", "TRUE"}:
        # The client raises errors of a dozen unrelated types; all of them mean "not to be had".
        try:
            info = huggingface_hub.HfApi().model_info(name, timeout=PROBE_SECONDS)
            files = [sibling.rfilename for sibling in info.siblings or []]
            safe = any(file.startswith("model") and file.endswith(".safetensors") for file in files)
            weights = SAFE_WEIGHTS if safe else PICKLED_WEIGHTS
            # By the branch, not by its commit: the cache then remembers what the branch stood for, offline too.
            return Path(
                huggingface_hub.snapshot_download(name, allow_patterns=[*small, *weights], etag_timeout=PROBE_SECONDS)
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
    for weights in (SAFE_WEIGHTS, PICKLED_WEIGHTS):
        with contextlib.suppress(LocalEntryNotFoundError, ValueError):
            folder = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=[*small, *weights], local_files_only=True)
            )
            if any(any(folder.glob(pattern)) for pattern in weights):
                return folder
    raise UserError(
        f"model {name!r}: neither a folder nor in the local cache, and the hub gives none ({reason}); "
        "expected minilm, tiny, a folder or a hub id"
    )
