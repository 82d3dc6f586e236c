"""Texts and labels as a parquet table, and back."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def write_table(
    texts: Sequence[tuple[str, ...]],
    text_columns: Sequence[str],
    labels: Int[np.ndarray, " n"],
    label_names: Sequence[str],
    soft_labels: Float[np.ndarray, "n c"] | None,
) -> bytes:
    """The bytes of a parquet file with the text columns, `label`, `label_name` and, if given, `soft_label`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array([sample[i] for sample in texts], pa.string()) for i, name in enumerate(text_columns)}
    columns["label"] = pa.array(np.asarray(labels, np.int64))
    columns["label_name"] = pa.array([label_names[label] for label in labels], pa.string())
    if soft_labels is not None:
        columns["soft_label"] = pa.array(np.asarray(soft_labels, np.float32).tolist(), pa.list_(pa.float32()))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def read_table(
    data: bytes, text_columns: Sequence[str]
) -> tuple[list[tuple[str, ...]], Int[np.ndarray, " n"], Float[np.ndarray, "n c"] | None]:
    """Texts, hard labels and soft labels (or `None`) of a file that `write_table` made.

    Raises:
      ValueError: the bytes are no such table; the message completes "<file> ...".
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"is not a parquet file ({str(error).splitlines()[0]})") from None
    if not table.num_rows:
        raise ValueError("holds no rows")
    for name in (*text_columns, "label"):
        if name not in table.column_names:
            raise ValueError(f"lacks the column {name!r}; it has {', '.join(table.column_names)}")
        if table.column(name).null_count:
            raise ValueError(f"holds nulls in the column {name!r}")
    if not pa.types.is_integer(table.schema.field("label").type):
        raise ValueError(f"holds {table.schema.field('label').type} in the column 'label'; expected whole numbers")
    texts = list(zip(*(table.column(name).to_pylist() for name in text_columns), strict=True))
    labels = np.asarray(table.column("label").to_pylist(), np.int32)
    if "soft_label" not in table.column_names:
        return texts, labels, None
    rows = table.column("soft_label").to_pylist()
    if any(row is None or len(row) != len(rows[0]) for row in rows):
        raise ValueError("holds soft labels of different lengths")
    return texts, labels, np.asarray(rows, np.float32)
