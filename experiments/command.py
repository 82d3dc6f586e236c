"""What the command lines share: flags of a configuration, errors in one line, a clean stop.

What needs JAX is imported late: `--help` and a mistaken flag are answered at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

from absl import app, flags, logging

from experiments.memory import return_memory_after_compiling
from jaxdistill.core.errors import UserError

CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Python file with get_config(), `:smoke` behind it for its smoke form. Change its fields with "
    "--config.<field>=<value>, as in --config.settings.outer.updates=500.",
)


class StopSignal:
    """True once SIGTERM or SIGINT came; a second signal ends the process at once."""

    def __init__(self):
        self.received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
        print("stopping after this step; the same signal again ends at once", file=sys.stderr, flush=True)

    def __call__(self) -> bool:
        return bool(self.received)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(arguments for absl, changes to the configuration by dotted path).

    Raises:
      UserError: a change without a value.
    """
    rest, changes = [], {}
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None and not argument.startswith("--"):
            changes[waiting], waiting = argument, None
        elif waiting is not None:
            break
        elif argument.startswith("--config."):
            path, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                changes[path] = value
            else:
                waiting = path
        else:
            rest.append(argument)
    if waiting is not None:
        raise UserError(f"--config.{waiting} has no value: give --config.{waiting}=<value>")
    return rest, changes


def run(
    main: Callable[[Any], int | None],
    kind: Literal["experiment", "language model", "classifier", "attribute", "inverter"] = "experiment",
) -> None:
    """Parse the flags, read the configuration, call `main` with it; mistakes end in one line and exit status 2.

    Args:
      main: what the command does.
      kind: of configuration that it takes.
    """
    try:
        arguments, changes = split_arguments(sys.argv)
    except UserError as error:
        _refuse(str(error))
    logging.set_verbosity(logging.WARNING)

    def guarded(argv: Sequence[str]) -> int:
        from jaxdistill.methods.base import Stopped
        from jaxdistill.parallel.distributed import initialize
        from jaxdistill.pipeline.attribute_config import AttributeConfig
        from jaxdistill.pipeline.classifier_config import ClassifierConfig
        from jaxdistill.pipeline.config import ExperimentConfig
        from jaxdistill.pipeline.inverter_config import InverterConfig
        from jaxdistill.pipeline.language_config import LanguageModelConfig
        from jaxdistill.pipeline.overrides import load_config, override

        kinds: dict[str, Any] = {
            "experiment": ExperimentConfig,
            "language model": LanguageModelConfig,
            "classifier": ClassifierConfig,
            "attribute": AttributeConfig,
            "inverter": InverterConfig,
        }
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}: everything is given by flags, see --help")
            if CONFIG.value is None:
                raise UserError("--config is missing: give a file of experiments/configs")
            config = override(load_config(CONFIG.value, kinds[kind]), changes)
            initialize()
            return_memory_after_compiling()
            return main(config) or 0
        except UserError as error:
            _refuse(str(error))
        except Stopped as stopped:
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
            return 130

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            _refuse(" ".join(str(error).split()))

    app.run(guarded, argv=arguments, flags_parser=parse)


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
