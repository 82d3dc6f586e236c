"""What a distilled set gives away of the records it was made from: attacks on it, and on the mechanism it claims."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdistill.core.errors import UserError
from jaxdistill.core.types import Batch, Learner, PyTree, Variables
from jaxdistill.data.encoding import encode
from jaxdistill.data.splits import Split
from jaxdistill.evaluation.audit_report import write_audit_report
from jaxdistill.evaluation.features import read_texts
from jaxdistill.evaluation.mechanism_audit import audit_mechanism
from jaxdistill.evaluation.membership import (
    label_margins,
    likelihood_ratio_scores,
    loss_scores,
    nearest_text_scores,
)
from jaxdistill.evaluation.overlap import words_of
from jaxdistill.evaluation.privacy_audit import attack
from jaxdistill.evaluation.students import learned_schedule
from jaxdistill.io import atomic
from jaxdistill.io.distilled import DistilledSet, load_distilled
from jaxdistill.io.plain import dumps, plain
from jaxdistill.io.progress import Progress
from jaxdistill.methods.base import WITHHELD, Problem
from jaxdistill.pipeline.checks import at_least
from jaxdistill.pipeline.config import ExperimentConfig
from jaxdistill.pipeline.keys import named_key
from jaxdistill.pipeline.prepare import prepare
from jaxdistill.pipeline.training import Plan, learned_arrays, text_split, training_plan
from jaxdistill.privacy.accounting import Budget
from jaxdistill.privacy.mechanism import Mechanism

# Numbers of a release up to which the mechanism is attacked in its own size: noise is independent of the size.
_SIZE = 1024
# Releases of a run that are attacked: what some of them give away, all of them do.
_RELEASES = 32


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """How hard the attacks try.

    Attributes:
      records: members, and as many others, at most.
      students: learners trained on the set.
      references: learners that never met a record, each trained on random texts of its own.
      draws, canaries: of the mechanism, see `evaluation.mechanism_audit`.
      false_positives: share of others at which the share of members found is told.
    """

    records: int = 1000
    students: int = 4
    references: int = 16
    draws: int = 4000
    canaries: int = 1000
    false_positives: float = 0.01

    def __post_init__(self):
        at_least(self, "audit", {"records": 2, "students": 1, "references": 2, "draws": 4, "canaries": 10})
        if not 0.0 < self.false_positives < 1.0:
            raise UserError(f"audit: false_positives is {self.false_positives}; it must lie between 0 and 1")


@dataclasses.dataclass(frozen=True)
class _Records:
    """Who is attacked.

    Attributes:
      members: rows of the training split.
      others: rows of the dev split.
      pool: further rows of it, which reference learners train on.
    """

    members: Int[np.ndarray, " m"]
    others: Int[np.ndarray, " n"]
    pool: Int[np.ndarray, " p"]


def audit_folder(
    folder: str | os.PathLike,
    config: ExperimentConfig,
    settings: AuditSettings,
    *,
    output: str | os.PathLike | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Attack a distilled set of any method.

    Members are training texts, those alone that the set was made from where its manifest names them ("members"); others
    are dev texts whose words stand nowhere in the training split, with the members' shares of classes. Where the set
    claims privacy, the mechanism is attacked too, with the noise and the sampling of the manifest.

    Args:
      folder: of the set.
      config: task, learner, recipe and seed are used.
      settings: see there.
      output: folder for `audit.json` and `audit.html`.
      say: prints one line.

    Raises:
      UserError: no distilled set, one of other data or one whose manifest lacks what is needed; too few dev texts.
    """
    distilled = load_distilled(folder)
    claim = _claim(distilled, folder)
    problem = prepare(config.task, config.learner)
    _check(distilled, problem, plain(config.task.balance), folder)
    plan = training_plan(distilled, problem, config.evaluation.train_by)
    records = _records(distilled, problem, settings, np.random.default_rng(config.seed))
    notes = [*plan.notes]
    if distilled.manifest["source_hash"] == WITHHELD:
        notes.append("the manifest withholds what data the set was made from: members are of the data given here")
    short = np.bincount(problem.data.dev.labels[records.pool], minlength=problem.classes)
    if (short < np.bincount(distilled.labels, minlength=problem.classes)).any():
        notes.append("reference learners train on fewer texts than the set has: the dev split has no more")
    for note in notes:
        say(f"note: {note}")
    kinds = (len(records.members), len(records.others))
    say(f"audit of {folder}: {kinds[0]:,} members, {kinds[1]:,} others, {settings.students} learners")
    scores = _scores(distilled, plan, problem, records, config, settings)
    attacks = {}
    for name, (members, others) in scores.items():
        found = attack(members, others, false_positives=settings.false_positives)
        attacks[name] = found.to_json()
        say(
            f"{name}: AUC {found.auc:.3f} [{found.auc_low:.3f}, {found.auc_high:.3f}], TPR at "
            f"{100 * settings.false_positives:g} % FPR {100 * found.true_positives:.1f} % "
            f"[{100 * found.true_positives_low:.1f}, {100 * found.true_positives_high:.1f}]"
        )
    result: dict[str, Any] = {
        "task": problem.data.task.name,
        "method": distilled.manifest["method"],
        "learner": problem.pretrained.source,
        "privacy": distilled.manifest.get("privacy"),
        "attacks": attacks,
        "mechanism": None,
        "settings": settings,
        "notes": notes,
    }
    if claim is not None:
        result["mechanism"] = _of_mechanism(claim, settings, config.seed)
        own, one = result["mechanism"], result["mechanism"]["one_run"]
        say(
            f"mechanism: epsilon at least {own['epsilon']:.3f}, claimed {own['claimed']:g}; AUC {own['auc']:.3f}"
            + (f", expected {own['expected_auc']:.3f}" if own["expected_auc"] is not None else "")
            + f"; by one run {one['epsilon']:.3f} ({one['correct']} of {one['guesses']} guesses)"
        )
        if own["flagged"]:
            say("the claim of the mechanism is REFUTED")
    if output is not None:
        path = Path(output)
        atomic.write_text(path / "audit.json", dumps(result) + "\n")
        write_audit_report(path / "audit.html", result, scores)
        say(f"report: {path / 'audit.html'}")
    return result


def _claim(distilled: DistilledSet, folder: str | os.PathLike) -> dict[str, Any] | None:
    """What a private set says of its release; `None` of a set that claims nothing.

    Raises:
      UserError: it claims something and does not say what it rests on.
    """
    privacy = distilled.manifest.get("privacy")
    if privacy is None or privacy.get("mode") not in ("gaussian", "poisson"):
        return None
    ledger = privacy.get("ledger") or {}
    if missing := [
        name
        for name, there in (
            ("sigma", "sigma" in privacy),
            ("numbers_a_class", "numbers_a_class" in privacy),
            ("ledger.budget", "budget" in ledger),
            ("ledger.releases", bool(ledger.get("releases"))),
        )
        if not there
    ]:
        raise UserError(f"{folder}: the manifest claims privacy and lacks {', '.join(missing)}: nothing to audit it by")
    return privacy


def _check(distilled: DistilledSet, problem: Problem, balance: dict[str, Any], folder: str | os.PathLike) -> None:
    source, task = distilled.manifest["source_hash"], problem.data.task
    if distilled.manifest["task"] != task.name:
        made = distilled.manifest["task"]
        raise UserError(f"{folder} is of {made}, and the configuration of {task.name}: give its own")
    if problem.data.vectors is not None or len(task.text_columns) != 1:
        raise UserError(f"audit: {task.name} has no single text column; tasks of one text can be audited")
    if source not in (WITHHELD, problem.data.source_hash):
        raise UserError(
            f"{folder} was made from other data (source_hash {source[:12]}) than {task.name} is here "
            f"({problem.data.source_hash[:12]}): who its members are cannot be told"
        )
    made_from = distilled.manifest.get("experiment", {}).get("task", {}).get("balance", balance)
    if made_from != balance:
        raise UserError(f"{folder} was made with task.balance {made_from}, and the configuration has {balance}")
    if distilled.label_names != task.label_names:
        raise UserError(f"{folder} has the classes {', '.join(distilled.label_names)}: they are not those of the task")


def _records(distilled: DistilledSet, problem: Problem, settings: AuditSettings, rng: np.random.Generator) -> _Records:
    """Members and others, and the pool of references, both of dev texts that stand in the training split in no form."""
    train, dev = problem.data.train, problem.data.dev
    known = {_plain(text) for text in train.texts}
    outside = np.asarray([row for row, text in enumerate(dev.texts) if _plain(text) not in known], np.int64)
    outside = rng.permutation(outside)
    half = min(settings.records, len(outside) // 2)
    if half < 2:
        raise UserError(f"audit: {len(outside)} dev texts do not stand in the training split; at least 4 are needed")
    named = distilled.manifest.get("members")
    candidates = np.arange(len(train)) if named is None else np.asarray(named, np.int64)
    if named is not None and (candidates.min(initial=0) < 0 or candidates.max(initial=0) >= len(train)):
        raise UserError(f"the manifest names members beyond the {len(train)} training texts: it is of other data")
    members = rng.permutation(candidates)[: settings.records]
    # What tells classes apart is not what tells members apart: others have the shares of the members' classes.
    wanted = np.bincount(train.labels[members], minlength=problem.classes)
    own = [outside[dev.labels[outside] == label] for label in range(problem.classes)]
    scale = min(half / wanted.sum(), *(len(rows) / 2 / n for rows, n in zip(own, wanted, strict=True) if n))
    others = np.concatenate([rows[: round(scale * n)] for rows, n in zip(own, wanted, strict=True)])
    if len(others) < 2:
        raise UserError("audit: too few dev texts of the members' classes do not stand in the training split")
    return _Records(members, others, np.setdiff1d(outside, others))


def _plain(text: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(words_of(text[0]))


def _scores(
    distilled: DistilledSet,
    plan: Plan,
    problem: Problem,
    records: _Records,
    config: ExperimentConfig,
    settings: AuditSettings,
) -> dict[str, tuple[Float[np.ndarray, " m"], Float[np.ndarray, " n"]]]:
    """Scores of members and of others, attack by attack."""
    progress = Progress("audit: learners trained", settings.students + settings.references)
    try:
        margins: list[list[np.ndarray]] = []
        learners = _students(distilled, plan, problem, config, settings.students)
        references = _references(distilled, problem, records.pool, config, settings.references)
        for kind in (learners, references):
            found, read = [], None
            for learner, variables in kind:
                read = read or jax.jit(functools.partial(_logits, learner))
                found.append(_margins(read, learner, variables, problem, records))
                progress.update(sum(len(rows) for rows in margins) + len(found))
            margins.append(found)
    finally:
        progress.close()
    own, others = (np.stack(rows) for rows in margins)
    made = {"loss": loss_scores(own), "likelihood ratio": likelihood_ratio_scores(own, others)}
    if distilled.texts is not None:
        texts = [problem.data.train.texts[row][0] for row in records.members]
        texts += [problem.data.dev.texts[row][0] for row in records.others]
        made["nearest text"] = nearest_text_scores(texts, [text for (text,) in distilled.texts])
    count = len(records.members)
    return {name: (scores[:count], scores[count:]) for name, scores in made.items()}


def _students(
    distilled: DistilledSet, plan: Plan, problem: Problem, config: ExperimentConfig, count: int
) -> Iterator[tuple[Learner, Variables]]:
    """Learners trained on the set, as its evaluation trains them."""
    keys = jax.random.split(named_key(config.seed, "audit"), count)
    if plan.spec is None:
        yield from _trained(problem, [text_split(distilled)] * count, keys, config, distilled.soft_labels)
        return
    learner = problem.pretrained.learner
    train = jax.jit(learned_schedule(learner, plan.spec))
    base = problem.base()
    arrays = jax.tree.map(jnp.asarray, learned_arrays(distilled, plan.spec, problem))
    for key in keys:
        yield learner, Variables(train(base, arrays, key), base.frozen)


def _references(
    distilled: DistilledSet, problem: Problem, pool: Int[np.ndarray, " p"], config: ExperimentConfig, count: int
) -> Iterator[tuple[Learner, Variables]]:
    """Learners trained by the recipe on random texts of the pool, as many of each class as the set has.

    Raises:
      UserError: a class of which the pool has no text.
    """
    dev, rng = problem.data.dev, np.random.default_rng(config.seed + 1)
    wanted = np.bincount(distilled.labels, minlength=problem.classes)
    sets = []
    for _ in range(count):
        rows = []
        for label, number in enumerate(wanted):
            own = pool[dev.labels[pool] == label]
            if number and not len(own):
                raise UserError(f"audit: no dev text of class {label} is left for the reference learners")
            rows.append(rng.permutation(own)[:number])
        sets.append(dev.take(np.concatenate(rows)))
    yield from _trained(problem, sets, jax.random.split(named_key(config.seed, "audit references"), count), config)


def _trained(
    problem: Problem,
    sets: Sequence[Split],
    keys: jax.Array,
    config: ExperimentConfig,
    soft_labels: np.ndarray | None = None,
) -> Iterator[tuple[Learner, Variables]]:
    trainer, recipe = problem.trainer(), config.evaluation.recipe
    learner = trainer.learner(recipe)
    for texts, key in zip(sets, keys, strict=True):
        encoded = encode(texts, problem.pretrained.tokenizer, problem.longest)
        yield learner, trainer.on_texts(encoded, recipe, key, soft_labels=soft_labels)


def _margins(
    read: Callable[[Variables, Batch], PyTree],
    learner: Learner,
    variables: Variables,
    problem: Problem,
    records: _Records,
) -> Float[np.ndarray, " n"]:
    """Of all members, then of all others."""
    parts = []
    for encoded, labels, rows in (
        (problem.train, problem.data.train.labels, records.members),
        (problem.dev, problem.data.dev.labels, records.others),
    ):
        logits = read_texts(read, learner, variables, encoded, rows, row_length=problem.row_length)
        parts.append(label_margins(logits, labels[rows]))
    return np.concatenate(parts)


def _logits(learner: Learner, variables: Variables, batch: Batch) -> Float[Array, "n c"]:
    return learner.apply(variables, batch).logits


def _of_mechanism(privacy: dict[str, Any], settings: AuditSettings, seed: int) -> dict[str, Any]:
    """The audit of the mechanism, by the noise and the sampling of the manifest."""
    ledger = privacy["ledger"]
    releases = ledger["releases"]
    audit = audit_mechanism(
        Mechanism(privacy["sigma"], clip=privacy.get("clip", "clip"), rate=releases[0]["rate"]),
        Budget(**ledger["budget"]),
        size=min(_SIZE, privacy["numbers_a_class"]),
        releases=min(_RELEASES, sum(release["count"] for release in releases)),
        norm=2.0,
        draws=settings.draws,
        canaries=settings.canaries,
        key=named_key(seed, "audit mechanism"),
    )
    return audit.to_json()
