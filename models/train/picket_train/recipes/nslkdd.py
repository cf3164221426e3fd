"""nslkdd: the models of both notebooks on connections, trained on NSL-KDD and measured honestly.

Protocol: KDDTrain+ is cut into fit (80 %), calibration (10 %) and threshold (10 %) parts. Designs are
chosen by leaving attack families and attack types out of KDDTrain+ (evaluate --leave-out). A threshold
is the score that 5 % of the threshold part's normals reach. KDDTest+ and KDDTest-21 only report: no
choice is made on them. The first seed ships, fixed before they were scored.
"""

import pathlib
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import data, detectors, export, metrics, pictures
from ..work import Work, say
from . import nslkdd_report, notebook

QUANTILES = [0, .01, .05, .1, .25, .5, .75, .9, .95, .98, .99, .995, .999, 1]
SUPERVISED = ("xgboost", "random-forest")
GOLDEN_ATTACKS = ("neptune", "smurf", "portsweep", "satan", "warezclient", "guess_passwd")


@dataclass(frozen=True)
class Split:
    """Row numbers of the three disjoint parts."""

    fit: np.ndarray
    calibration: np.ndarray
    threshold: np.ndarray


def split(count, seed, parts=(0.8, 0.1, 0.1)):
    """A random Split of count rows."""
    order = np.random.default_rng(seed).permutation(count)
    first, second = int(count * parts[0]), int(count * (parts[0] + parts[1]))
    return Split(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


def columns(groups, services):
    """Column names of groups such as "header", in order."""
    header = data.one_hot(data.HEADER, services)
    telecom = data.TELECOM
    known = {
        "codes": data.HEADER,
        "header": header,
        "all services": data.one_hot(data.HEADER),
        "plain": [c for c in header if not c.startswith("service=")],
        "telecom": telecom,
        "ratios": telecom[:2],
        "content": [c for c in data.CONTENT if c != "num_outbound_cmds"],
    }
    return [column for group in groups for column in known[group]]


def specs(config):
    """Models by name, members first, with `like`, columns and directions spelt out."""
    return {name: spell(given(name, config), config) for name in config["models"]}


def given(name, config):
    """A model's table as the file has it, filled up from the model that it is like."""
    table = config["models"][name]
    return {**(given(table["like"], config) if "like" in table else {}), **table}


def spell(spec, config):
    """A model's table with the names of columns in place of their groups."""
    ways = config["directions"]
    return {"ships": True, "weight": 0.0, **spec,
            "names": columns(spec["columns"], config["services"]), "logs": config["columns"]["logs"],
            "rises": [c for group in spec.get("rises", ()) for c in ways[group]],
            "falls": [c for group in spec.get("falls", ()) for c in ways[group]]}


def fit(spec, frame, seed):
    """A detector fitted on a data frame: those of normals take its normal rows only."""
    names, kind = spec["names"], spec["kind"]
    if kind in SUPERVISED:
        rows, truth = data.features(frame, names), data.labels(frame)
        return detectors.KINDS[kind].fit(names, rows, truth, seed, spec, _weights(frame, spec["weight"]))
    normal = data.features(frame[frame["label"] == "normal"], names)
    return detectors.KINDS[kind].fit(names, normal, seed, spec)


def _weights(frame, power):
    """Row weights: an attack type's rows count down by the power of their number (0: all alike)."""
    if power == 0:
        return None
    attack = (frame["label"] != "normal").to_numpy()
    weight = (frame["label"].map(frame["label"].value_counts()).to_numpy(float)) ** -power
    weight[attack] *= attack.sum() / weight[attack].sum()
    weight[~attack] = 1
    return weight


def train(args, config):
    """Fits every model for every seed and keeps them in the working folder."""
    frames, _ = data.load_nslkdd(args.data, parts=("train",))
    frame, work, made = frames["train"], Work(args.work, "nslkdd"), specs(config)
    for seed in config["seeds"]:
        parts, fitted, began = split(len(frame), seed, config["parts"]), {}, time.monotonic()
        fit_part = frame.iloc[parts.fit]
        held = frame.iloc[parts.calibration]
        held = held[held["label"] == "normal"]
        for name, spec in made.items():
            if spec["kind"] == "ensemble":
                fitted[name] = detectors.Ensemble.fit(
                    spec["names"], {member: fitted[member] for member in spec["members"]},
                    data.features(held, spec["names"]), spec["members"])
            elif spec["kind"] == "xgboost" and args.dask:
                from .. import cluster
                fitted[name] = cluster.fit(args.dask, spec["names"], data.features(fit_part, spec["names"]),
                                           data.labels(fit_part), seed, spec)
            else:
                fitted[name] = fit(spec, fit_part, seed)
        for name, detector in fitted.items():
            work.keep(f"{name}-{seed}", detector)
        say(f"seed {seed}: {len(fitted)} models in {time.monotonic() - began:.0f} s")


def evaluate(args, config):
    """Scores the test files with every model and seed; with --leave-out compares designs instead."""
    if args.leave_out:
        return compare(args, config)
    frames, hashes = data.load_nslkdd(args.data)
    work, results = Work(args.work, "nslkdd"), {}
    for name, spec in specs(config).items():
        results[name] = [measure(work.get(f"{name}-{seed}"), spec, frames, seed, config)
                         for seed in config["seeds"]]
        figures = metrics.mean_sd([run["test"][config["nominal"]] for run in results[name]])
        say(f"{name}: KDDTest+ accuracy {figures['accuracy'][0]:.4f} ± {figures['accuracy'][1]:.4f}, "
            f"real FPR {figures['fpr'][0]:.4f} ± {figures['fpr'][1]:.4f}")
    work.keep("results", {"hashes": hashes, "runs": results})
    told = []
    for seed in config["seeds"]:
        told.append(notebook.run(frames["train"], frames["test"], seed))
        say(f"second notebook, seed {seed}: "
            + ", ".join(f"{name} {own['own']['accuracy']:.4f} -> {own['test']['accuracy']:.4f}"
                        for name, own in told[-1]["models"].items()))
        work.keep("notebook", told)


def measure(detector, spec, frames, seed, config):
    """One model and seed: its parts' scores, its thresholds, and figures on both test files."""
    frame, parts = frames["train"], split(len(frames["train"]), seed, config["parts"])
    names, held = spec["names"], {}
    for name, rows in (("calibration", frame.iloc[parts.calibration]), ("threshold", frame.iloc[parts.threshold])):
        held[name] = detector.score(data.features(rows[rows["label"] == "normal"], names))
    fit_part = frame.iloc[parts.fit]
    typical = np.median(data.features(fit_part[fit_part["label"] == "normal"], names), axis=0)
    cuts = {rate: metrics.threshold(held["threshold"], rate) for rate in config["rates"]}
    seen = set(frame["label"])
    run = {"seed": seed, "held": held, "typical": typical, "cuts": cuts, "library": detector.library,
           "size": detector.size()}
    if isinstance(detector, detectors.Boosted):
        run["gains"] = gains(detector)
    for name in ("test", "test21"):
        scores, truth = detector.score(data.features(frames[name], names)), data.labels(frames[name])
        known = frames[name]["label"].isin(seen).to_numpy()
        run[name] = {"auc": metrics.auc(truth, scores), "scores": scores}
        for rate, cut in {**cuts, None: 0.5}.items():  # None: the usual .5
            called, attack = scores >= cut, truth == 1
            run[name][rate] = {**metrics.at_threshold(truth, scores, cut),
                               "seen": float(called[attack & known].mean()),
                               "unseen": float(called[attack & ~known].mean()),
                               "nominal": float((held["calibration"] >= cut).mean())}
    return run


def gains(detector):
    """(column, share of the total gain) of the columns with splits, largest first; the others."""
    gain = detector.booster.get_score(importance_type="total_gain")
    by_column = {column: gain.get(f"f{i}", 0) for i, column in enumerate(detector.columns)}
    total = sum(by_column.values())
    used = sorted(((column, value / total) for column, value in by_column.items() if value),
                  key=lambda pair: -pair[1])
    return used, [column for column, value in by_column.items() if not value]


def export_models(args, config):
    """Every model that ships, through the gate, into OUT/NAME.onnx."""
    work = Work(args.work, "nslkdd")
    results, measured = work.get("results"), {}
    frames, _ = data.load_nslkdd(args.data, parts=("train", "test"))
    seed = config["seeds"][0]
    parts = split(len(frames["train"]), seed, config["parts"])
    for name, spec in specs(config).items():
        if not spec["ships"]:
            continue
        detector, runs = work.get(f"{name}-{seed}"), results["runs"][name]
        blob, measured[name] = build(name, detector, spec, frames, parts, runs, results["hashes"], config)
        if args.picket:
            measured[name]["picket"] = export.picket_check(args.picket, blob)
        export.write(pathlib.Path(args.out) / f"{name}.onnx", blob)
        say(f"wrote {name}.onnx: {len(blob):,} bytes; largest difference from {detector.library} "
            f"{measured[name]['difference']:.1e} on {measured[name]['rows']:,} rows\n"
            + measured[name].get("picket", ""))
    work.keep("measured", measured)


def build(name, detector, spec, frames, parts, runs, hashes, config):
    """Serialised model of the first run, through the gate, and what the gate measured."""
    run, names, seed = runs[0], spec["names"], config["seeds"][0]
    golden = golden_rows(frames["train"].iloc[parts.fit], names, seed)
    contract = export.Contract(
        name=name, version=str(spec.get("version", "1")), row="connection", features=names,
        threshold=run["cuts"][config["nominal"]], typical=run["typical"].tolist(),
        calibration={"quantiles": QUANTILES,
                     "scores": np.quantile(run["held"]["calibration"], QUANTILES).tolist()},
        golden={"rows": golden.tolist(), "scores": detector.score(golden).tolist()},
        training=provenance(hashes, runs, config, spec))
    rows = data.features(frames["test"], names)
    hard = export.synthetic(rows, detector.cuts(), 20_000, seed)
    if not detector.knows_nan:
        hard = export.as_served(hard, run["typical"])
    trees_alone = spec["kind"] in (*SUPERVISED, "isolation-forest")
    return export.gate(detectors.model(detector, contract), detector.score, np.vstack([rows, hard]), 0.0 if trees_alone else 1e-5)


def golden_rows(fit_part, names, seed):
    """float32 [14, columns]: six normals, six attacks of different types, zeros, extremes."""
    chosen = [fit_part[fit_part["label"] == "normal"].sample(6, random_state=seed)]
    for label in GOLDEN_ATTACKS:
        chosen.append(fit_part[fit_part["label"] == label].sample(1, random_state=seed))
    real = data.features(pd.concat(chosen), names)
    return np.vstack([real, np.zeros_like(real[:1]), np.full_like(real[:1], 2.0 ** 32)])


def provenance(hashes, runs, config, spec):
    """picket.training: data, protocol and figures, rounded to four decimals."""
    def rounded(figures):
        return {name: [round(mean, 4), round(sd, 4)] for name, (mean, sd) in figures.items()}
    measured, rate = {}, config["nominal"]
    for key, file in (("test", "KDDTest+"), ("test21", "KDDTest-21")):
        figures = metrics.mean_sd([{**r[key][rate], "auc": r[key]["auc"]} for r in runs])
        figures.pop("nominal")
        measured[file] = rounded(figures)
    shipped = {key: round(runs[0]["test"][rate][key], 4)
               for key in ("accuracy", "f1", "precision", "recall", "fpr")}
    told = {"note": spec["note"]} if "note" in spec else {}
    return {"data": "NSL-KDD KDDTrain+", "sha256": hashes["KDDTrain+.txt"], "date": config["date"],
            "seed": config["seeds"][0], "nominal_fpr": rate,
            "protocol": "80 % fit, 10 % calibration, 10 % threshold; design chosen by leaving "
                        "attack families and types out of KDDTrain+", **told,
            "metrics": {"seeds": len(runs), "values": "mean, standard deviation", **measured},
            "this_model": {"KDDTest+": shipped}}


def explore(args, config):
    """Pictures and words on KDDTrain+."""
    frame = data.load_nslkdd(args.data, parts=("train",))[0]["train"]
    pictures.nslkdd(pathlib.Path(args.out) / "reports", frame, config)


def report(args, config):
    """Markdown and plots of every model that ships, and one page that compares them."""
    work = Work(args.work, "nslkdd")
    frames, _ = data.load_nslkdd(args.data)
    nslkdd_report.write(pathlib.Path(args.out) / "reports", frames, specs(config), config,
                        work.get("results"), work.get("measured"), work.get("notebook"))


def compare(args, config):
    """Leaves attacks out of KDDTrain+ for each design; writes reports/NAME/designs.csv by model."""
    frame = data.load_nslkdd(args.data, parts=("train",))[0]["train"]
    made = specs(config)
    designs = []
    for name, spec in made.items():
        changes = config.get("designs", {}).get(name, {"as configured": {}})
        designs += [(name, title, spell({**given(name, config), **change}, config))
                    for title, change in changes.items()]
    columns_of = {(name, title): len(spec["names"]) for name, title, spec in designs}
    rows = {}
    for seed in config["leave_out_seeds"]:
        for key, figures in leave_out(frame, designs, made, seed, config).items():
            rows.setdefault(key, []).append(figures)
        say(f"left out, seed {seed}")
    tables = {}
    for (name, title), runs in rows.items():
        figures = metrics.mean_sd(runs)
        line = {"columns": columns_of[name, title],
                **{key: mean for key, (mean, _) in figures.items()}, "recall sd": figures["recall"][1]}
        if made[name]["ships"]:
            tables.setdefault(name, []).append({"design": title, **line})
        else:
            tables.setdefault("nslkdd", []).append({"design": f"{name}, {title}", **line})
    for name, table in tables.items():
        text = pd.DataFrame(table).to_csv(index=False, float_format="%.4f")
        export.write(pathlib.Path(args.out) / "reports" / name / "designs.csv", text.encode())


def leave_out(frame, designs, made, seed, config):
    """Recall on attacks that were left out of training, at the shipped nominal rate, by design.

    designs: (model, title, spec) …, members before ensembles; made: the models' own specs by name.
    Nine folds: each family, and five groups of types. In each, 80 % of what is left is fitted, half of
    the other normals set the threshold (and an ensemble's rarities), half measure the real rate. Types
    are averaged by the root of their row count, or one flood would be the whole figure.
    """
    label = frame["label"].to_numpy()
    part = np.random.default_rng(seed).random(len(frame))
    normal, sizes = label == "normal", frame["label"].value_counts()
    cut_on, measured = normal & (part >= 0.8) & (part < 0.9), normal & (part >= 0.9)
    out, ordinary = {}, {}  # ordinary: levels of detectors of normals, the same in every fold
    for kind, types in _folds(sizes):
        left = np.isin(label, types)
        some = cut_on | measured | left
        levels = {}
        for name, title, spec in designs:
            if spec["kind"] == "ensemble":
                scores = _fuse(spec, levels, cut_on)
            else:
                only_normals = spec["kind"] not in SUPERVISED
                scores = ordinary.get((name, title))
                if scores is None:
                    detector = fit(spec, frame[(part < 0.8) & ~left], seed)
                    scored = np.ones(len(frame), bool) if only_normals else some
                    scores = np.full(len(frame), np.nan)
                    scores[scored] = detector.level(data.features(frame[scored], spec["names"]))
                if only_normals:
                    ordinary[name, title] = scores
                if spec == made[name]:
                    levels[name] = scores, detectors.KINDS[spec["kind"]].least
            cut = metrics.threshold(scores[cut_on], config["nominal"])
            figures = out.setdefault((name, title), {"family": [], "type": [], "fpr": [], "auc": []})
            figures["fpr"].append((scores[measured] >= cut).mean())
            figures["auc"].append(metrics.auc(left[left | measured], scores[left | measured]))
            figures[kind] += [((scores[label == t] >= cut).mean(), sizes[t] ** 0.5) for t in types]
    return {key: _means(figures) for key, figures in out.items()}


def _means(figures):
    mean = {}
    for kind in ("family", "type"):
        recall, weight = zip(*figures[kind])
        mean[kind] = np.average(recall, weights=weight)
    return {"family recall": mean["family"], "type recall": mean["type"],
            "recall": (mean["family"] + mean["type"]) / 2,
            "auc": np.mean(figures["auc"]), "fpr": np.mean(figures["fpr"])}


def _fuse(spec, levels, held):
    """An ensemble's scores from its members' levels: what detectors.Ensemble does, without the rows."""
    whole, total = sum(spec["members"].values()), 0
    for name, weight in spec["members"].items():
        level, least = levels[name]
        rarity = detectors.Rarity.fit(level[held], least)
        total = total + weight / whole / rarity.top * rarity.apply(level)
    return total


def _folds(sizes):
    """(kind, types left out) of each fold; types are dealt to five groups, large ones first."""
    families = [[t for t in sizes.index if data.FAMILY.get(t) == name] for name in data.FAMILIES]
    dealt = [t for family in families for t in family]
    return ([("family", family) for family in families]
            + [("type", dealt[group::5]) for group in range(5)])
