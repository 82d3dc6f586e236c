"""DiLM: a language model of labelled texts, taught so that its texts train a learner as real ones do.

Source: A. Maekawa, S. Kosugi, K. Funakoshi, M. Okumura, "DiLM: Distilling Dataset into Language Model for Text-level
Dataset Distillation", Findings of NAACL 2024.

Stage 0 trains a language model on all real texts, each behind the token of its class. Stage 1 (`teach`) goes on by
gradient matching. Stage 2 draws many texts a class and keeps those that represent them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.core.errors import UserError
from jaxdistill.core.outer import OuterState, init_outer, make_update
from jaxdistill.core.types import Batch, Key, PyTree, Synthetic
from jaxdistill.data.encoding import Encoded
from jaxdistill.data.packing import pad
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.io import atomic
from jaxdistill.io.checkpoints import Checkpoints
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.io.metrics import ConsoleWriter
from jaxdistill.io.plain import dumps, fingerprint
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import Method, Problem, Run, manifest
from jaxdistill.methods.coreset import set_of
from jaxdistill.methods.dilm_learners import LearnerBank, check_head
from jaxdistill.methods.dilm_pool import Pool, load_pool, make_pool, save_pool
from jaxdistill.methods.dilm_sampling import Judge, draw_set, learner_reads
from jaxdistill.methods.dilm_settings import DiLM
from jaxdistill.methods.dilm_texts import Generator, new_generator, text_form
from jaxdistill.methods.language_modelling import train_language_model
from jaxdistill.methods.loop import Fitted, Wording, fit
from jaxdistill.models.decoder_folder import decoder_tokenizer, load_decoder, save_decoder
from jaxdistill.models.tokenizer import load_tokenizer
from jaxdistill.objectives.generator import GeneratorBatch, generator_matching
from jaxdistill.objectives.inner_problem import InnerSpec

_LENGTHS = 16
_WORDING = Wording(
    step="update",
    gradient="the generator's gradient",
    remedy="lower matching.lr",
    diverged="learners trained on the generator's texts diverged in all {count} selections: lower the recipe's lr",
)


class Made(NamedTuple):
    """A generator and what came of making it.

    Attributes:
      generator: trained.
      facts: for the manifest, plain.
      fitted: of stage 1; `None` where there was none.
    """

    generator: Generator
    facts: dict[str, Any]
    fitted: Fitted | None


def distill(config: DiLM, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Train a generator, or take one that is trained, and draw a set; see `methods.base.DistillFn`.

    The run folder keeps `language_model` (after stage 0) and `generator` (after stage 1), as model folders.
    """
    stage_keys = jax.random.split(key, 3)
    made = _made(config, problem, stage_keys[0], stage_keys[1], run)
    generator, began = made.generator, time.monotonic()
    texts, drawn = draw_set(config, generator, generator.params, problem, config.per_class, stage_keys[2], say=True)
    result = set_of(texts, problem)
    # Of all stages, interrupted parts added up.
    spent = [made.facts.get("language_model", {}).get("seconds", 0.0), made.fitted.seconds if made.fitted else 0.0]
    cost = CostRecord(
        distill_seconds=sum(spent) + time.monotonic() - began,
        seconds_per_outer_step=made.fitted.seconds_per_step if made.fitted else None,
        peak_bytes=peak_memory_bytes(),
        distilled_bytes=result.size_in_bytes,
    )
    facts = manifest("dilm", config, problem, key, cost.to_json())
    facts["generator"] = made.facts | {
        "parameters": sum(x.size for x in jax.tree.leaves(generator.params)),
        "drawn": drawn,
    }
    if made.fitted is not None:
        protocol_split = run.protocol.select_on
        facts["selection"] = {
            "split": protocol_split,
            "by": "metric",
            "step": made.fitted.step,
            "score": made.fitted.score,
            "selections": made.fitted.selections,
        }
    return dataclasses.replace(result, manifest=facts)


def _made(config: DiLM, problem: Problem, language_key: Key, matching_key: Key, run: Run) -> Made:
    sizes = {"classes": problem.classes, "fields": len(problem.data.task.text_columns), "max_length": config.max_length}
    _check(config, problem)
    if config.trained:
        return Made(_trained(Path(config.trained), sizes), {"trained": config.trained}, None)
    generator, record = _language_model(config, problem, sizes, language_key, run)
    if not config.matching.updates:
        return Made(generator, {"language_model": record}, None)
    kept = None if run.folder is None else run.folder / "generator"
    fitted = teach(config, generator, problem, key=matching_key, run=run)
    generator = generator._replace(params=jax.tree.map(jnp.asarray, fitted.learned))
    if kept is not None and not kept.exists():
        save_decoder(kept, generator.decoder.config, fitted.learned, tokenizer=generator.form.tokenizer)
    return Made(generator, {"language_model": record}, fitted)


def _check(config: DiLM, problem: Problem) -> None:
    """What stage 1 would find out after the hours of stage 0."""
    if jax.process_count() > 1:
        raise UserError("dilm runs in one process: start it without launching several")
    if problem.data.vectors is not None:
        raise UserError("dilm writes texts: the task and its learner must read texts, not vectors")
    if config.trained or not config.matching.updates:
        return
    check_head(problem.pretrained.learner)
    rows, micro_batch = problem.classes * config.pooling.batch, config.matching.micro_batch
    if micro_batch and micro_batch < rows and rows % micro_batch:
        raise UserError(f"matching.micro_batch is {micro_batch}: it must divide the {rows} texts of an update")
    counts = problem.data.train.class_counts(problem.classes)
    if (least := int(counts.min())) < (asked := config.learners.teacher_per_class):
        name = problem.data.task.label_names[int(np.argmin(counts))]
        raise UserError(
            f"learners.teacher_per_class is {asked}, and class {name!r} has {least} training texts: accepted are as "
            "many or fewer"
        )


def _trained(folder: Path, sizes: dict[str, int]) -> Generator:
    """A generator that a run has kept."""
    if not folder.is_dir():
        raise UserError(f"trained is {str(folder)!r}: no such folder; give generator or language_model of a run")
    loaded, tokenizer = load_decoder(folder, dropout=None), load_tokenizer(folder)
    return Generator(loaded.decoder, loaded.params, text_form(tokenizer, loaded.config, **sizes))


def _language_model(
    config: DiLM, problem: Problem, sizes: dict[str, int], key: Key, run: Run
) -> tuple[Generator, dict[str, Any]]:
    """Stage 0: the generator after training on all real texts, and what came of it."""
    folder = None if run.folder is None else run.folder / "language_model"
    if folder is not None and folder.exists():
        return _trained(folder, sizes), _read_record(folder.with_suffix(".json"))
    token_key, train_key = jax.random.split(key)
    loaded = load_decoder(config.generator, dropout=None)
    tokenizer = decoder_tokenizer(loaded)
    generator = new_generator(loaded.decoder, loaded.params, tokenizer, key=token_key, **sizes)
    run.say(f"stage 0: training {config.generator} on {len(problem.train):,} texts")
    train = form_texts(generator, problem.data.train)
    if train.truncated:
        run.say(f"note: {train.truncated:,} of {len(train):,} texts were cut to {config.max_length} tokens")

    def console(start: int) -> ConsoleWriter:
        """Stage 0 has no place in the run's metrics, whose steps are those of stage 1."""
        total = config.language_model.total_updates(max(1, len(train) // config.language_model.rows))
        shown = ("loss", "dev_perplexity")
        return ConsoleWriter(Progress("stage 0: step", total, start=start), names=shown)

    own = dataclasses.replace(run, checkpoints=None, make_writer=console)
    if run.folder is not None:
        facts = {"config": config.language_model, "source": problem.data.source_hash}
        own = dataclasses.replace(
            own, checkpoints=Checkpoints(run.folder / "checkpoints_language_model", config_hash=fingerprint(facts))
        )
    trained = train_language_model(
        config.language_model,
        generator.decoder,
        generator.params,
        train,
        form_texts(generator, problem.data.dev),
        key=train_key,
        run=own,
    )
    generator = generator._replace(params=jax.tree.map(jnp.asarray, trained.params))
    if folder is not None:
        atomic.write_text(folder.with_suffix(".json"), dumps(trained.record) + "\n")
        save_decoder(folder, generator.decoder.config, trained.params, tokenizer=generator.form.tokenizer)
    return generator, trained.record


def _read_record(path: Path) -> dict[str, Any]:
    """What came of stage 0, written before its model folder."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove {path.with_suffix('')} to train it again") from None


def form_texts(generator: Generator, split: Split) -> Encoded:
    """Examples in the generator's form, as documents of a language model."""
    rows = generator.form.encode(split.texts, split.labels)
    lengths = [len(row) for row in rows]
    return Encoded(
        ids=np.concatenate([np.asarray(row, np.int32) for row in rows]),
        token_types=np.zeros(sum(lengths), np.int8),
        offsets=np.cumsum([0, *lengths]),
        labels=split.labels.astype(np.int32),
        # A text of just this length counts too.
        truncated=sum(length == generator.form.max_length for length in lengths),
    )


def teach(config: DiLM, generator: Generator, problem: Problem, *, key: Key, run: Run) -> Fitted:
    """Stage 1: descend the distance of head gradients; see `objectives.generator`.

    Args:
      config: settings.
      generator: after stage 0; its parameters are copied.
      problem: data and learner.
      key: all randomness.
      run: side effects; its folder keeps learners and pools, so that an interrupted run goes on to the same bits.
    """
    matching, learners, pooling = config.matching, config.learners, config.pooling
    if run.mesh is not None:
        run.say("note: stage 1 of dilm uses one device")
    bank_key, pool_key, select_key, step_key = jax.random.split(key, 4)
    loops = math.ceil(matching.updates / learners.matches)
    bank = LearnerBank(learners, problem, key=bank_key, run=run, loops=loops)
    form = generator.form
    decoder = generator.decoder
    if not matching.dropout:
        rates = dict.fromkeys(("embedding_dropout", "residual_dropout", "attention_dropout"), 0.0)
        decoder = decoder.clone(config=dataclasses.replace(decoder.config, **rates))
    objective = generator_matching(
        decoder,
        bank.learner,
        temperature=matching.temperature,
        reduction=matching.reduction,
        micro_batch=matching.micro_batch,
    )
    optimizer = matching.optimizer()
    step = jax.jit(make_update(objective, optimizer), donate_argnums=0)
    labels = np.repeat(np.arange(problem.classes, dtype=np.int32), pooling.batch)
    per_pool = pooling.refresh * learners.matches
    pools: dict[int, Pool] = {}

    def features_of(loop: int) -> Callable[[list[tuple[str, ...]], int], np.ndarray]:
        """By the learner that the loop begins with, as it is at its last match."""
        variables = bank.variables(loop % learners.trainings, learners.steps[-1])

        def read(texts: list[tuple[str, ...]], label: int) -> np.ndarray:
            encoded = learner_reads(problem, texts, np.full(len(texts), label, np.int32))
            return bank.read_texts(variables, encoded, np.arange(len(texts)))[1]

        return read

    def pool(number: int, params: PyTree) -> Pool:
        """The texts of updates from number * per_pool on, drawn when the first of them comes."""
        if number not in pools:
            path = None if run.folder is None else run.folder / "pools" / f"{number:05d}.json"
            if path is not None and path.exists():
                found = load_pool(path)
            else:
                key = jax.random.fold_in(pool_key, number)
                read = features_of(number * pooling.refresh)
                found = make_pool(generator, params, read, per_pool, pooling, key)
                if path is not None:
                    path.parent.mkdir(exist_ok=True)
                    save_pool(path, found)
            pools.clear()
            pools[number] = found
        return pools[number]

    def batch(number: int, params: PyTree) -> GeneratorBatch:
        loop, match = divmod(number, learners.matches)
        texts = pool(number // per_pool, params).batch(number % per_pool)
        rows = form.encode(texts, labels)
        encoded = learner_reads(problem, texts, labels)
        longest = max(int(encoded.lengths.max()), bank.learner.min_length)
        met = bank.at(loop, match)
        return GeneratorBatch(
            texts=form.batch(rows, min(_round_up(max(map(len, rows))), decoder.config.positions)),
            examples=pad(encoded, np.arange(len(texts)), length=min(_round_up(longest), bank.learner.max_length)),
            learner=met.variables.trainable,
            real=met.real,
        )

    def update(state: OuterState, frozen: PyTree, number: int, key: Key):
        return step(state, frozen, batch(number, state.learned), key)

    select = Judge(config, generator, problem, select_key, run)
    state = init_outer(jax.tree.map(jnp.array, generator.params), optimizer)
    return fit(
        update,
        state,
        bank.variables(0, 0).frozen,
        lambda number: number,
        updates=matching.updates,
        select=select,
        select_at=matching.select_at,
        key=step_key,
        run=run,
        place=functools.partial(jax.tree.map, jnp.asarray),
        keep=matching.keep,
        wording=_WORDING,
    )


def _round_up(length: int) -> int:
    """Batches have lengths in steps of this, so that few programs are compiled."""
    return -(-length // _LENGTHS) * _LENGTHS


def inner_spec(config: DiLM, classes: int) -> InnerSpec | None:
    """`None`: learners train on the texts by a recipe."""
    return None


def initial(config: DiLM, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """There is no `Synthetic` to begin with.

    Raises:
      UserError: always.
    """
    raise UserError("method 'dilm' teaches a language model, not arrays: it has no outer step to show beforehand")


METHOD = Method(DiLM, distill, initial, inner_spec, makes_texts=True)
