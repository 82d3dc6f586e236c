"""What a language model knows: questions with several answers, of which it finds one most likely (MMLU and the like).

Hendrycks et al. 2021 (Measuring Massive Multitask Language Understanding) made MMLU. Here, as in UniDetox (Lu et al.
2025), the answers are not letters: the text of each is scored in full, without regard to its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxdistill.core.errors import UserError
from jaxdistill.data.multiple_choice import Question
from jaxdistill.evaluation.likelihoods import LanguageModel, likelihoods
from jaxdistill.evaluation.perplexity import encode_behind


class ChoiceScores(NamedTuple):
    """What a model chose.

    Attributes:
      chosen: number of the most likely answer of each question, the first of equally likely ones.
      correct: whether it is the right one.
      log_probabilities: of question and answer together, one array a question.
      subjects: of each question.
      shots: solved questions that were asked for.
      shortened: how many questions had fewer, since the model could not read so many.
    """

    chosen: Int64[np.ndarray, " n"]
    correct: Bool[np.ndarray, " n"]
    log_probabilities: tuple[Float64[np.ndarray, " c"], ...]
    subjects: tuple[str, ...]
    shots: int
    shortened: int

    def summary(self) -> dict[str, Any]:
        """Figures for a result file: accuracy over all questions, its mean over subjects, and of each subject."""
        names = np.asarray(self.subjects)
        by_subject = {name: float(self.correct[names == name].mean()) for name in sorted(set(self.subjects))}
        return {
            "accuracy": float(self.correct.mean()),
            "subject_mean": float(np.mean(list(by_subject.values()))),
            "questions": len(self.correct),
            "shots": self.shots,
            "shortened": self.shortened,
            "subjects": by_subject,
        }


def answer_questions(
    model: LanguageModel,
    questions: Sequence[Question],
    solved: Sequence[Question] = (),
    *,
    shots: int = 5,
    cache: Path | None = None,
    label: str = "",
) -> ChoiceScores:
    """Choose the answer that makes question and answer together most likely, after a few solved questions.

    The model reads "Question: ...\\nAnswer: ..." of the first `shots` solved questions of the same subject, then of the
    question with each answer. The log-probability is that of all tokens of the last question and its answer; it is
    not divided by their number. Where that is more than the model can read, the last solved questions are left out
    one by one.

    Args:
      model: who chooses.
      questions: at least one.
      solved: the development questions that serve as examples.
      shots: solved questions in front of each; 5 is usual, published code of detoxification has 1.
      cache: folder in which scores are kept, see `score_cache`.
      label: of a progress line; empty shows none.

    Raises:
      UserError: no questions, fewer solved ones of a subject than `shots`, or a question that alone is too long.
    """
    if not questions or shots < 0:
        raise UserError(f"multiple choice: {len(questions)} questions and {shots} shots: accepted are 1 and 0 or more")
    examples = {name: [q for q in solved if q.subject == name][:shots] for name in {q.subject for q in questions}}
    for name, found in examples.items():
        if len(found) < shots:
            raise UserError(
                f"multiple choice: {shots} shots asked for, but subject {name!r} has {len(found)} solved questions"
            )
    rows: list[list[int]] = []
    firsts: list[int] = []
    shortened = 0
    for question in questions:
        tokens, first, kept = _encoded(model, question, examples[question.subject])
        rows += tokens
        firsts += first
        shortened += kept < shots
    negative = likelihoods(model, rows, firsts, cache=cache, label=label).negative
    ends = np.cumsum([len(question.choices) for question in questions])[:-1]
    scores = tuple(-part for part in np.split(negative, ends))
    for question, part in zip(questions, scores, strict=True):
        if not np.isfinite(part).all():
            raise UserError(
                f"multiple choice: {model.name!r} gives no finite log-probability of {question.question[:40]!r}; check "
                "the model's weights"
            )
    chosen = np.asarray([part.argmax() for part in scores], np.int64)
    correct = chosen == np.asarray([question.answer for question in questions])
    return ChoiceScores(chosen, correct, scores, tuple(q.subject for q in questions), shots, shortened)


def _encoded(
    model: LanguageModel, question: Question, examples: Sequence[Question]
) -> tuple[list[list[int]], list[int], int]:
    """(tokens of the question with each answer, the first scored token of each, examples in front)."""
    longest = model.decoder.config.positions
    for kept in range(len(examples), -1, -1):
        before = "".join(f"{_solved(example, example.answer)}\n\n" for example in examples[:kept])
        whole = [before + _solved(question, choice) for choice in range(len(question.choices))]
        rows, firsts = encode_behind(model.tokenizer, whole, [len(before)] * len(whole))
        if max(map(len, rows)) <= longest:
            return rows, firsts.tolist(), kept
    raise UserError(
        f"multiple choice: the question {question.question[:40]!r} has more than the {longest} tokens that "
        f"{model.name!r} can read"
    )


def _solved(question: Question, choice: int) -> str:
    return f"Question: {question.question.strip()}\nAnswer: {question.choices[choice].strip()}"
