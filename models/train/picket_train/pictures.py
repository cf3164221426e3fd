"""The pictures of explore: what a data set looks like before any model sees it."""

import pathlib

import numpy as np
import pandas as pd
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from . import export, report
from .report import plt

CORE = {10: "AMF", 11: "SMF", 12: "UPF", 13: "AUSF"}


def classes(path, names, counts):
    """Bars of row counts by class."""
    axes = report.axes("", "Rows", size=(4.2, 3))
    axes.bar(names, counts, color=[report.BLUE, *[report.RED] * (len(names) - 1)])
    for x, count in enumerate(counts):
        axes.text(x, count, f"{count:,}", ha="center", va="bottom", fontsize=8)
    report.save(path)


def correlation(path, frame):
    """Heat map of the columns that vary."""
    frame = frame.loc[:, frame.nunique() > 1]
    values = frame.corr().to_numpy()
    axes = report.axes("", "", size=(7.6, 6.6))
    image = axes.imshow(values, cmap="coolwarm", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(frame.columns)), frame.columns, rotation=90, fontsize=5.5)
    axes.set_yticks(range(len(frame.columns)), frame.columns, fontsize=5.5)
    plt.colorbar(image, ax=axes, shrink=.8)
    report.save(path)


def distributions(path, frame, attack, names, logs):
    """Histograms of some columns, normals and anomalies apart, as shares."""
    across = 4
    down = -(-len(names) // across)
    figure, grid = plt.subplots(down, across, figsize=(9, 1.75 * down), layout="constrained")
    for axes, name in zip(grid.ravel(), names):
        values = np.log10(1 + frame[name]) if name in logs else frame[name]
        edges = np.linspace(values.min(), values.max() + 1e-9, 31)
        for mask, colour in ((~attack, report.BLUE), (attack, report.RED)):
            axes.hist(values[mask], bins=edges, weights=np.full(mask.sum(), 1 / mask.sum()),
                      histtype="step", color=colour, linewidth=1)
        axes.set_title(f"log10(1 + {name})" if name in logs else name, fontsize=7)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.ravel()[len(names):]:
        axes.axis("off")
    figure.supylabel("share of the class (blue normal, red anomalous)", fontsize=7)
    report.save(path)


def projection(path, rows, groups, seed=0):
    """First two principal components of standardised rows; returns them and the shares of variance.
    groups: (name, mask, colour) …"""
    pca = PCA(2, random_state=seed, svd_solver="full")
    points = pca.fit_transform(StandardScaler().fit_transform(rows))
    shares = pca.explained_variance_ratio_
    axes = report.axes(f"first component ({shares[0]:.0%} of the variance)",
                       f"second component ({shares[1]:.0%})")
    low, high = np.quantile(points, [.002, .998], axis=0)
    pick = np.random.default_rng(seed).random(len(points)) < 6000 / len(points)
    for name, mask, colour in groups:
        axes.scatter(*points[mask & pick].T, s=5, alpha=.4, linewidths=0, color=colour, label=name)
    axes.set_xlim(low[0] - .5, high[0] + .5)
    axes.set_ylim(low[1] - .5, high[1] + .5)
    axes.legend(frameon=False, markerscale=3, fontsize=8)
    report.save(path)
    return points, shares


def by_group(path, label, table):
    """Bars of normal and anomalous rows by group, on a logarithmic axis. table: index group."""
    axes = report.axes(label, "Rows", size=(6.4, 3))
    at = np.arange(len(table))
    for shift, (column, colour) in zip((-.2, .2), (("normal", report.BLUE), ("attack", report.RED))):
        axes.bar(at + shift, table[column], .4, color=colour, label=column)
        for x, count in zip(at + shift, table[column]):
            axes.text(x, max(count, .7), f"{count:,}", ha="center", va="bottom", fontsize=6.5)
    axes.set_yscale("log")
    axes.set_ylim(.7, table.to_numpy().max() * 3)
    axes.set_xticks(at, table.index)
    axes.legend(frameon=False, fontsize=8)
    report.save(path)


def boxes(path, label, groups):
    """Box plots on a logarithmic axis. groups: (name, values) …"""
    axes = report.axes("", label, size=(6, 3))
    axes.boxplot([values + 1e-3 for _, values in groups], whis=(5, 95), showfliers=False)
    axes.set_xticks(range(1, len(groups) + 1), [name for name, _ in groups], fontsize=7)
    axes.set_yscale("log")
    report.save(path)


def clusters(points, truth, eps, least):
    """DBSCAN on standardised rows; rows of (cluster, size, share of anomalies), largest first, and
    the share of noise."""
    found = DBSCAN(eps=eps, min_samples=least, n_jobs=1).fit_predict(points)
    table = [(int(c), int((found == c).sum()), float(truth[found == c].mean()))
             for c in np.unique(found)]
    return found, sorted(table, key=lambda row: -row[1])


def nslkdd(folder, frame, config):
    """reports/nslkdd-explore.md and its pictures, from KDDTrain+ as the second notebook sees it."""
    from . import data
    from .recipes import notebook

    here = pathlib.Path(folder) / "nslkdd-explore"
    attack = (frame["label"] != "normal").to_numpy()
    encoded, _, dropped = notebook.encode(frame, frame)
    families = frame["label"].map(data.FAMILY).fillna("normal")
    names = ["normal", *data.FAMILIES]
    counts = [int((families == name).sum()) for name in names]
    classes(here / "classes.png", names, counts)
    correlation(here / "correlation.png", encoded)
    shown = ["duration", "src_bytes", "dst_bytes", "count", "srv_count", "serror_rate", "rerror_rate",
             "same_srv_rate", "diff_srv_rate", "dst_host_count", "dst_host_srv_count",
             "dst_host_same_srv_rate", "dst_host_same_src_port_rate", "logged_in", "burstiness",
             "symmetry_ratio"]
    distributions(here / "distributions.png", encoded.assign(**{n: frame[n] for n in shown if n not in encoded}),
                  attack, shown, config["columns"]["logs"])
    _, shares = projection(here / "pca.png", encoded,
                           [("normal", ~attack, report.BLUE), ("attack", attack, report.RED)])
    protocols = pd.crosstab(frame["protocol_type"], np.where(attack, "attack", "normal"))
    protocols = protocols.reindex(data.PROTOCOLS + ["gtp", "sip", "diameter", "other"], fill_value=0)
    by_group(here / "protocols.png", "protocol", protocols[["normal", "attack"]])
    core = encoded["service"].isin(list(CORE))
    common = frame["service"].value_counts().index[:6]
    boxes(here / "burstiness.png", "burstiness (1/s)",
          [(f"{service}\n{kind}", encoded["burstiness"][(frame["service"] == service) & (attack == mask)])
           for service in common for kind, mask in (("normal", False), ("attack", True))
           if ((frame["service"] == service) & (attack == mask)).sum() >= 20])
    sample = np.random.default_rng(0).choice(len(frame), min(8000, len(frame)), replace=False)
    some = StandardScaler().fit_transform(encoded.iloc[sample])
    found, table = clusters(some, attack[sample], 2.0, 20)
    rows = [["noise" if c < 0 else c, f"{size:,}", report.share(rate),
             _commonest(frame["label"].iloc[sample[found == c]])] for c, size, rate in table[:12]]
    noise = next((size for c, size, _ in table if c < 0), 0) / len(sample)
    total = len(frame)
    text = f"""
# Exploring NSL-KDD (KDDTrain+)

{total:,} connections, {attack.mean():.1%} of them attacks. Codes, columns and scaling are those of the
second notebook.

## Class balance

The classes are nearly balanced, so SMOTE has little to add ({(~attack).sum() - attack.sum():,} rows).
What is unbalanced is inside the attacks: {', '.join(f'{n} {c:,}' for n, c in zip(names, counts))};
neptune alone is {(frame['label'] == 'neptune').sum():,} rows.

![classes](nslkdd-explore/classes.png)

## Correlation

Columns that correlate above .95 with an earlier one, which the second notebook drops:
{', '.join(f'`{c}`' for c in dropped)}. `num_outbound_cmds` is 0 throughout.

![correlation](nslkdd-explore/correlation.png)

## Distributions

![distributions](nslkdd-explore/distributions.png)

## Two principal components

They carry {shares[0]:.0%} and {shares[1]:.0%} of the variance: floods and scans (errors) lie apart
from normal traffic; the rest lies within it.

![PCA](nslkdd-explore/pca.png)

## Attacks by protocol

GTP, SIP and Diameter do not occur: NSL-KDD was recorded in 1998.

![protocols](nslkdd-explore/protocols.png)

## Burstiness by 5G core service

**NSL-KDD has no 5G core service.** {int(core.sum())} rows are AMF, SMF, UPF or AUSF: the second
notebook's box plot of them is empty, `service_10_traffic` to `service_13_traffic` and `is_signaling`
are 0 in every row, and {(encoded['service'] == 99).mean():.0%} of the rows become service 99. What can
be shown is burstiness of the six commonest services there are:

![burstiness](nslkdd-explore/burstiness.png)

## DBSCAN

{len(sample):,} rows drawn at random, standardised, eps 2.0, at least 20 rows: {len(table) - (noise > 0)}
clusters, {noise:.1%} noise. The largest:

{report.table(["cluster", "rows", "share of attacks", "commonest labels"], rows)}

Most clusters are nearly pure, so a neighbourhood says what a row is, as long as the attack is among
those seen. Clusters are no detector of new attacks: noise is attack in
{report.share(next((rate for c, _, rate in table if c < 0), 0.0))} of its rows."""
    _write(folder, "nslkdd-explore", text)


def iot(folder, frame, names):
    """reports/iot-explore.md and its pictures."""
    here = pathlib.Path(folder) / "iot-explore"
    truth = frame["label"].to_numpy()
    attack = truth == 1
    classes(here / "classes.png", ["normal", "anomalous"], [int((~attack).sum()), int(attack.sum())])
    correlation(here / "correlation.png", frame.astype(float))
    shown = [n for n in names if "=" not in n]
    raw = frame.set_axis(names + ["label"], axis=1)
    distributions(here / "distributions.png", raw, attack, shown, [])
    _, shares = projection(here / "pca.png", raw[names],
                           [("normal", ~attack, report.BLUE), ("anomalous", attack, report.RED)])
    kinds = [n for n in names if n.startswith("protocol_type=")]
    table = pd.DataFrame({"normal": [int((raw[n].astype(bool) & ~attack).sum()) for n in kinds],
                          "attack": [int((raw[n].astype(bool) & attack).sum()) for n in kinds]},
                         index=[n.split("=")[1] for n in kinds])
    by_group(here / "protocols.png", "protocol (a row in neither is ICMP)", table)
    constant = [n for n in names if frame[n].nunique() == 1]
    shown = [n for n in shown if n not in constant and not n.endswith("_port")]
    means = [[f"`{n}`", report.share(raw[n][~attack].mean()), report.share(raw[n][attack].mean())]
             for n in shown]
    found, groups = clusters(StandardScaler().fit_transform(raw[names]), truth, 2.5, 10)
    rows = [["noise" if c < 0 else c, f"{size:,}", report.share(rate)] for c, size, rate in groups[:12]]
    text = f"""
# Exploring the IoT and telecom data set

{len(frame):,} rows, {attack.mean():.0%} anomalous, {frame.shape[1] - 1} columns without addresses. All but the
ports were scaled to 0..1 before publication; the raw units are lost. {', '.join(f'`{n}`' for n in constant)}
is the same in every row.

![classes](iot-explore/classes.png)

Means by class hardly differ:

{report.table(["column", "normal", "anomalous"], means)}

![distributions](iot-explore/distributions.png)

No two measured columns correlate; what stands out belongs to one-hot columns of one category.

![correlation](iot-explore/correlation.png)

Two principal components carry {shares[0]:.0%} and {shares[1]:.0%} of the variance; the anomalies lie
among the normals:

![PCA](iot-explore/pca.png)

![protocols](iot-explore/protocols.png)

DBSCAN (standardised, eps 2.5, at least 10 rows) finds no group of anomalies: about a tenth of whatever it
finds is anomalous.

{report.table(["cluster", "rows", "share of anomalies"], rows)}

NSL-KDD's pictures of 5G core services have no counterpart here: there is no service column."""
    _write(folder, "iot-explore", text)


def _commonest(labels):
    return ", ".join(f"{name} {count:,}" for name, count in labels.value_counts().head(3).items())


def _write(folder, name, text):
    text = "\n\n".join([report.prose(text)]) + "\n"
    export.write(pathlib.Path(folder) / f"{name}.md", text.encode())
