from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.core.errors import UserError
from jaxdistill.io.metrics import ConsoleWriter, JsonlWriter, MultiWriter, TensorBoardWriter, read_metrics
from jaxdistill.io.progress import Progress, duration


def _write(path, steps, *, resume_at=0):
    writer = JsonlWriter(path, resume_at=resume_at)
    for step in steps:
        writer.write(step, {"loss": 1.0 / (step + 1), "skipped": step})
    writer.close()


def test_lines_hold_plain_numbers(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer.write(0, {"loss": jnp.float32(0.5), "count": np.int32(3), "bad": float("nan"), "worse": -math.inf})
    # On the disk before the writer is closed: a killed process loses nothing.
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 0, "loss": 0.5, "count": 3, "bad": "nan", "worse": "-inf",
    }  # fmt: skip
    writer.close()
    line = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert math.isnan(line["bad"]) and line["worse"] == -math.inf and line["count"] == 3


@pytest.mark.parametrize("torn", [b"", b'{"step": 7, "lo', b'{"step": 7}', b"\x00\x00\x00"])
@pytest.mark.parametrize("resume_at", [0, 3, 7])
def test_an_interrupted_file_equals_an_unbroken_one(tmp_path, torn, resume_at):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    _write(unbroken, range(10))
    _write(broken, range(7))
    with open(broken, "ab") as file:
        file.write(torn)
    _write(broken, range(resume_at, 10), resume_at=resume_at)
    assert broken.read_bytes() == unbroken.read_bytes()


def test_reading_leaves_out_a_torn_last_line_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 0}\n{"step": 1, "lo')
    assert read_metrics(path) == [{"step": 0}]
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2 is damaged; expected a JSON object"):
        read_metrics(path)


def test_a_metric_that_is_no_number_is_refused(tmp_path):
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(TypeError, match="metric 'name' is a str; expected a number"):
        writer.write(0, {"name": "x"})
    writer.close()


def _events(folder):
    from tensorboardX.proto import event_pb2

    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:  # a record: length (8 bytes), its checksum (4), content, its checksum (4)
            length = int.from_bytes(data[:8], "little")
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))  # pyright: ignore
            data = data[16 + length :]
    return found


@pytest.mark.parametrize("resume_at", [0, 4])
def test_tensorboard_holds_the_scalars(tmp_path, resume_at):
    writer = TensorBoardWriter(tmp_path / "tensorboard", resume_at=resume_at)
    writer.write(4, {"loss": jnp.float32(0.25), "dev/accuracy": 50})
    writer.flush()
    events = _events(tmp_path / "tensorboard")
    writer.close()
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert scalars == [(4, "loss", 0.25), (4, "dev/accuracy", 50.0)]
    # Status 1 is the start of a session: TensorBoard drops what older files hold from that step on.
    assert [event.step for event in events if event.session_log.status == 1] == ([4] if resume_at else [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("kind", [JsonlWriter, TensorBoardWriter])
def test_a_full_disk_is_one_line_at_once(tmp_path, monkeypatch, kind):
    writer = kind(tmp_path / "place")
    stream = "_file" if kind is JsonlWriter else "_writer"
    holder = writer if kind is JsonlWriter else writer._writer._py_recordio_writer
    open_stream = getattr(holder, stream)
    open_stream.flush()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, open_stream.fileno())
    os.close(full)
    with pytest.raises(UserError, match="^disk full while writing .*/place: "):
        writer.write(0, {"loss": 1.0})
        writer.flush()
    with pytest.raises(UserError, match="^disk full while writing"):
        writer.close()


def test_console_writes_plain_lines_with_the_time_left():
    stream, now = io.StringIO(), [0.0]
    progress = Progress("distil", 10, start=2, interval=10, stream=stream, clock=lambda: now[0])
    writer = MultiWriter([ConsoleWriter(progress, names=["loss"])])
    for step in range(2, 10):
        now[0] += 6.0
        writer.write(step, {"loss": 0.5, "skipped": 0})
    writer.close()
    assert stream.getvalue().splitlines() == [
        "distil 3/10  loss 0.5",  # the first step compiles: it says nothing of the rate
        "distil 5/10  loss 0.5  6.0 s a step  30 s left",
        "distil 7/10  loss 0.5  6.0 s a step  18 s left",
        "distil 9/10  loss 0.5  6.0 s a step  6.0 s left",
        "distil 10/10  loss 0.5  6.0 s a step",
    ]


def test_a_pause_is_forgotten():
    stream, now = io.StringIO(), [0.0]
    progress = Progress("distil", 100, interval=10, stream=stream, clock=lambda: now[0])
    for step in range(1, 31):
        now[0] += 3600.0 if step == 5 else 10.0
        progress.update(step)
    lines = stream.getvalue().splitlines()
    assert "a step" in lines[4] and not lines[4].endswith("10 s a step  15 min 50 s left")
    assert lines[-1] == "distil 30/100  10 s a step  11 min 40 s left"


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress("distil", 4, stream=stream)
    progress.update(4, "loss 0.5")
    progress.close()
    assert "distil: 100%" in stream.getvalue() and "4/4" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0312, "0.031 s"),
        (8.44, "8.4 s"),
        (42, "42 s"),
        (112, "1 min 52 s"),
        (3600 * 3 + 300, "3 h 05 min"),
        (86400 * 2, "2 d 00 h"),
        (59.7, "1 min 00 s"),
    ],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
