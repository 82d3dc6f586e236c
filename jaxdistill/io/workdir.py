"""The run folder: one configuration, and everything that comes of it.

config.json      the whole configuration, and the hash of the data
metrics.jsonl    one line a logged step
tensorboard/     the same as events
checkpoints/     state of the outer loop, by orbax
distilled/       the distilled set; or, of the training of a model:
tokenizer.json   the tokenizer that a language model learned
model/           the model as a Hugging Face folder
samples.txt      texts that a language model wrote
scores.json      what each learner got on test, as it comes
seconds.json     how long they took
report.html      plots and tables
result.json      the numbers
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdistill.core.errors import UserError
from jaxdistill.io import atomic
from jaxdistill.io.plain import dumps, first_difference, plain


@dataclasses.dataclass(frozen=True)
class Workdir:
    """Paths of a run folder. Make one with `open_workdir`; constructing it touches nothing.

    Attributes:
      path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def distilled(self) -> Path:
        return self.path / "distilled"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def samples(self) -> Path:
        return self.path / "samples.txt"

    def baseline(self, name: str) -> Path:
        """The set that a baseline was trained on."""
        return self.path / "baselines" / name

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def read_config(self) -> dict[str, Any]:
        """The configuration as written.

        Raises:
          UserError: there is none, or it is no JSON object.
        """
        return _read_object(self.config)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` atomically. Raises `UserError` when the disk is full."""
        atomic.write_text(self.result, dumps(result) + "\n")

    def remove_if_empty(self) -> None:
        """Remove the folder when it holds nothing but its configuration: a run that was refused leaves nothing."""
        if [child.name for child in self.path.iterdir()] == [self.config.name]:
            atomic.remove_folder(self.path)

    def read_result(self) -> dict[str, Any] | None:
        """The numbers of the finished run, or `None` when it has not finished.

        Raises:
          UserError: the file is no JSON object.
        """
        return _read_object(self.result) if self.result.exists() else None


def open_workdir(path: str | os.PathLike, config: Any) -> Workdir:
    """Create a run folder, or take up the one that holds the very same configuration.

    Args:
      path: a folder that is absent, empty, or that holds a run of `config`.
      config: the configuration, a dataclass or mapping; leave out what does not change the result (`path` itself).

    Raises:
      UserError: `path` holds another run (the first differing field and both values are named), holds files of
        something else, is no folder, or cannot be written.
    """
    workdir = Workdir(Path(path))
    wanted = plain(config)
    new = not workdir.path.exists()
    with atomic.disk_errors(workdir.path):
        workdir.path.mkdir(parents=True, exist_ok=True)
        present = sorted(child.name for child in workdir.path.iterdir() if not atomic.is_leftover(child))
    if workdir.config.name in present:
        difference = first_difference(workdir.read_config(), wanted)
        if difference is not None:
            field, there, here = difference
            raise UserError(
                f"workdir {path} holds another run: {field} is {json.dumps(there)} there and {json.dumps(here)} here; "
                "choose another workdir"
            )
        return workdir
    if present:
        raise UserError(
            f"workdir {path} holds {present[0]!r} but no config.json, so it is not a run folder; "
            "choose an empty or new folder"
        )
    try:
        atomic.write_text(workdir.config, dumps(wanted) + "\n")
    except UserError:
        if new:
            atomic.remove_folder(workdir.path)
        raise
    return workdir


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected a run folder with that file") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or choose another workdir") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}; expected an object")
    return value
