"""nslkdd: XGBoost on the connection features that a gateway can see, trained on NSL-KDD.

Protocol: KDDTrain+ is cut into fit (80 %), calibration (10 %) and threshold (10 %) parts. The
design is chosen by leaving attack families and attack types out of KDDTrain+ (explore). The
threshold is the score that 5 % of the threshold part's normals reach. KDDTest+ and KDDTest-21
only report: no choice is made on them. Seed 0 ships, fixed before they were scored.
"""

import pathlib
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xgboost

from .. import data, export, metrics
from . import nslkdd_report, tutorial

NAME, VERSION = "nslkdd-xgboost", "1"
DATE = "2026-11-21"  # of the protocol and design, so that a build does not depend on the clock
RATES = (0.01, 0.02, 0.05)
SHIPPED_RATE = 0.05
SEEDS = 5
QUANTILES = [0, .01, .05, .1, .25, .5, .75, .9, .95, .98, .99, .995, .999, 1]

# Services with at least 100 normal connections in KDDTrain+: the others say "scan" by their name
# alone, which no gateway's traffic bears out.
COMMON_SERVICES = ["IRC", "auth", "domain_u", "eco_i", "ecr_i", "finger", "ftp", "ftp_data", "http",
                   "ntp_u", "other", "pop_3", "private", "smtp", "telnet", "urp_i"]
ERRORS = ["serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate",
          "dst_host_serror_rate", "dst_host_srv_serror_rate", "dst_host_rerror_rate",
          "dst_host_srv_rerror_rate", "land", "wrong_fragment", "urgent"]
SPREAD = ["diff_srv_rate", "dst_host_diff_srv_rate", "dst_host_same_src_port_rate",
          "dst_host_srv_diff_host_rate", "count", "burstiness"]
USUAL = ["same_srv_rate", "dst_host_same_srv_rate", "dst_host_srv_count"]
UP_ERRORS = dict.fromkeys(ERRORS, 1)
WIDE = {**UP_ERRORS, **dict.fromkeys(SPREAD, 1), **dict.fromkeys(USUAL, -1)}
COUNTS = {**WIDE, "srv_count": 1, "dst_host_count": 1}

CODES = data.HEADER + data.TELECOM
ONE_HOT = data.one_hot(CODES, COMMON_SERVICES)
ALL_SERVICES = data.one_hot(CODES)


@dataclass(frozen=True)
class Design:
    """A choice of columns, of the direction in which the score may move with each (monotone:
    +1 up, -1 down) and of XGBoost's parameters. weight is the power of an attack type's row
    count by which its rows are weighted down (0 all alike)."""

    columns: list = field(default_factory=lambda: ONE_HOT)
    monotone: dict = field(default_factory=lambda: WIDE)
    rounds: int = 100
    depth: int = 8
    eta: float = 0.1
    subsample: float = 1.0
    colsample: float = 1.0
    weight: float = 0.0


@dataclass(frozen=True)
class Split:
    """Row numbers of the three disjoint parts."""

    fit: np.ndarray
    calibration: np.ndarray
    threshold: np.ndarray


def split(count, seed):
    """A random 80/10/10 Split of count rows."""
    order = np.random.default_rng(seed).permutation(count)
    first, second = int(count * 0.8), int(count * 0.9)
    return Split(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


def fit(frame, design, seed):
    """A binary:logistic booster fitted on the rows of frame. One thread, so that the same seed
    gives the same trees on any number of cores."""
    rows = xgboost.QuantileDMatrix(data.features(frame, design.columns), data.labels(frame),
                                   weight=_weights(frame, design.weight), nthread=1)
    return xgboost.train({
        "objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "seed": seed,
        "base_score": 0.5, "max_depth": design.depth, "eta": design.eta,
        "subsample": design.subsample, "colsample_bytree": design.colsample,
        "monotone_constraints": tuple(design.monotone.get(c, 0) for c in design.columns),
    }, rows, design.rounds)


def predict(booster, rows):
    """Scores float32 [rows] by XGBoost itself of raw rows float32 [rows, columns]."""
    return booster.predict(xgboost.DMatrix(rows, nthread=1))


def _weights(frame, power):
    if power == 0:
        return None
    attack = (frame["label"] != "normal").to_numpy()
    weight = (frame["label"].map(frame["label"].value_counts()).to_numpy(float)) ** -power
    weight[attack] *= attack.sum() / weight[attack].sum()
    weight[~attack] = 1
    return weight


def explore(path, out, seeds=3):
    """Compares DESIGNS by leaving attacks out of KDDTrain+; writes reports/NAME/designs.csv."""
    frame = data.load_nslkdd(path, parts=("train",))[0]["train"]
    rows = []
    for name, design in DESIGNS.items():
        runs = [leave_out(frame, design, seed) for seed in range(seeds)]
        figures = metrics.mean_sd(runs)
        rows.append({"design": name, "columns": len(design.columns),
                     **{key: mean for key, (mean, _) in figures.items()},
                     "recall sd": figures["recall"][1]})
        _say(f"{name}: recall {figures['recall'][0]:.3f} ± {figures['recall'][1]:.3f}")
    target = pathlib.Path(out) / "reports" / NAME / "designs.csv"
    text = pd.DataFrame(rows).to_csv(index=False, float_format="%.4f")
    export.write(target, text.encode())
    _say(f"wrote {target}")


def leave_out(frame, design, seed):
    """Recall on attacks that were left out of training, at the shipped nominal rate.

    Nine folds: each family, and five groups of types. In each, 80 % of what is left is fitted,
    half of the other normals set the threshold, half measure the real rate. Types are averaged
    by the root of their row count, or one flood would be the whole figure.
    """
    label = frame["label"].to_numpy()
    part = np.random.default_rng(seed).random(len(frame))
    normal, recalls, rates, aucs = label == "normal", {"family": [], "type": []}, [], []
    sizes = frame["label"].value_counts()
    for kind, types in _folds(sizes):
        left = np.isin(label, types)
        booster = fit(frame[(part < 0.8) & ~left], design, seed)
        cut_on, measured = (normal & (part >= 0.8) & (part < 0.9)), normal & (part >= 0.9)
        some = cut_on | measured | left
        scores = np.full(len(frame), np.nan)
        scores[some] = predict(booster, data.features(frame[some], design.columns))
        cut = metrics.threshold(scores[cut_on], SHIPPED_RATE)
        rates.append((scores[measured] >= cut).mean())
        aucs.append(metrics.auc(left[left | measured], scores[left | measured]))
        recalls[kind] += [((scores[label == t] >= cut).mean(), sizes[t] ** 0.5) for t in types]
    mean = {}
    for kind, pairs in recalls.items():
        recall, weight = zip(*pairs)
        mean[kind] = np.average(recall, weights=weight)
    return {"family recall": mean["family"], "type recall": mean["type"],
            "recall": (mean["family"] + mean["type"]) / 2,
            "auc": np.mean(aucs), "fpr": np.mean(rates)}


def _folds(sizes):
    """(kind, types left out) of each fold; types are dealt to five groups, large ones first."""
    families = [[t for t in sizes.index if data.FAMILY.get(t) == name] for name in data.FAMILIES]
    dealt = [t for family in families for t in family]
    return ([("family", family) for family in families]
            + [("type", dealt[group::5]) for group in range(5)])


def train(path, out, seed):
    """Trains, measures over SEEDS seeds, passes the gate, writes the model and its report."""
    began = time.monotonic()
    frames, hashes = data.load_nslkdd(path)
    runs = []
    for number in range(seed, seed + SEEDS):
        runs.append(evaluate(frames, number))
        _say(f"seed {number}: KDDTest+ accuracy "
             f"{runs[-1]['test'][SHIPPED_RATE]['accuracy']:.4f}")
    tutorials = []
    for number in range(seed, seed + SEEDS):
        tutorials.append(tutorial.run(frames["train"], frames["test"], number))
        _say(f"tutorial protocol, seed {number}: own {tutorials[-1]['own']['accuracy']:.4f}, "
             f"KDDTest+ {tutorials[-1]['test']['accuracy']:.4f}")
    blob, measured = build(frames, hashes, runs, seed)
    out = pathlib.Path(out)
    export.write(out / f"{NAME}.onnx", blob)
    _say(f"wrote {out / NAME}.onnx: {measured['bytes']:,} bytes; largest difference from "
         f"XGBoost {measured['difference']:.1e} on {measured['rows']:,} rows")
    for batch, spent in export.speed(blob, runs[0]["rows"]).items():
        _say(f"batch {batch}: {spent:,.0f} ns/row on one core")
    importance, unused = gains(runs[0]["booster"])
    nslkdd_report.write(out / "reports", nslkdd_report.Results(
        name=NAME, seed=seed, rate=SHIPPED_RATE, rates=RATES, design=DESIGN,
        design_name=DESIGN_NAME, frames=frames, hashes=hashes, runs=runs, tutorials=tutorials,
        measured=measured, importance=importance, unused=unused))
    _say(f"wrote {out / 'reports' / NAME}.md; {time.monotonic() - began:.0f} s in all")


def evaluate(frames, seed):
    """One seed: the booster, its parts' scores, its thresholds, and figures on both test files."""
    frame, parts = frames["train"], split(len(frames["train"]), seed)
    normal = frame["label"] == "normal"
    booster = fit(frame.iloc[parts.fit], DESIGN, seed)
    held = {name: predict(booster, data.features(rows[rows["label"] == "normal"], DESIGN.columns))
            for name, rows in (("calibration", frame.iloc[parts.calibration]),
                               ("threshold", frame.iloc[parts.threshold]))}
    typical = np.median(data.features(frame.iloc[parts.fit][normal.iloc[parts.fit]],
                                      DESIGN.columns), axis=0)
    cuts = {rate: metrics.threshold(held["threshold"], rate) for rate in RATES}
    seen = set(frame["label"])
    run = {"seed": seed, "booster": booster, "held": held, "typical": typical, "cuts": cuts}
    for name in ("test", "test21"):
        rows = data.features(frames[name], DESIGN.columns)
        scores, truth = predict(booster, rows), data.labels(frames[name])
        known = frames[name]["label"].isin(seen).to_numpy()
        run[name] = {"auc": metrics.auc(truth, scores), "scores": scores}
        for rate, cut in {**cuts, None: 0.5}.items():  # None: the usual .5
            called, attack = scores >= cut, truth == 1
            run[name][rate] = {**metrics.at_threshold(truth, scores, cut),
                               "seen": float(called[attack & known].mean()),
                               "unseen": float(called[attack & ~known].mean()),
                               "nominal": float((held["calibration"] >= cut).mean())}
        if name == "test":
            run["rows"] = rows
    return run


def build(frames, hashes, runs, seed):
    """Serialised model of the first run, through the gate, and what the gate measured."""
    run = runs[0]
    booster, cut = run["booster"], run["cuts"][SHIPPED_RATE]
    trees = export.from_xgboost(booster)
    golden = golden_rows(frames["train"], split(len(frames["train"]), seed), seed)
    contract = export.Contract(
        name=NAME, version=VERSION, row="connection", features=DESIGN.columns, threshold=cut,
        typical=run["typical"].tolist(),
        calibration={"quantiles": QUANTILES,
                     "scores": np.quantile(run["held"]["calibration"], QUANTILES).tolist()},
        golden={"rows": golden.tolist(), "scores": predict(booster, golden).tolist()},
        training=provenance(hashes, runs, seed))
    hard = export.synthetic(run["rows"], trees, 20_000, seed)
    return export.gate(export.tree_model(trees, contract), lambda rows: predict(booster, rows),
                       np.vstack([run["rows"], hard]))


def golden_rows(frame, parts, seed):
    """float32 [14, columns]: six normals, six attacks of different types, zeros, extremes."""
    fit_part = frame.iloc[parts.fit]
    chosen = [fit_part[fit_part["label"] == "normal"].sample(6, random_state=seed)]
    for label in ("neptune", "smurf", "portsweep", "satan", "warezclient", "guess_passwd"):
        chosen.append(fit_part[fit_part["label"] == label].sample(1, random_state=seed))
    real = data.features(pd.concat(chosen), DESIGN.columns)
    return np.vstack([real, np.zeros_like(real[:1]), np.full_like(real[:1], 2.0 ** 32)])


def gains(booster):
    """(column, share of the total gain) of the columns with splits, largest first; the others."""
    gain = booster.get_score(importance_type="total_gain")
    by_column = {column: gain.get(f"f{i}", 0) for i, column in enumerate(DESIGN.columns)}
    total = sum(by_column.values())
    used = sorted(((column, value / total) for column, value in by_column.items() if value),
                  key=lambda pair: -pair[1])
    return used, [column for column, value in by_column.items() if not value]


def provenance(hashes, runs, seed):
    """picket.training: data, protocol and figures, rounded to four decimals."""
    def rounded(figures):
        return {name: [round(mean, 4), round(sd, 4)] for name, (mean, sd) in figures.items()}
    measured = {}
    for key, file in (("test", "KDDTest+"), ("test21", "KDDTest-21")):
        figures = metrics.mean_sd([{**r[key][SHIPPED_RATE], "auc": r[key]["auc"]} for r in runs])
        figures.pop("nominal")
        measured[file] = rounded(figures)
    shipped = {key: round(runs[0]["test"][SHIPPED_RATE][key], 4)
               for key in ("accuracy", "f1", "precision", "recall", "fpr")}
    return {"data": "NSL-KDD KDDTrain+", "sha256": hashes["KDDTrain+.txt"], "date": DATE,
            "seed": seed, "nominal_fpr": SHIPPED_RATE,
            "protocol": "80 % fit, 10 % calibration, 10 % threshold; design chosen by leaving "
                        "attack families and types out of KDDTrain+",
            "metrics": {"seeds": len(runs), "values": "mean, standard deviation", **measured},
            "this_model": {"KDDTest+": shipped}}


def _say(text):
    print(text, file=sys.stderr, flush=True)


DESIGNS = {
    "codes, free": Design(columns=CODES, monotone={}),
    "all services one-hot, free": Design(columns=ALL_SERVICES, monotone={}),
    "16 services one-hot, free": Design(monotone={}),
    "no telecom columns, wide monotone": Design(columns=data.one_hot(data.HEADER,
                                                                     COMMON_SERVICES)),
    "monotone errors": Design(monotone=UP_ERRORS),
    "wide monotone": Design(),
    "wide monotone, sampled": Design(subsample=.7, colsample=.7),
    "wide monotone and counts, sampled": Design(monotone=COUNTS, subsample=.7, colsample=.7),
    "wide monotone, sampled, rare types weighted up": Design(subsample=.7, colsample=.7,
                                                             weight=.25),
    "wide monotone, sampled, depth 5": Design(subsample=.7, colsample=.7, depth=5),
    "wide monotone, sampled, 200 rounds": Design(subsample=.7, colsample=.7, rounds=200),
    "wide monotone, sampled, 50 rounds": Design(subsample=.7, colsample=.7, rounds=50),
}
DESIGN_NAME = "wide monotone, sampled"
DESIGN = DESIGNS[DESIGN_NAME]
