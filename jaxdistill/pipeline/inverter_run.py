"""One command: embed a corpus, train an inverter and its corrector, tell how well dev texts come back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import PyTree
from jaxdistill.data.corpus import Corpus, load_corpus
from jaxdistill.data.sources import load_task
from jaxdistill.data.tasks import task_named
from jaxdistill.evaluation.diversity import ngrams
from jaxdistill.evaluation.embed_space import Embedder
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.round_trip import random_cosine, round_trip
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.plain import fingerprint, plain
from jaxdistill.io.progress import duration
from jaxdistill.io.versions import versions
from jaxdistill.io.workdir import Workdir, open_workdir
from jaxdistill.methods.base import Run
from jaxdistill.methods.inversion import END, PADDING, START, Correcting, Models, Tokens, choose_tokens, invert
from jaxdistill.methods.inverter_folder import TrainedInverter, save_inverter, text_hashes
from jaxdistill.methods.inverter_training import Pairs, make_guesses, train_inverter
from jaxdistill.models.inverter import Inverter, init_corrector, init_inverter
from jaxdistill.pipeline.inverter_config import InverterConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.writers import run_writers

# Words in a row that a training text may not share with one of dev or test.
_SHARED = 13
_GUESS_ROWS = 256
_SHOWN = ("loss", "dev_loss", "skipped")


class _Prepared(NamedTuple):
    """What a training starts from."""

    embedder: Embedder
    tokens: Tokens
    inverter: Inverter
    train: Pairs
    dev: Pairs
    dev_texts: list[str]


def run_inverter(
    config: InverterConfig,
    workdir: str | Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train an inverter in a run folder; the same call goes on where an interrupted one stopped.

    `model/` of the folder is what `dallme` reads.

    Args:
      config: see there.
      workdir: run folder, new or of this same configuration.
      stop: asked after every step.
      say: prints one line.

    Returns:
      what `result.json` holds.

    Raises:
      UserError: see the parts.
      Stopped: `stop()` said so; a checkpoint is kept.
    """
    began = time.monotonic()
    corpus = load_corpus(config.corpus.sources)
    identity = plain(config) | {"source_hash": corpus.source_hash}
    say(f"an inverter of {config.space.model} on {', '.join(config.corpus.sources)}, run folder {workdir}")
    folder = open_workdir(workdir, identity)
    if (finished := folder.read_result()) is not None:
        say(f"{folder.path} holds the finished result of this very configuration:\n{summary(finished)}")
        return finished
    try:
        texts, notes = _clean(config, corpus)
        for note in notes:
            say(f"note: {note}")
        prepared = _prepare(config, texts, corpus, folder)
        make_run = functools.partial(_run, config, folder, fingerprint(identity), stop, say)
        params, corrector, records = _trained(config, prepared, make_run)
    except UserError:
        folder.remove_if_empty()
        raise
    trained = TrainedInverter(
        config.space,
        prepared.embedder.digest,
        prepared.tokens,
        config.length,
        prepared.inverter,
        params,
        corrector,
        {},
        text_hashes(texts),
    )
    models = trained.models(prepared.embedder)
    facts: dict[str, Any] = {
        "round_trip": {
            "first_guess": _round_trip(config, prepared, models, Correcting(steps=0, rows=config.correcting.rows)),
            "corrected": _round_trip(config, prepared, models, config.correcting) if corrector is not None else None,
        },
        "random_cosine": random_cosine(prepared.dev.embeddings),
        "sources": list(config.corpus.sources),
        "source_hash": corpus.source_hash,
        "real_examples": len(prepared.train.lengths),
        "correcting": plain(config.correcting),
    }
    save_inverter(folder.model, dataclasses.replace(trained, facts=facts))
    result = facts | {
        "space": plain(config.space),
        "digest": trained.digest,
        "parameters": sum(x.size for x in jax.tree.leaves((params, corrector))),
        "vocabulary": len(prepared.tokens.embedder_ids),
        **records,
        "seconds": time.monotonic() - began,
        "notes": notes,
        "versions": versions(),
    }
    folder.write_result(result)
    say(f"{summary(result)}\nmodel: {folder.model}")
    return result


def summary(result: dict[str, Any]) -> str:
    """The numbers of a result in a line or two."""
    lines = [
        f"{name.replace('_', ' ')}: cosine {found['median_cosine']:.3f} (5 % below {found['low_cosine']:.3f}), "
        f"token F1 {found['token_f1']:.3f}, BLEU {found['bleu']:.1f}, exact {100 * found['exact']:.1f} %"
        for name, found in result["round_trip"].items()
        if found is not None
    ]
    lines.append(
        f"random pairs of texts stay below {result['random_cosine']:.3f}; {result['real_examples']:,} texts, "
        f"{result['parameters']:,} parameters, {duration(result['seconds'])}"
    )
    return "\n".join(lines)


def _clean(config: InverterConfig, corpus: Corpus) -> tuple[list[str], list[str]]:
    """Training texts that give nothing of dev or test away, and what a user should know."""
    held_out = set(corpus.dev)
    for source in config.corpus.sources:
        if name := _task_of(source):
            data = load_task(name)
            held_out |= {text for split in (data.dev, data.test) for row in split.texts for text in row}
    known = {tuple(words_of(text)) for text in held_out}
    runs = {run for words in known for run in ngrams(list(words), _SHARED)}
    kept = []
    for text in corpus.train:
        words = words_of(text)
        if tuple(words) not in known and not runs.intersection(ngrams(words, _SHARED)):
            kept.append(text)
    notes = list(corpus.notes)
    if left_out := len(corpus.train) - len(kept):
        notes.append(f"{left_out:,} training texts stand in dev or test, or share {_SHARED} words in a row: left out")
    if config.texts and config.texts < len(kept):
        order = np.random.default_rng(config.seed).permutation(len(kept))[: config.texts]
        kept = [kept[i] for i in np.sort(order)]
        notes.append(f"{config.texts:,} of the training texts are taken")
    if not kept:
        raise UserError("inverter: no training text is left that is in neither dev nor test")
    return kept, notes


def _task_of(source: str) -> str:
    """The task that a source of a corpus is a part of; empty for files."""
    whole = source.partition("[")[0]
    for name in (whole, whole.partition("/")[0]):
        with contextlib.suppress(UserError):
            return task_named(name).name
    return ""


def _prepare(config: InverterConfig, texts: list[str], corpus: Corpus, folder: Workdir) -> _Prepared:
    embedder = Embedder(config.space)
    special = len(embedder.prefix) + len(embedder.suffix)
    if config.length + special > config.space.row_length:
        raise UserError(
            f"length is {config.length}: with {special} special tokens that is more than the {config.space.row_length} "
            "that the embedder reads"
        )
    tokenizer = embedder.tokenizer
    added = tokenizer.get_added_tokens_decoder()
    tokens = choose_tokens(
        tokenizer,
        texts,
        tuple(token for token, found in added.items() if found.special),
        _unknown(embedder),
        config.vocabulary,
    )
    dev = [text for text in corpus.dev if text][: config.corpus.dev_texts or None]

    def pairs(name: str, own: list[str]) -> tuple[Pairs, list[str]]:
        ids, lengths = tokens.encode(tokenizer, own, config.length)
        # A text of nothing but special tokens has none of its own.
        kept = np.flatnonzero(lengths)
        own = [own[i] for i in kept]
        label = f"{name} texts embedded: batches"
        return Pairs(embedder.texts(own, cache=folder.path / "embeddings", label=label), ids[kept], lengths[kept]), own

    train, _ = pairs("training", texts)
    held_out, dev = pairs("dev", dev)
    sizes = config.t5(len(tokens.embedder_ids), start=START, end=END, padding=PADDING)
    inverter = Inverter(sizes, embedder.width, config.soft_tokens)
    return _Prepared(embedder, tokens, inverter, train, held_out, dev)


def _unknown(embedder: Embedder) -> int:
    for name in ("[UNK]", "<unk>"):
        if (token := embedder.tokenizer.token_to_id(name)) is not None:
            return token
    return 0


def _run(
    config: InverterConfig,
    folder: Workdir,
    identity: str,
    stop: Callable[[], bool],
    say: Callable[[str], None],
    name: str,
    updates: int,
) -> Run:
    """Of one of the trainings, which keep their checkpoints apart."""
    return Run(
        make_writer=functools.partial(run_writers, folder, label=f"{name}: step", total=updates, shown=_SHOWN),
        checkpoints=Checkpoints(folder.checkpoints / name.replace(" ", "_"), config_hash=identity),
        checkpoint_seconds=config.checkpoint_seconds,
        stop=stop,
        say=say,
        folder=folder.path,
    )


def _trained(
    config: InverterConfig, prepared: _Prepared, make_run: Callable[[str, int], Run]
) -> tuple[PyTree, PyTree, dict[str, Any]]:
    """(parameters of the inverter, of the corrector or `None`, dev losses and seconds of the trainings)."""
    settings, inverter = config.training, prepared.inverter
    key = functools.partial(named_key, config.seed)
    train, dev = prepared.train, prepared.dev
    records: dict[str, Any] = {}

    def fit(name: str, module: Inverter, start: PyTree, updates: int, train: Pairs, dev: Pairs) -> PyTree:
        run = make_run(name, updates)
        fitted = train_inverter(settings, module, start, train, dev, updates=updates, key=key(name), run=run)
        records[f"{name} dev_loss".replace(" ", "_")] = -fitted.score
        records[f"{name} seconds".replace(" ", "_")] = fitted.seconds
        return fitted.learned

    params = fit("inverter", inverter, init_inverter(inverter, key("initialize")), settings.updates, train, dev)
    if not settings.corrector_updates:
        return params, None, records
    module = inverter.clone(corrects=True)
    learned = init_corrector(module, params, key("initialize corrector"))
    halves = (settings.corrector_updates // 2, settings.corrector_updates - settings.corrector_updates // 2)
    trained = TrainedInverter(
        config.space,
        prepared.embedder.digest,
        prepared.tokens,
        config.length,
        inverter,
        params,
        learned,
        {},
        text_hashes(()),  # it serves for guesses alone
    )
    base = trained.models(prepared.embedder)
    for number, updates in enumerate(halves, start=1):
        models = dataclasses.replace(base, corrector_params=learned)
        train, dev = (
            part._replace(guesses=make_guesses(models, part, _GUESS_ROWS, label=f"{name} texts guessed"))
            for name, part in (("training", train), ("dev", dev))
        )
        learned = fit(f"corrector {number}", module, learned, updates, train, dev)
    return params, learned, records


def _round_trip(
    config: InverterConfig, prepared: _Prepared, models: Models, correcting: Correcting
) -> dict[str, float]:
    count = min(config.round_trip, len(prepared.dev_texts))
    targets = prepared.dev.embeddings[:count]
    found = invert(models, targets, correcting, label="dev texts inverted")
    texts = prepared.tokens.decode(prepared.embedder.tokenizer, found.token_ids, found.lengths)
    return round_trip(prepared.dev_texts[:count], texts, prepared.embedder.cosines(texts, targets))
