"""The second notebook's whole protocol on NSL-KDD, repeated with its leak.

SMOTE before the split, validated on a part of the same distribution, threshold .5. Nothing of it
ships; its figures stand beside the honest ones.
"""

import time

import numpy as np
import pandas as pd
import xgboost
from imblearn.over_sampling import SMOTE
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from .. import data, metrics

PROTOCOL_CODES = {"tcp": 0, "udp": 1, "icmp": 2, "gtp": 3, "sip": 4, "diameter": 5}
SERVICE_CODES = {"http": 0, "smtp": 1, "ftp": 2, "ssh": 3,
                 "amf": 10, "smf": 11, "upf": 12, "ausf": 13}
FOUR = ["burstiness", "symmetry_ratio", "is_signaling", "service"]


def run(train, test, seed):
    """One seed: figures, counts and latency of its three models on its own validation part and on
    KDDTest+, the columns it dropped, and both parts' labels and scores for the curves."""
    x, x_test, dropped = encode(train, test)
    names, scaler = list(x), StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(x_test)
    y, y_test = data.labels(train), data.labels(test)
    weights = compute_class_weight("balanced", classes=np.unique(y), y=y)
    x, y = SMOTE(random_state=seed).fit_resample(x, y)
    four = [names.index(name) for name in FOUR]
    outliers = IsolationForest(n_estimators=200, contamination=0.003, max_features=0.7,
                               random_state=seed, n_jobs=1).fit(x[:, four])
    out = {"dropped": dropped, "columns": len(names), "models": {}, "scores": {}}
    out["models"]["isolation forest"] = {
        part: _figures(truth, -outliers.decision_function(rows[:, four]), 0.0, at_least=False)
        for part, truth, rows in (("own", y, x), ("test", y_test, x_test))}
    x, x_own, y, y_own = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    forest = RandomForestClassifier(n_estimators=150, class_weight=dict(enumerate(weights)),
                                    max_depth=12, random_state=seed, n_jobs=1)
    boosted = xgboost.XGBClassifier(n_estimators=200, scale_pos_weight=weights[1], max_depth=8,
                                    learning_rate=0.1, eval_metric="logloss", random_state=seed, n_jobs=1)
    for name, model in (("random forest", forest), ("XGBoost", boosted)):
        model.fit(x, y)
        parts = {}
        for part, truth, rows in (("own", y_own, x_own), ("test", y_test, x_test)):
            scores = model.predict_proba(rows)[:, 1]
            parts[part] = _figures(truth, scores, 0.5)
            out["scores"][name, part] = truth, scores
        out["models"][name] = {**parts, "latency": _latency(model, scaler, x_own[0])}
    return out


def _figures(truth, scores, cut, at_least=True):
    called = (scores >= cut if at_least else scores > cut).astype(int)
    figures = metrics.at_threshold(truth, called, 1)
    return {**figures, "auc": metrics.auc(truth, scores),
            "false positives": int(((called == 1) & (truth == 0)).sum()),
            "false negatives": int(((called == 0) & (truth == 1)).sum()), "rows": len(truth),
            "report": classification_report(truth, called, target_names=["Normal", "Attack"], digits=3)}


def _latency(model, scaler, row, times=50):
    """Milliseconds to scale and score one row as the notebook does: median and 95th percentile."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        model.predict_proba(scaler.transform([row]))
        spent.append((time.perf_counter() - began) * 1e3)
    return float(np.median(spent)), float(np.quantile(spent, 0.95))


def encode(train, test):
    """Both files as the notebook prepares them before scaling, and the columns it dropped because
    they correlate above .95 with another."""
    flags = LabelEncoder().fit(train["flag"])
    frames = []
    for frame in (train, test):
        frame = frame.drop(columns=["difficulty", "label", "num_outbound_cmds"])
        frame["protocol_type"] = frame["protocol_type"].map(PROTOCOL_CODES).fillna(6)
        frame["service"] = frame["service"].map(SERVICE_CODES).fillna(99)
        frame["flag"] = flags.transform(frame["flag"])
        frames.append(frame)
    correlation = frames[0].corr().abs()
    upper = correlation.where(np.triu(np.ones(correlation.shape), k=1).astype(bool))
    redundant = [column for column in upper if (upper[column] > 0.95).any()]
    return *(_telecom(frame.drop(columns=redundant)) for frame in frames), redundant


def _telecom(frame):
    columns = {"burstiness": frame["srv_count"] / (frame["duration"] + 0.001),
               "symmetry_ratio": frame["src_bytes"] / (frame["dst_bytes"] + 1)}
    for code in (10, 11, 12, 13):
        columns[f"service_{code}_traffic"] = (frame["service"] == code) * frame["src_bytes"]
    columns["is_signaling"] = frame["protocol_type"].isin([3, 4, 5]).astype(int)
    return pd.concat([frame, pd.DataFrame(columns)], axis=1)
