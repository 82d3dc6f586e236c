"""Figures of the report. Each function returns a matplotlib figure that belongs to no global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SAMPLES = 8
_ACCENT, _GREY, _DARK, _SECOND = "#2563eb", "#94a3b8", "#334155", "#d97706"
_SERIES = (_ACCENT, _SECOND, "#059669", "#7c3aed", "#dc2626", _GREY)
Points = tuple[np.ndarray, np.ndarray]


def embed(figure: Figure) -> str:
    """A figure as the `src` of an image: SVG in base64, letters drawn as outlines, the same bytes every time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "jaxdistill", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def series(metrics: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(steps, values) of one metric; values that are not finite are left out."""
    pairs = [(line["step"], float(line[name])) for line in metrics if line.get(name) is not None]
    pairs = [pair for pair in pairs if np.isfinite(pair[1])]
    return np.asarray([step for step, _ in pairs]), np.asarray([value for _, value in pairs])


def smooth(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centred running mean over about a twentieth of the points, narrower at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def score_bars(scores: Mapping[str, Mapping[str, Any]], method: str, metric: str) -> Figure:
    """One bar a method, with its 95 % interval; `method` stands out.

    Args:
      scores: name to entry of `result.json` ("mean" and, possibly `None`, "ci95"), in percent, top to bottom.
      method: which bar to colour.
      metric: for the axis.
    """
    figure, (axes,) = _canvas(7.2, 0.7 + 0.42 * len(scores))
    for row, (name, score) in enumerate(scores.items()):
        mean, interval = float(score["mean"]), score.get("ci95")
        axes.barh(row, mean, height=0.62, color=_ACCENT if name == method else _GREY)
        end = mean
        if interval is not None:
            low, high = interval
            axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color=_DARK, capsize=3, linewidth=1.2)
            end = max(mean, high)
        axes.text(end + 1.2, row, f"{mean:.1f}", va="center", color=_DARK)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"test {metric} (%)")
    axes.tick_params(axis="y", length=0)
    return figure


def curves(losses: Points, developments: Mapping[str, Points]) -> Figure:
    """Outer loss (raw, faint, and smoothed) beside the development scores, over the outer steps."""
    has_losses = len(losses[0]) > 0
    columns = int(has_losses) + bool(developments)
    figure, panes = _canvas(7.2 if columns == 1 else 9.6, 3.2, columns=columns)
    if has_losses:
        pane = panes[0]
        steps, values = losses
        pane.plot(steps, values, color=_ACCENT, alpha=0.25, linewidth=0.8)
        pane.plot(steps, smooth(values), color=_ACCENT, linewidth=1.8)
        # A few early spikes should not flatten the rest.
        top = float(np.quantile(values, 0.98))
        bottom = float(values.min())
        if values.max() > 3 * max(top, 1e-12):
            pane.set_ylim(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom))
        pane.set(xlabel="outer step", ylabel="loss")
    if developments:
        pane = panes[-1]
        for index, (name, (steps, values)) in enumerate(developments.items()):
            colour = _SERIES[index % len(_SERIES)]
            pane.plot(steps, values, color=colour, marker="o", markersize=3.5, linewidth=1.5, label=name)
        pane.set(xlabel="outer step", ylabel="development score")
        pane.legend(frameon=False)
    return figure


def learning_rates(names: Sequence[str], values: Float[np.ndarray, "t g"]) -> Figure:
    """Step sizes: bars by step or by group when the other is single, else a map of both."""
    steps, groups = values.shape
    labels = [f"step {step}" for step in range(steps)] if groups == 1 else list(names)
    if 1 in (steps, groups):
        figure, (axes,) = _canvas(7.2, 0.7 + 0.28 * max(steps, groups))
        sizes = values[:, 0] if groups == 1 else values[0]
        axes.barh(range(len(sizes)), sizes, height=0.65, color=_ACCENT)
        for row, size in enumerate(sizes):
            axes.text(size, row, f" {size:.3g}", va="center", color=_DARK)
        axes.set_yticks(range(len(sizes)), labels)
        axes.set_xlim(0, 1.15 * float(sizes.max()))
        axes.set_xlabel("learning rate")
        axes.invert_yaxis()
        return figure
    from matplotlib.colors import LogNorm

    figure, (axes,) = _canvas(2.2 + 0.4 * min(steps, 24), 0.9 + 0.28 * groups)
    positive = np.maximum(values, 1e-12)
    norm = LogNorm(float(positive.min()), max(float(positive.max()), 1.0001 * float(positive.min())))
    image = axes.pcolormesh(positive.T, cmap="Blues", norm=norm)
    axes.set_yticks(np.arange(groups) + 0.5, labels)
    # At most about a dozen step numbers, whole ones.
    shown = np.arange(0, steps, max(1, steps // 12))
    axes.set_xticks(shown + 0.5, [str(step) for step in shown])
    axes.set_xlabel("inner step")
    axes.invert_yaxis()
    figure.colorbar(image, ax=axes, label="learning rate")
    return figure


def attention(scores: Float[np.ndarray, "n k h q l"], names: Sequence[str]) -> Figure:
    """Softmax of the first query row's scores, mean over heads: layers against positions, one panel a sample."""
    rows = scores[:, :, :, 0, :]
    rows = np.exp(rows - rows.max(axis=-1, keepdims=True))
    maps = (rows / rows.sum(axis=-1, keepdims=True)).mean(axis=2)
    columns = min(2, len(maps))
    lines = -(-len(maps) // columns)
    figure, panes = _canvas(4.8 * columns, 0.5 + (0.75 + 0.13 * maps.shape[1]) * lines, rows=lines, columns=columns)
    meshes = []
    for index, (pane, image) in enumerate(zip(panes, maps, strict=False)):
        meshes.append(pane.pcolormesh(image, cmap="Blues", vmin=0.0, vmax=float(maps.max())))
        pane.set_title(f"sample {index}: {_plain_text(names[index])}", fontsize=9, loc="left")
        pane.set_ylabel("layer")
        ticks = np.arange(0, maps.shape[1], max(1, maps.shape[1] // 6))
        pane.set_yticks(ticks + 0.5, [str(tick) for tick in ticks])
        pane.invert_yaxis()
    for pane in panes[len(maps) :]:
        pane.set_visible(False)
    panes[len(maps) - 1].set_xlabel("position")
    figure.colorbar(meshes[0], ax=panes, label="attention", fraction=0.03)
    return figure


def receiver_operating(scores: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Share of members above each threshold, over the share of others above it, both logarithmic.

    Args:
      scores: name of an attack to its scores of members and of others.
    """
    figure, (axes,) = _canvas(5.4, 4.2)
    least = 0.5
    for (name, (members, others)), colour in zip(scores.items(), _SERIES, strict=False):
        thresholds = np.unique(np.concatenate([members, others]))
        found = 1.0 - np.searchsorted(np.sort(members), thresholds, "left") / len(members)
        mistaken = 1.0 - np.searchsorted(np.sort(others), thresholds, "left") / len(others)
        least = min(least, 1.0 / len(others))
        axes.plot(np.maximum(mistaken, 1e-9), np.maximum(found, 1e-9), color=colour, linewidth=1.5, label=name)
    axes.plot([least, 1.0], [least, 1.0], color=_GREY, linewidth=1.0, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=(least, 1.0), ylim=(least, 1.05))
    axes.set(xlabel="others taken for members", ylabel="members found")
    axes.legend(frameon=False)
    return figure


def _canvas(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of that many inches, and its panes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    panes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for pane in panes:
        pane.spines[["top", "right"]].set_visible(False)
        pane.tick_params(labelsize=9)
    return figure, panes


def _plain_text(text: str) -> str:
    # A dollar sign would start a formula.
    return text.replace("$", r"\$")
