"""captures: models of connections as gateways see them, trained on rows that Picket itself extracts.

Protocol: fitted on the lab's captures and on those of captures/train whose licence lets a model ship.
Every choice is made on folds that leave out attack tools, and devices, captures and repositories of normal
traffic; a threshold is set on the highest score of each held-out normal capture. Captures of captures/train
of other licences are never trained on: they are a second, foreign validation. captures/test only reports.
"""

import hashlib
import json
import pathlib
import subprocess
import time

import numpy as np
import pandas as pd
import xgboost

from .. import detectors, export
from .. import captures as scans
from ..data import DataError
from ..work import Work, say
from . import captures_report, captures_rows

PICKET = "build/picket"
QUANTILES = [0, .01, .05, .1, .25, .5, .75, .9, .95, .98, .99, .995, .999, 1]


def codes(picket):
    """The values of the coded features by name, of a picket's dictionary."""
    known = json.loads(subprocess.run([picket, "features", "--json"], capture_output=True, check=True).stdout)
    return {f["name"]: f["one_hot"] for f in known if f.get("one_hot")}


def columns(config):
    """The models' columns."""
    return config["columns"]["rises"] + config["columns"]["others"]


def matrix(frame, names, codes):
    """Raw values as the runtime hands them over: float32 [rows, columns]."""
    out = np.empty((len(frame), len(names)), np.float32)
    for i, name in enumerate(names):
        feature, _, value = name.partition("=")
        cells = frame[feature].to_numpy()
        out[:, i] = cells == codes[feature].index(value) if value else cells
    return out


def clamp(rows, names, config):
    """Rows with the cells beyond the recipe's limits put at them."""
    rows = rows.copy()
    for name, limit in config["columns"]["most"].items():
        rows[:, names.index(name)] = np.minimum(rows[:, names.index(name)], np.float32(limit))
    return rows


def raised(normal, weight, names, config):
    """Made-up attacks: normal rows, drawn by their weight, each with one column beyond all of them."""
    told, rng, parts = config["raised"], np.random.default_rng(config["seed"]), []
    for name in told["columns"]:
        at = names.index(name)
        rows = normal[rng.choice(len(normal), told["rows"], p=weight / weight.sum())]
        factor = np.exp(rng.uniform(*np.log(told["factor"]), told["rows"]))
        rows[:, at] = max(normal[:, at].max(), told["least"]) * factor
        parts.append(rows)
    return np.vstack(parts)


def floods(normal, names, config):
    """Made-up ICMP floods: normal ICMP rows with many packets at a high rate, half of them answered."""
    told, rng = config["raised"]["icmp"], np.random.default_rng(config["seed"])
    at = {name: place for place, name in enumerate(names)}
    pings = normal[normal[:, at["protocol_type=icmp"]] == 1]
    if not len(pings):
        return pings
    rows = pings[rng.choice(len(pings), told["rows"])]
    packets, rate, size = (np.exp(rng.uniform(*np.log(told[key]), told["rows"])) for key in ("packets", "rate", "size"))
    answered = rng.random(told["rows"]) < .5
    for name, cells in {"fwd_packets": packets, "bwd_packets": packets * answered, "src_bytes": packets * size,
                        "dst_bytes": packets * size * answered, "packet_rate": rate,
                        "flow_duration": packets * (1 + answered) / rate}.items():
        rows[:, at[name]] = cells
    return rows


def weights(frame, config):
    """Row weights: a capture's rows of one kind and play together count as the root of their number."""
    told = config["weights"]
    size = frame.groupby(["name", "label", "kind", "play"])["label"].transform("size").to_numpy(float)
    weight = size ** -0.5
    for word, share in told["plays"].items():
        weight[frame["play"].str.contains(word)] *= share
    attack = (frame["label"] == 1).to_numpy()
    weight[attack] *= told["attacks"] * weight[~attack].sum() / max(weight[attack].sum(), 1e-9)
    return weight / weight.mean()


def tool(frame):
    """The tool of each row, those of the lab's mobile device by what it did."""
    scan = frame["kind"].str.contains("scan")
    tools = frame["tool"].astype(str)
    return tools.where(tools != "lab la-enb", np.where(scan, "lab la-enb scan", "lab la-enb flood"))


def fold(frame, config):
    """The fold, 0 …, that leaves each row out."""
    sets = config["folds"]["tools"]
    of = {name: number for number, names in enumerate(sets) for name in names}
    dealt = {group: int(hashlib.sha256(group.encode()).hexdigest(), 16) % len(sets) for group in frame["group"].unique()}
    normal = frame["group"].map(dealt).to_numpy()
    try:
        return np.where(frame["label"] == 1, [of[name] if label else 0 for name, label in zip(tool(frame), frame["label"])], normal)
    except KeyError as err:
        raise DataError(f"captures.toml: folds.tools has no tool {err}") from err


def repository(frame, config):
    """The repository of each row, small ones as "others"."""
    names = frame["repository"].astype(str)
    return names.where(names.isin(config["folds"]["repositories"]), "others").to_numpy()


class Bench:
    """Rows as a matrix, and how a model of the recipe is fitted on some of them."""

    def __init__(self, frame, codes, config):
        self.names, self.config, self.frame = columns(config), config, frame
        self.rows, self.label = matrix(frame, self.names, codes), frame["label"].to_numpy()

    def fit(self, spec, chosen):
        config, names = self.config, self.names
        rows, attack = clamp(self.rows[chosen], names, config), self.label[chosen] == 1
        if spec["kind"] == "autoencoder":
            logs = [n for n in names if n not in config["columns"]["straight"] and "=" not in n]
            return detectors.Autoencoder.fit(names, rows[~attack], config["seed"], {**spec, "logs": logs})
        weight = weights(self.frame[chosen], config)
        made = np.vstack([raised(rows[~attack], weight[~attack], names, config), floods(rows[~attack], names, config)])
        share = config["raised"]["weight"] * weight[attack].sum() / len(made)
        told = detectors.Boosted.parameters(names, config["seed"], {**spec, "rises": config["columns"]["rises"]})
        told |= {"min_child_weight": spec["least_weight"], "reg_lambda": spec["ridge"]}
        data = xgboost.QuantileDMatrix(np.vstack([rows, made]), np.append(attack, np.ones(len(made))),
                                       weight=np.append(weight, np.full(len(made), share)), nthread=1)
        return detectors.Boosted(names, xgboost.train(told, data, spec["rounds"]))


def train(args, config):
    """Extracts the rows, scores each with models that were fitted without its group, fits what ships."""
    picket, folder = args.picket or PICKET, pathlib.Path(args.data or "")
    public = captures_rows.catalogue(folder)
    ours = captures_rows.labs(folder, config) + [c for c in public if captures_rows.accepted(c.licence)]
    foreign = [c for c in public if not captures_rows.accepted(c.licence)]
    frames = {"fit": captures_rows.gather(picket, ours, config, True),
              "plain": captures_rows.gather(picket, ours, config, False),
              "foreign": captures_rows.gather(picket, foreign, config, False)}
    say(", ".join(f"{name}: {len(frame):,} rows" for name, frame in frames.items()))
    known = codes(picket)
    benches = {name: Bench(frame, known, config) for name, frame in frames.items()}
    fitted, levels = {}, {}
    for name, spec in config["models"].items():
        began = time.monotonic()
        if spec["kind"] == "ensemble":
            fitted[name], levels[name] = fuse(spec["members"], fitted, levels, benches["plain"])
        else:
            fitted[name] = benches["fit"].fit(spec, np.ones(len(frames["fit"]), bool))
            levels[name] = held_out(spec, benches, config) | {"foreign": fitted[name].level(benches["foreign"].rows)}
        say(f"{name}: {time.monotonic() - began:.0f} s")
    work = Work(args.work, "captures")
    work.keep("frames", frames)
    work.keep("fitted", fitted)
    work.keep("levels", levels)
    work.keep("setup", {"codes": known, "sha256": fingerprint(ours),
                        "sources": captures_report.sources(ours), "foreign": captures_report.sources(foreign)})


def held_out(spec, benches, config):
    """Levels of rows by models that were fitted without their group: of all plays ("plays"), of the captures
    as they are ("fold"), and of their normal rows with the whole repository left out ("repository")."""
    bench, plain = benches["fit"], benches["plain"]
    out = {"plays": np.full(len(bench.label), np.nan), "fold": np.full(len(plain.label), np.nan),
           "repository": np.full(len(plain.label), np.nan)}
    mine, other = fold(bench.frame, config), fold(plain.frame, config)
    for left in np.unique(other):
        model = bench.fit(spec, mine != left)
        out["plays"][mine == left] = model.level(bench.rows[mine == left])
        out["fold"][other == left] = model.level(plain.rows[other == left])
    mine, other = repository(bench.frame, config), repository(plain.frame, config)
    for left in pd.unique(other):
        some = (other == left) & (plain.label == 0)
        out["repository"][some] = bench.fit(spec, (mine != left) | (bench.label == 1)).level(plain.rows[some])
    return out


def fuse(members, fitted, levels, plain):
    """(the ensemble of fitted members, its levels)."""
    whole, normal = sum(members.values()), plain.label == 0
    fused = detectors.Ensemble(plain.names, {m: fitted[m] for m in members},
                               {m: detectors.Rarity.fit(levels[m]["fold"][normal], fitted[m].least) for m in members},
                               {m: weight / whole for m, weight in members.items()})
    return fused, {key: fused.fuse({m: fused.rarities[m].apply(levels[m][key]) for m in members})
                   for key in levels[next(iter(members))]}


def fingerprint(captures):
    """SHA-256 over the training captures, in order."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(c.path for c in captures):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def squash(detector, level):
    """Scores in 0..1 of levels."""
    if isinstance(detector, detectors.Boosted):
        return 1 / (1 + np.exp(-np.asarray(level, float)))
    if isinstance(detector, detectors.Autoencoder):
        error = np.exp(np.asarray(level, float))
        return error / (error + detector.middle)
    return np.asarray(level, float)


def peaks(frame, scores):
    """The highest score of each normal capture, the lab's left out, and of each attack and play: two Series."""
    held = frame.assign(score=scores).dropna(subset="score")
    normal = held[(held["label"] == 0) & (held["repository"] != "lab")]
    return (normal.groupby("name")["score"].max(),
            held[held["label"] == 1].groupby(["kind", "repository", "name", "play"])["score"].max())


def evaluate(args, config):
    """Thresholds and figures on the folds and on the foreign captures; what the models lean on."""
    work = Work(args.work, "captures")
    frames, fitted, levels, setup = (work.get(n) for n in ("frames", "fitted", "levels", "setup"))
    results = {}
    for name, detector in fitted.items():
        scores = {key: squash(detector, level) for key, level in levels[name].items()}
        out = {"plays": peaks(frames["fit"], scores["plays"])[1], "repository": peaks(frames["plain"], scores["repository"])[0]}
        out["normal"], out["attacks"] = peaks(frames["plain"], scores["fold"])
        out["foreign normal"], out["foreign attacks"] = peaks(frames["foreign"], scores["foreign"])
        normal = frames["plain"]["label"] == 0
        out["held"] = scores["fold"][normal]
        shares = {}
        for loud in config["threshold"]["reported"]:
            at = float(np.quantile(out["normal"], 1 - loud))
            shares[loud] = {"threshold": at, **{key: float((out[key] >= at).mean()) for key in (
                "attacks", "normal", "repository", "foreign attacks", "foreign normal", "held")}}
        out["shares"], out["cut"] = shares, shares[config["threshold"]["loud"]]["threshold"]
        say(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in shares[config["threshold"]["loud"]].items()))
        results[name] = out
    boosted = next(d for d in fitted.values() if isinstance(d, detectors.Boosted))
    gain = boosted.booster.get_score(importance_type="total_gain")
    total = sum(gain.values())
    results["gains"] = sorted(((n, gain.get(f"f{i}", 0) / total) for i, n in enumerate(boosted.columns)), key=lambda p: -p[1])[:20]
    results["permuted"] = permuted(boosted, matrix(frames["foreign"], boosted.columns, setup["codes"]), frames["foreign"], config)
    work.keep("results", results)


def permuted(detector, rows, frame, config):
    """(column, fall of the area under the ROC curve when shuffled) on the foreign captures, each capture
    and label counting alike; the 20 largest."""
    from sklearn.metrics import roc_auc_score
    weight = 1 / frame.groupby(["name", "label"])["label"].transform("size").to_numpy(float)
    truth, rng = frame["label"].to_numpy(), np.random.default_rng(config["seed"])
    base, falls = roc_auc_score(truth, detector.level(rows), sample_weight=weight), []
    for i, name in enumerate(detector.columns):
        mixed = rows.copy()
        mixed[:, i] = rng.permutation(mixed[:, i])
        falls.append((name, base - roc_auc_score(truth, detector.level(mixed), sample_weight=weight)))
    return base, sorted(falls, key=lambda p: -p[1])[:20]


def export_models(args, config):
    """Every model through the gate, into OUT/NAME.onnx."""
    work = Work(args.work, "captures")
    frames, fitted, results, setup = (work.get(n) for n in ("frames", "fitted", "results", "setup"))
    rows, measured = matrix(frames["plain"], columns(config), setup["codes"]), {}
    for name, detector in fitted.items():
        blob, measured[name] = build(name, detector, rows, frames["plain"], results[name], setup, config)
        if args.picket:
            measured[name]["picket"] = export.picket_check(args.picket, blob)
        export.write(pathlib.Path(args.out) / f"{name}.onnx", blob)
        say(f"wrote {name}.onnx: {len(blob):,} bytes; largest difference from {detector.library} "
            f"{measured[name]['difference']:.1e} on {measured[name]['rows']:,} rows\n" + measured[name].get("picket", ""))
    work.keep("measured", measured)


def build(name, detector, rows, frame, result, setup, config):
    """Serialised model through the gate, and what the gate measured."""
    rng = np.random.default_rng(config["seed"])
    normal, loud = (frame["label"] == 0).to_numpy(), config["threshold"]["loud"]
    typical = np.median(rows[normal], axis=0)
    kinds = frame.loc[~normal, "kind"].drop_duplicates().sort_values()
    golden = np.vstack([rows[np.sort(rng.choice(np.flatnonzero(normal), 6, replace=False))], rows[kinds.index[:8]],
                        np.zeros((1, rows.shape[1]), np.float32), np.full((1, rows.shape[1]), 2.0 ** 32, np.float32)])
    contract = export.Contract(
        name=name, version="1", row="connection", features=detector.columns, threshold=result["cut"],
        typical=typical.tolist(),
        calibration={"quantiles": QUANTILES, "scores": np.quantile(result["held"], QUANTILES).tolist()},
        golden={"rows": golden.tolist(), "scores": np.asarray(detector.score(golden), float).tolist()},
        training={"data": "lab captures and public captures, rows by picket extract", "sha256": setup["sha256"],
                  "date": config["date"], "seed": config["seed"],
                  "protocol": "folds leave out attack tools, and devices or captures of normal traffic; threshold: "
                              f"{loud:g} of the held-out normal captures have a row above it",
                  "metrics": {key: round(value, 4) for key, value in result["shares"][loud].items()}})
    tail = rng.choice(len(rows), min(len(rows), 12_000), replace=False)
    hard = export.synthetic(rows, detector.cuts(), 12_000, config["seed"])
    if not detector.knows_nan:
        hard = export.as_served(hard, typical)
    trees = isinstance(detector, detectors.Boosted)
    return export.gate(detectors.model(detector, contract), detector.score, np.vstack([rows[tail], hard]), 0.0 if trees else 1e-5)


def explore(args, config):
    """What the catalogue holds, by label."""
    path = pathlib.Path(args.out) / "reports" / "captures-explore.md"
    export.write(path, captures_report.explored(pathlib.Path(args.data or ""), config).encode())
    say(f"wrote {path}")


def report(args, config):
    """Markdown and plots of each model. Scans captures/test with the exported files, once for the same
    files and the same picket: it only reports."""
    work, folder = Work(args.work, "captures"), captures_rows.folder(pathlib.Path(args.data or ""))
    measured, told, labs = work.get("measured"), {}, captures_rows.lab_folders(folder, config)
    picket = pathlib.Path(args.picket or PICKET)
    base = hashlib.sha256(b"".join(path.read_bytes() for path in (
        picket, folder / "catalogue.csv", *(lab / "labels.csv" for lab in labs))))
    for name in [*measured, config["before"]]:
        model = pathlib.Path(args.out) / f"{name}.onnx"
        digest = base.copy()
        digest.update(model.read_bytes() if model.exists() else b"")
        key = f"scanned-{name}-{digest.hexdigest()[:16]}"
        try:
            told[name] = work.get(key)
        except DataError:
            told[name] = scanned(picket, folder, labs, model if model.exists() else name)
            work.keep(key, told[name])
    captures_report.write(pathlib.Path(args.out) / "reports", config, work.get("setup"), work.get("results"),
                          measured, work.get("fitted"), told, work.get("frames"))


def scanned(picket, folder, labs, model):
    """What `picket scan` finds with a model, by split."""
    out = {"foreign": scans.measure(picket, folder, "train", [model], lambda row: not captures_rows.accepted(row["license"])),
           "test": scans.measure(picket, folder, "test", [model])}
    for figures in out.values():
        if figures.refused:
            raise DataError(f"picket scan refuses {len(figures.refused)} captures, first {figures.refused[0]}")
    rows, counts = zip(*(scans.measure_lab(picket, lab, [model]) for lab in labs))
    return out | {"lab": (sum(rows, []), {k: v for count in counts for k, v in count.items()})}
