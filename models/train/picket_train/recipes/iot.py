"""iot: the first notebook's figures reproduced, and what its labels can carry.

1,000 packets, 100 of them anomalous, already scaled to 0..1. The notebook fits and scores the same rows.
"""

import hashlib
import io
import pathlib

import numpy as np
import pandas as pd
import xgboost
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import LocalOutlierFactor

from .. import data, detectors, export, metrics, pictures
from ..work import Work, say
from . import iot_report

FILE = "embedded_system_network_security_dataset.csv"
NAMES = {"protocol_type_TCP": "protocol_type=tcp", "protocol_type_UDP": "protocol_type=udp",
         "tcp_flags_FIN": "tcp_flags=FIN", "tcp_flags_SYN": "tcp_flags=SYN",
         "tcp_flags_SYN-ACK": "tcp_flags=SYN-ACK"}
ADDRESSES = ["src_ip_192.168.1.2", "src_ip_192.168.1.3", "dst_ip_192.168.1.5", "dst_ip_192.168.1.6"]
MEASURED = ["packet_size", "inter_arrival_time", "src_port", "dst_port", "packet_count_5s",
            "mean_packet_size", "spectral_entropy", "frequency_band_energy"]


def load(path):
    """The data set as a frame of floats with column label, and its SHA-256."""
    path = pathlib.Path(path or "build/data")
    for file in (path / "iot-telecom" / FILE, path / FILE, path):
        if file.is_file():
            break
    else:
        raise data.DataError(f"{path} holds no {FILE}: give --data the folder or the file; it is public "
                             "on Kaggle as \"Embedded System Network Security Dataset\"")
    raw = file.read_bytes()
    try:
        frame = pd.read_csv(io.BytesIO(raw)).astype(float)
    except (ValueError, pd.errors.ParserError) as err:
        raise data.DataError(f"{file} is not the data set: {err}") from err
    missing = {*MEASURED, *NAMES, *ADDRESSES, "label"} - set(frame)
    if missing or not frame["label"].isin([0, 1]).all():
        raise data.DataError(f"{file} lacks columns {sorted(missing)[:3]} or has labels other than 0 and 1")
    return frame, hashlib.sha256(raw).hexdigest()


def own_names(frame):
    """The frame without addresses, columns by Picket's names."""
    return frame.drop(columns=["label", *ADDRESSES]).rename(columns=NAMES)


def explore(args, config):
    """Pictures and words."""
    frame, _ = load(args.data)
    picture = own_names(frame)
    pictures.iot(pathlib.Path(args.out) / "reports", picture.assign(label=frame["label"]), list(picture))


def train(args, config):
    """Fits the notebook's three models as it does, and one isolation forest without addresses."""
    frame, sha256 = load(args.data)
    rows, work = frame.drop(columns="label").to_numpy(np.float32), Work(args.work, "iot")
    own, spec = own_names(frame), config["models"]["iot-isolation-forest"]
    forest = detectors.Isolated.fit(list(own), own.to_numpy(np.float32)[frame["label"] == 0],
                                    config["seeds"][0], {**spec, "logs": []})
    work.keep("fitted", {"sha256": sha256, "detector": forest,
                         "scores": notebook_scores(rows, config)})
    say(f"{len(frame):,} rows: isolation forest, LOF and autoencoder as in the notebook")


def notebook_scores(rows, config):
    """Scores float [rows] by model, larger is more anomalous; a list over seeds for the autoencoder."""
    share, models = config["nominal"], config["models"]
    forest = IsolationForest(contamination=share, random_state=config["nominal_seed"]).fit(rows)
    local = LocalOutlierFactor(models["iot-lof"]["neighbours"], contamination=share).fit(rows)
    spec = {"logs": [], "floor": 1e-6, "clip": 100.0, "noise": 0.0, **models["iot-autoencoder"]}
    names = [str(i) for i in range(rows.shape[1])]
    return {"isolation forest": [-forest.decision_function(rows)],
            "LOF": [-local.negative_outlier_factor_],
            "autoencoder": [detectors.Autoencoder.fit(names, rows, seed, spec).score(rows)
                            for seed in config["seeds"]]}


def evaluate(args, config):
    """The notebook's figures, chance, cross-validation and the permutation test."""
    frame, _ = load(args.data)
    truth, work = frame["label"].to_numpy(int), Work(args.work, "iot")
    fitted, share = work.get("fitted"), config["nominal"]
    own = {}
    for name, runs in fitted["scores"].items():
        own[name] = metrics.mean_sd([
            {**metrics.at_threshold(truth, run, np.quantile(run, 1 - share)), "auc": metrics.auc(truth, run),
             "hits": int(((run >= np.quantile(run, 1 - share)) & (truth == 1)).sum())} for run in runs])
    rows = frame.drop(columns="label").to_numpy()
    crossed = {name: metrics.mean_sd([{"auc": cross_auc(make(seed), rows, truth, seed, config["folds"])}
                                      for seed in config["seeds"]])["auc"]
               for name, make in SUPERVISED.items()}
    rng, null = np.random.default_rng(config["seeds"][0]), []
    for number in range(config["permutations"]):
        null.append(cross_auc(SUPERVISED["XGBoost"](0), rows, rng.permutation(truth), number, config["folds"]))
    columns = {name: metrics.auc(truth, frame[name]) for name in MEASURED}
    detector = fitted["detector"]
    held = cross_isolation(frame, config)
    work.keep("results", {"own": own, "crossed": crossed, "null": null, "columns": columns,
                          "truth": truth, "held": held, "size": detector.size(),
                          "scores": fitted["scores"], "sha256": fitted["sha256"]})
    for name, figures in own.items():
        say(f"{name}: accuracy {figures['accuracy'][0]:.4f}, {figures['hits'][0]:.1f} hits")
    say(f"always normal: {(truth == 0).mean():.4f}; permutation null, 95 %: {np.quantile(null, .95):.3f}; "
        + ", ".join(f"{name} {mean:.3f}" for name, (mean, _) in crossed.items()))


SUPERVISED = {
    "XGBoost": lambda seed: xgboost.XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.1,
                                                  random_state=seed, n_jobs=1),
    "random forest": lambda seed: RandomForestClassifier(100, random_state=seed, n_jobs=1),
    "logistic regression": lambda seed: LogisticRegression(max_iter=1000),
}


def cross_auc(model, rows, truth, seed, folds):
    """AUC of out-of-fold probabilities."""
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return roc_auc_score(truth, cross_val_predict(model, rows, truth, cv=parts, method="predict_proba")[:, 1])


def cross_isolation(frame, config):
    """AUC of an isolation forest fitted on other folds' normals, mean and deviation over seeds."""
    rows, truth = own_names(frame).to_numpy(np.float32), frame["label"].to_numpy(int)
    spec, runs = {**config["models"]["iot-isolation-forest"], "logs": []}, []
    for seed in config["seeds"]:
        scores = np.empty(len(rows))
        for fit, out in StratifiedKFold(config["folds"], shuffle=True, random_state=seed).split(rows, truth):
            forest = detectors.Isolated.fit([str(i) for i in range(rows.shape[1])],
                                            rows[fit][truth[fit] == 0], seed, spec)
            scores[out] = forest.score(rows[out])
        runs.append({"auc": metrics.auc(truth, scores)})
    return metrics.mean_sd(runs)["auc"]


def export_models(args, config):
    """The isolation forest through the gate, into the working folder: it does not ship."""
    frame, sha256 = load(args.data)
    work, own = Work(args.work, "iot"), own_names(frame)
    rows, normal = own.to_numpy(np.float32), frame["label"].to_numpy() == 0
    detector, seed = work.get("fitted")["detector"], config["seeds"][0]
    typical = np.median(rows[normal], axis=0)
    scores = detector.score(rows[normal])
    golden = np.vstack([rows[:6], rows[~normal][:6], np.zeros_like(rows[:1]), np.full_like(rows[:1], 2.0 ** 32)])
    contract = export.Contract(
        name="iot-isolation-forest", version="1", row="packet", features=list(own),
        threshold=metrics.threshold(scores, config["nominal"]), typical=typical.tolist(),
        calibration={"quantiles": [.5, .95, .99], "scores": np.quantile(scores, [.5, .95, .99]).tolist()},
        golden={"rows": golden.tolist(), "scores": detector.score(golden).tolist()},
        training={"data": FILE, "sha256": sha256, "date": config["date"], "seed": seed,
                  "note": "smoke test of packet rows: columns scaled to 0..1 in a way that is lost, "
                          "labels that carry next to nothing"})
    hard = export.as_served(export.synthetic(rows, detector.cuts(), 20_000, seed), typical)
    blob, measured = export.gate(detectors.model(detector, contract), detector.score, np.vstack([rows, hard]))
    export.write(work.folder / "iot-isolation-forest.onnx", blob)
    work.keep("measured", measured)
    say(f"wrote {work.folder}/iot-isolation-forest.onnx: {len(blob):,} bytes, a smoke test that does not "
        f"ship; largest difference {measured['difference']:.1e} on {measured['rows']:,} rows")


def report(args, config):
    """reports/iot.md and its plots."""
    work = Work(args.work, "iot")
    iot_report.write(pathlib.Path(args.out) / "reports", work.get("results"), work.get("measured"), config)
