"""GRADMM: texts of a language model's own making whose gradient of its head is that of real texts, class by class.

Source: D. Nguyen, Z. Li, M. Bateni, V. Mirrokni, M. Razaviyayn, B. Mirzasoleiman, "Synthetic Text Generation for
Training Large Language Models via Gradient Matching", ICML 2025. The private modes are ours: there the training texts
are looked at once, by `privacy.mechanism`, and everything else is made of what that releases.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Key, Synthetic
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.cost import CostRecord, peak_memory_bytes
from jaxdistill.evaluation.likelihoods import LanguageModel, load_language_model
from jaxdistill.generation.vocabulary import readable_tokens
from jaxdistill.io.distilled import DistilledSet
from jaxdistill.methods.base import Method, Problem, Run, Stopped, manifest, withheld
from jaxdistill.methods.coreset import set_of
from jaxdistill.methods.gradmm_admm import ADMMState, Given, Solver
from jaxdistill.methods.gradmm_filter import (
    few_shot_labels,
    keep_texts,
    mean_negative_likelihoods,
    zero_shot_labels,
)
from jaxdistill.methods.gradmm_reading import PROMPTS, Form, Rows, make_form, read_rows
from jaxdistill.methods.gradmm_sampling import sampled
from jaxdistill.methods.gradmm_settings import GRADMM, LABEL
from jaxdistill.methods.gradmm_target import Reader, clean_target, paper_target, private_target
from jaxdistill.objectives.head_distance import Target
from jaxdistill.objectives.head_sketch import Sketch
from jaxdistill.objectives.inner_problem import InnerSpec
from jaxdistill.privacy.mechanism import Sealed

# Tokens of a text where the real lengths are private.
_PUBLIC_LENGTH = 32


class Aim(NamedTuple):
    """What texts are made for.

    Attributes:
      target: of all classes.
      sketch: of the target; `None` where it is no sketch.
      length: tokens of a text.
      facts: for the manifest, plain.
      real: training texts that were read.
      members: rows of these, where they were chosen and are not private; `None` for all.
    """

    target: Target
    sketch: Sketch | None
    length: int
    facts: dict[str, Any]
    real: int
    members: Int[np.ndarray, " n"] | None = None


class Candidates(NamedTuple):
    """Texts of all rounds, class by class.

    Attributes:
      ids: tokens, without the prompt.
      labels: class ids.
      distances: of each text by itself.
    """

    ids: Int[np.ndarray, "n s"]
    labels: Int[np.ndarray, " n"]
    distances: Float[np.ndarray, " n"]


def distill(config: GRADMM, problem: Problem, *, key: Key, run: Run) -> DistilledSet:
    """Release or compute the target, make texts, keep the best; see `methods.base.DistillFn`."""
    began = time.monotonic()
    if jax.process_count() > 1:
        raise UserError("gradmm runs in one process: start it without launching several")
    if len(problem.data.task.text_columns) != 1 or problem.data.vectors is not None:
        raise UserError("gradmm writes examples of one text: the task must have one text column")
    model = load_language_model(config.model, dropout=None)
    prompt, words = task_prompt(config, problem)
    form = make_form(model.tokenizer, prompt, words, fresh=config.head == "fresh")
    reader = Reader(model.decoder, model.params, form, config.micro_batch)
    allowed = readable_tokens(model.tokenizer, config.vocabulary, _ends(model))
    _check(config, model, form, words, len(allowed))
    target_key, start_key = jax.random.split(key)
    aim = _aim(config, problem, model, reader, target_key, run)
    solver = Solver(config.admm, model.decoder, form, aim.sketch)
    prefixes = [[*form.lead, *_tokens(model, prefix)] for prefix in _prefixes(config, words)]
    given = Given(model.params, aim.target, jnp.asarray(allowed), jnp.asarray(prefixes[0], jnp.int32))
    if config.making == "sampling":
        each = config.rounds * config.texts
        ids, distances = sampled(solver, given, prefixes, each, aim.length, start_key)
        made = Candidates(ids, np.repeat(np.arange(len(words), dtype=np.int32), each), distances)
    else:
        made = _candidates(config, solver, given, aim.length, start_key, run)
    texts, facts = _kept(config, model, made, prompt, words)
    result = set_of(Split([(text,) for text in texts[0]], texts[1]), problem)
    cost = CostRecord(
        distill_seconds=time.monotonic() - began,
        peak_bytes=peak_memory_bytes(),
        distilled_bytes=result.size_in_bytes,
        real_examples=aim.real,
    )
    given_facts = manifest("gradmm", config, problem, key, cost.to_json())
    given_facts["generator"] = {"form": form._asdict(), "prompt": prompt, "label_words": list(words)} | facts
    given_facts["privacy"] = aim.facts
    if aim.members is not None:
        given_facts["members"] = aim.members.tolist()
    if config.privacy.private:
        given_facts = withheld(given_facts, problem, config.privacy.leaky)
    return dataclasses.replace(result, manifest=given_facts)


def task_prompt(config: GRADMM, problem: Problem) -> tuple[str, tuple[str, ...]]:
    """Prompt and label words: those of the settings, else of the table, else the task's label names."""
    task = problem.data.task
    table = PROMPTS.get(task.name.split(":")[0], ("", ()))
    prompt, words = config.prompt or table[0], config.label_words or table[1] or task.label_names
    if not prompt:
        raise UserError(f"prompt is empty, and {task.name} has none of its own: give one, such as ' It was '")
    if len(words) != problem.classes:
        raise UserError(
            f"label_words are {len(words)}, and {task.name} has {problem.classes} classes: give one a class"
        )
    return prompt, tuple(words)


def _aim(config: GRADMM, problem: Problem, model: LanguageModel, reader: Reader, key: Key, run: Run) -> Aim:
    privacy = config.privacy
    choose_key, noise_key = jax.random.split(key)
    if privacy.private:
        # From here on nothing but the release reads the training texts.
        rows, count = _all_rows(config, problem, model, reader.form), len(problem.data.train)
        records = Sealed({"token_ids": rows.token_ids, "last": rows.last, "label": rows.labels})
        blocks = Sealed(rows.labels)
        del rows
        identity = {"source": problem.data.source_hash, "model": model.digest, "form": reader.form._asdict()}
        found = private_target(reader, records, blocks, privacy, identity=identity, folder=run.folder, say=run.say)
        facts = found.facts
        if has_read(config.model, problem.data.task.name):
            run.say("note: the language model was trained on this task's texts, so that nothing is guaranteed")
            facts |= {"guarantee": "none: the language model was trained on these texts"}
        elif not facts["guarantee"].startswith("none"):
            facts |= {"guarantee": f"{facts['guarantee']}; given that the language model has not read them"}
        return Aim(found.target, found.sketch, config.length or _PUBLIC_LENGTH, facts, count)
    train, members = problem.data.train, None
    if config.real_per_class:
        members = _some(train, problem.classes, config.real_per_class, choose_key)
        train = train.take(members)
    rows = read_rows(model.tokenizer, reader.form, [text[0] for text in train.texts], train.labels, config.real_length)
    extra = len(reader.form.lead) + len(reader.form.prompt) - 1
    length = config.length or max(1, int(np.mean(rows.last - extra)))
    if privacy.mode == "paper":
        run.say("note: privacy mode paper is not private from end to end")
        target: Target = paper_target(reader, rows, privacy, noise_key)
        facts = {"mode": "paper", "guarantee": "none: not end-to-end DP"}
    else:
        target, facts = clean_target(reader, rows), {"mode": "off", "guarantee": "none"}
    return Aim(target, None, length, facts, len(train), members)


def has_read(model: str, task: str) -> bool:
    """Whether a language model of `experiments.pretrain_lm`, or one that it was made from, was trained on a task.

    Args:
      model: its folder, in that of its run; of others nothing is known.
      task: name of the task.
    """
    record = Path(model).parent / "config.json"
    try:
        made = json.loads(record.read_text())
        sources = [*made["corpus"]["sources"], *made["corpus"].get("judged", ())]
        before = made["model"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    names = {re.split(r"[/:\[]", source)[0] for source in sources}
    return re.split(r"[/:\[]", task)[0] in names or (bool(before) and has_read(before, task))


def _all_rows(config: GRADMM, problem: Problem, model: LanguageModel, form: Form) -> Rows:
    """Of every training text; one without a token is read as none, since an error would tell of it."""
    train = problem.data.train
    return read_rows(
        model.tokenizer, form, [text[0] for text in train.texts], train.labels, config.real_length, empty=True
    )


def _some(train: Split, classes: int, each: int, key: Key) -> Int[np.ndarray, " n"]:
    """Random training texts, as many of each class as there are up to `each`."""
    chosen = []
    for label in range(classes):
        own = np.flatnonzero(train.labels == label)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, label), len(own)))
        chosen.append(own[order[:each]])
    return np.concatenate(chosen)


def _candidates(config: GRADMM, solver: Solver, given: Given, length: int, key: Key, run: Run) -> Candidates:
    """All rounds, some at once; an interrupted run goes on from its last outer step."""
    steps, classes = config.admm.outer_steps, len(solver.form.labels)
    ids = np.zeros((classes, config.rounds, config.texts, length), np.int32)
    each = np.zeros((classes, config.rounds, config.texts), np.float32)
    kept, saved = run.checkpoints, time.monotonic()
    latest = (kept.latest() if kept is not None else None) or 0
    writer = run.make_writer(latest) if run.make_writer is not None else None
    try:
        for number, count in enumerate(config.groups):
            begin, end = number * steps, (number + 1) * steps
            if latest > end:
                continue
            state = solver.start(given, count, config.texts, length, jax.random.fold_in(key, number))
            if kept is not None and latest > begin:
                restored = kept.restore({"state": state, "ids": ids, "each": each})
                state, ids, each = (
                    jax.tree.map(jnp.asarray, restored["state"]),
                    *(np.array(restored[name]) for name in ("ids", "each")),
                )
            for done in range(max(begin, latest) + 1, end + 1):
                state, trace = solver.advance(given, state, 1)
                if done == end:
                    _finish(solver, given, state, sum(config.groups[:number]), ids, each)
                if writer is not None:
                    writer.write(done - 1, {name: float(value[-1]) for name, value in trace._asdict().items()})
                stop = run.stop() and done < config.outer_steps
                if kept is not None and (stop or done == end or time.monotonic() - saved > run.checkpoint_seconds):
                    if writer is not None:
                        writer.flush()
                    kept.save(done, {"state": state, "ids": ids, "each": each})
                    saved = time.monotonic()
                if stop:
                    raise Stopped(f"stopped after outer step {done} of {config.outer_steps}")
    finally:
        if writer is not None:
            writer.close()
    labels = np.repeat(np.arange(classes, dtype=np.int32), config.rounds * config.texts)
    return Candidates(ids.reshape(-1, length), labels, each.reshape(-1))


def _finish(solver: Solver, given: Given, state: ADMMState, begin: int, ids: np.ndarray, each: np.ndarray) -> None:
    """Write a group's texts, and how far each of them is, into the tables of all rounds."""
    found, _ = solver.finish(given, state)
    own = slice(begin, begin + found.shape[1])
    ids[:, own] = np.asarray(found)
    each[:, own] = np.asarray(solver.each_text_distance(given, found))


def _kept(
    config: GRADMM, model: LanguageModel, made: Candidates, prompt: str, words: tuple[str, ...]
) -> tuple[tuple[list[str], Int[np.ndarray, " n"]], dict[str, Any]]:
    """Texts and labels, interleaved by class; and what became of the others."""
    filtering = config.filtering
    texts = [" ".join(model.tokenizer.decode(row).split()) for row in made.ids.tolist()]
    negative = mean_negative_likelihoods(model, texts)
    scores = filtering.distance_weight * made.distances + filtering.likelihood_weight * negative
    usable = np.ones(len(texts), bool)
    if filtering.few_shot:
        usable &= few_shot_labels(model, texts, words, filtering) == made.labels
    if filtering.zero_shot:
        usable &= zero_shot_labels(model, texts, prompt, words) == made.labels
    chosen, dropped = keep_texts(texts, made.labels, scores, config.per_class, balance=filtering.balance, usable=usable)
    # One of each class in turn, so that the first n hold as many of each.
    ranks = {i: sum(made.labels[j] == made.labels[i] for j in chosen[: chosen.index(i)]) for i in chosen}
    chosen.sort(key=lambda i: (ranks[i], made.labels[i]))
    facts = {
        "candidates": len(texts),
        "dropped": dropped,
        "distance": float(np.mean(made.distances[chosen])),
        "negative_log_likelihood": float(np.mean(negative[chosen])),
    }
    return ([texts[i] for i in chosen], made.labels[chosen]), facts


def _prefixes(config: GRADMM, words: tuple[str, ...]) -> list[str]:
    """What the language model has read before a text of each class."""
    return [config.prefix.replace(LABEL, word) for word in words]


def _check(config: GRADMM, model: LanguageModel, form: Form, words: tuple[str, ...], allowed: int) -> None:
    """What would show after the real texts have been read."""
    if config.admm.nearest > allowed:
        raise UserError(
            f"admm.nearest is {config.admm.nearest}, and the vocabulary filter keeps {allowed} tokens: accepted are as "
            "many or fewer"
        )
    length = config.length or (_PUBLIC_LENGTH if config.privacy.private else config.real_length)
    prefix = max((_tokens(model, prefix) for prefix in _prefixes(config, words)), key=len)
    if not prefix:
        raise UserError(f"prefix {config.prefix!r} has no token: give a word")
    longest = len(form.lead) + max(
        max(length, config.real_length) + len(form.prompt),
        len(prefix) + length,
    )
    if longest > (positions := model.decoder.config.positions):
        raise UserError(
            f"length {length} or real_length {config.real_length} with a prompt of {len(form.prompt)} tokens, or a "
            f"prefix of {len(prefix)}, needs {longest} positions, and {model.name} reads {positions}: take fewer"
        )


def _ends(model: LanguageModel) -> tuple[int, ...]:
    """Special tokens, which no text may hold."""
    return tuple(token for token, added in model.tokenizer.get_added_tokens_decoder().items() if added.special)


def _tokens(model: LanguageModel, text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=False).ids


def inner_spec(config: GRADMM, classes: int) -> InnerSpec | None:
    """`None`: learners train on the texts by a recipe."""
    return None


def initial(config: GRADMM, problem: Problem, key: Key) -> tuple[Synthetic, Batch]:
    """There is no `Synthetic` to begin with.

    Raises:
      UserError: always.
    """
    raise UserError("method 'gradmm' makes texts by a language model: it has no outer step to show beforehand")


METHOD = Method(GRADMM, distill, initial, inner_spec, makes_texts=True)
"""Registered in `methods.registry`."""
