"""Markdown tables and small plots that every recipe's report uses."""

import pathlib
import re
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

BLUE, RED, ORANGE, GREY = "#30638e", "#b23a48", "#e09f3e", "#8d99ae"
COLOURS = (BLUE, ORANGE, "#4c956c", "#7b5ea7", RED, "#2a9d8f", "#6d6875", "#000000")


def table(header, rows):
    """A Markdown table; every column but the first is right-aligned."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(pair):
    """'.925 ± .005' from a mean and a standard deviation."""
    return " ± ".join(share(value) for value in pair)


def share(value):
    """'.925' from .9251, '1.000' from 1."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def percent(rate):
    """'5 %' from .05."""
    return f"{rate * 100:g} %"


def prose(text, width=100):
    """Markdown with its paragraphs and list items wrapped; tables, headings and code stay."""
    out = []
    for number, part in enumerate(re.split(r"(?m)^(```.*?^```)$", text.strip(), flags=re.S)):
        if number % 2:  # code
            out.append(part)
            continue
        for block in filter(None, map(str.strip, re.split(r"\n{2,}", part))):
            if block[0] in "|#!":
                out.append(block)
                continue
            items = re.split(r"\n(?=- )", block)
            out.append("\n".join(textwrap.fill(
                " ".join(item.split()), width, subsequent_indent="  " if item.startswith("- ") else "",
                break_long_words=False, break_on_hyphens=False) for item in items))
    return "\n\n".join(out)


def roc(path, curves, points):
    """curves: (name, truth, scores) …, at most eight; points: (nominal rate, real rate, recall) …"""
    plot = axes("False-positive rate", "Recall")
    for (name, truth, scores), colour in zip(curves, COLOURS):
        false, hit, _ = roc_curve(truth, scores)
        plot.plot(false, hit, color=colour, label=name)
    for (name, false, hit), marker in zip(points, "os^"):
        plot.plot(false, hit, marker, color=RED, markersize=5, label=f"nominal {name}")
    plot.plot([0, 1], [0, 1], "--", color=GREY, linewidth=.8, label="chance")
    plot.legend(loc="lower right", frameon=False, fontsize=8)
    save(path)


def precision_recall(path, curves):
    """curves: (name, truth, scores) …; a dotted line marks the share of attacks in each."""
    plot = axes("Recall", "Precision")
    for (name, truth, scores), colour in zip(curves, (BLUE, ORANGE)):
        precision, recall, _ = precision_recall_curve(truth, scores)
        plot.plot(recall, precision, color=colour, label=name)
        plot.axhline(np.mean(truth), color=colour, linestyle=":", linewidth=.8)
    plot.set_ylim(0, 1.03)
    plot.legend(loc="lower left", frameon=False)
    save(path)


def confusion(path, truth, called):
    """Counts and row shares of normal and attack, called normal and anomalous."""
    counts = np.array([[((truth == row) & (called == column)).sum() for column in (0, 1)]
                       for row in (0, 1)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    plot = axes("Called", "Truth")
    plot.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in (0, 1):
        for column in (0, 1):
            plot.text(column, row, f"{counts[row, column]:,}\n{shares[row, column]:.1%}",
                      ha="center", va="center",
                      color="white" if shares[row, column] > .5 else "black")
    plot.set_xticks([0, 1], ["normal", "anomalous"])
    plot.set_yticks([0, 1], ["normal", "attack"], rotation=90, va="center")
    save(path)


def histogram(path, groups, cut, log_odds=True):
    """groups: (name, scores) …, drawn as shares on a logarithmic axis; cut is the threshold."""
    plot = axes("Score (log-odds scale)" if log_odds else "Score", "Share of the group's rows")
    place = _log_odds if log_odds else np.asarray
    edges = np.linspace(-12, 10, 56) if log_odds else np.linspace(0, 1, 61)
    for (name, scores), colour in zip(groups, (BLUE, RED, ORANGE)):
        plot.hist(place(scores).clip(edges[0], edges[-1]), bins=edges,
                  weights=np.full(len(scores), 1 / len(scores)), histtype="step", linewidth=1.3,
                  color=colour, label=f"{name} ({len(scores):,})")
    plot.axvline(place(cut), color="black", linestyle="--", linewidth=.8, label=f"threshold {cut:.4f}")
    if log_odds:
        ticks = np.array([1e-5, 1e-4, 1e-3, .01, .1, .5, .9, .99, .999, .9999])
        plot.set_xticks(_log_odds(ticks), [f"{tick:g}" for tick in ticks], rotation=45, fontsize=8)
    plot.set_yscale("log")
    plot.set_ylim(1e-4, 30)
    plot.legend(loc="upper left", frameon=False, fontsize=8)
    save(path)


def bars(path, label, names, means, spreads):
    """Horizontal bars 0 to 1 with their standard deviations."""
    plot = axes(label, "")
    at = np.arange(len(names))[::-1]
    plot.barh(at, means, xerr=spreads, color=BLUE, ecolor="black", capsize=3, height=.6)
    for y, mean in zip(at, means):
        plot.text(.02, y, share(mean), va="center", color="white", fontsize=8)
    plot.set_yticks(at, names)
    plot.set_xlim(0, 1.03)
    save(path)


def _log_odds(score):
    score = np.clip(np.asarray(score, float), 1e-12, 1 - 1e-12)
    return np.log(score / (1 - score))


def axes(x, y, size=(5.2, 3.9)):
    """One empty plot with its axes named; size in inches."""
    _, axes = plt.subplots(figsize=size, layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save(path):
    """Writes the open plot as a PNG and closes it."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=90, metadata={"Software": None})  # same pixels, same bytes
    plt.close()
