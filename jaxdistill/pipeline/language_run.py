"""One command: train a language model, score it on dev, write the run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.generation.choice import Sampling
from jaxdistill.generation.scorers import Model
from jaxdistill.generation.texts import generate_texts
from jaxdistill.io import atomic
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.io.progress import duration
from jaxdistill.io.versions import versions
from jaxdistill.io.workdir import Workdir, open_workdir
from jaxdistill.methods.base import Run
from jaxdistill.methods.language_modelling import Trained, make_training, run_training
from jaxdistill.models.decoder_folder import save_decoder
from jaxdistill.parallel.distributed import is_main_process
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.language_config import LanguageModelConfig
from jaxdistill.pipeline.language_prepare import LanguageProblem, corpus_of, prepare_language_model
from jaxdistill.pipeline.prepare import mesh_for
from jaxdistill.pipeline.writers import run_writers

_SHOWN = ("loss", "perplexity", "lr", "dev_perplexity", "skipped")


def run_language_model(
    config: LanguageModelConfig,
    workdir: str | Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a language model in a run folder; the same call goes on where an interrupted one stopped.

    Args:
      config: see there.
      workdir: run folder, new or of this same configuration.
      stop: asked after every step.
      say: prints one line.

    Returns:
      what `result.json` holds; of several processes, only the main one writes it, and the others return nothing.

    Raises:
      UserError: see `io.workdir.open_workdir` and the parts.
      Stopped: `stop()` said so; a checkpoint is kept.
    """
    mesh = mesh_for(config.devices, config.model_devices)
    main = is_main_process()
    say = say if main else lambda line: None
    say(f"{config.model.name or 'a new language model'} on {', '.join(config.corpus.names)}, run folder {workdir}")
    corpus = corpus_of(config)
    identity = plain(config) | {"source_hash": corpus.source_hash}
    folder = open_workdir(workdir, identity) if main else Workdir(Path(workdir))
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    try:
        key = named_key(config.seed, "initialize")
        problem = prepare_language_model(config, corpus, key=key, kept=folder.tokenizer)
        for note in problem.notes:
            say(f"note: {note}")
        key = named_key(config.seed, "train")
        arguments = (config.training, problem.decoder, problem.make_params(mesh), problem.train)
        training = make_training(*arguments, key=key, mesh=mesh)
        del arguments  # the training has a copy of the parameters
        # What a user can get wrong has come before. A run taken up again reads with the tokenizer that it began with.
        if main and not config.model.name and not config.tokenizer.folder and not folder.tokenizer.exists():
            atomic.write_text(folder.tokenizer, problem.tokenizer.to_str())
        say(
            f"{_size(problem.shapes):,} parameters, {len(problem.train.ids):,} training tokens, {training.updates:,} "
            f"steps of which {training.batches.steps_per_epoch:,} are an epoch"
        )
        writers = functools.partial(run_writers, folder, label="step", total=training.updates, shown=_SHOWN)
        run = Run(
            make_writer=writers if main else None,
            checkpoints=Checkpoints(folder.checkpoints, config_hash=fingerprint(identity)),
            checkpoint_seconds=config.checkpoint_seconds,
            mesh=mesh,
            stop=stop,
            say=say,
            folder=folder.path,
        )
        trained = run_training(config.training, training, problem.dev, run=run)
    except UserError:
        if main:
            folder.remove_if_empty()
        raise
    if not main:
        return {}
    result = _result(config, problem, trained)
    _save_model(folder, problem, trained.params)
    atomic.write_text(folder.samples, write_samples(config, problem, trained.params))
    folder.write_result(result)
    say(f"{summary(result)}\nmodel: {folder.model}\nsamples: {folder.samples}")
    return result


def summary(result: dict[str, Any]) -> str:
    """The numbers of a result in a line or two."""
    return (
        f"perplexity on dev {result['dev_perplexity']:.2f} after step {result['step']} of {result['updates']} "
        f"({result['dev_texts']:,} texts of {', '.join(result['sources'])})\n"
        f"{result['tokens']:,} tokens in {duration(result['seconds'])}, {result['tokens_per_second']:,.0f} a second, "
        f"{result['peak_bytes'] / 2**30:.1f} GiB"
    )


def write_samples(config: LanguageModelConfig, problem: LanguageProblem, params: PyTree) -> str:
    """Texts of a trained model, from its start token and from the prompts of the configuration."""
    settings, positions = config.samples, problem.decoder.config.positions
    opening = [problem.start] if config.training.start_token else []
    prompts = [([problem.start], settings.count)]
    prompts += [([*opening, *problem.tokenizer.encode(prompt).ids], 1) for prompt in settings.prompts]
    scorer, params = Model(problem.decoder), jax.tree.map(jnp.asarray, params)
    lines: list[str] = []
    for number, (ids, count) in enumerate(prompts):
        if count == 0:
            continue
        sampling = Sampling(
            max_new=min(settings.max_new, positions - len(ids)),
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=(problem.end,),
        )
        key = jax.random.fold_in(named_key(config.seed, "samples"), number)
        found = generate_texts(scorer, params, problem.tokenizer, [ids], count, sampling, key)
        before = settings.prompts[number - 1] if number else ""
        ends = ["" if stopped else " [...]" for stopped in found.stopped]
        lines += [f"{before}{text}{end}" for text, end in zip(found.texts, ends, strict=True)]
    return "\n\n".join(lines) + "\n"


def _save_model(folder: Workdir, problem: LanguageProblem, params: PyTree) -> None:
    """The model as a Hugging Face folder; one that a killed run left before its result is made anew."""
    if folder.model.exists():
        atomic.remove_folder(folder.model)
    own: dict[str, Any] = {"tokenizer_from": problem.folder} if problem.folder else {"tokenizer": problem.tokenizer}
    save_decoder(folder.model, problem.decoder.config, params, **own)


def _result(config: LanguageModelConfig, problem: LanguageProblem, trained: Trained) -> dict[str, Any]:
    record = dict(trained.record)
    kept = record.pop("kept")
    return {
        "sources": list(config.corpus.names),
        "model": config.model.name,
        "parameters": _size(trained.params),
        "vocabulary": problem.decoder.config.vocabulary,
        "dev_texts": problem.dev_texts,
        "dev_tokens": int(problem.dev.lengths.sum()) - len(problem.dev),
        "dev_perplexity": kept["dev_perplexity"],
        "dev_loss": kept["dev_loss"],
        "step": kept["step"],
        **record,
        "notes": list(problem.notes),
        "versions": versions(),
    }


def _size(params: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
