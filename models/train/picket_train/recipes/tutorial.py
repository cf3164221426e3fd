"""A common tutorial protocol on NSL-KDD, repeated to show its leak.

SMOTE before the split, validated on a part of the same distribution, threshold .5. Nothing of it
ships; its figures stand beside the honest ones.
"""

import numpy as np
import pandas as pd
import xgboost
from imblearn.over_sampling import SMOTE
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from .. import data, metrics

PROTOCOL_CODES = {"tcp": 0, "udp": 1, "icmp": 2, "gtp": 3, "sip": 4, "diameter": 5}
SERVICE_CODES = {"http": 0, "smtp": 1, "ftp": 2, "ssh": 3,
                 "amf": 10, "smf": 11, "upf": 12, "ausf": 13}


def run(train, test, seed):
    """Figures on its own validation part and on KDDTest+, by name, for one seed."""
    x, x_test = _encode(train, test)
    y, y_test = data.labels(train), data.labels(test)
    weight = compute_class_weight("balanced", classes=np.unique(y), y=y)[1]
    x, y = SMOTE(random_state=seed).fit_resample(x, y)
    x, x_own, y, y_own = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    model = xgboost.XGBClassifier(n_estimators=200, max_depth=8, learning_rate=0.1,
                                  scale_pos_weight=weight, eval_metric="logloss",
                                  random_state=seed, n_jobs=1)
    model.fit(x, y)
    own, new = model.predict_proba(x_own)[:, 1], model.predict_proba(x_test)[:, 1]
    return {
        "own": {**metrics.at_threshold(y_own, own, 0.5), "auc": metrics.auc(y_own, own)},
        "test": {**metrics.at_threshold(y_test, new, 0.5), "auc": metrics.auc(y_test, new)},
    }


def _encode(train, test):
    """Scaled inputs float64 [rows, columns] of both files, fitted on the first."""
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
    frames = [_telecom(frame.drop(columns=redundant)) for frame in frames]
    scaler = StandardScaler().fit(frames[0])
    return [scaler.transform(frame) for frame in frames]


def _telecom(frame):
    columns = {"burstiness": frame["srv_count"] / (frame["duration"] + 0.001),
               "symmetry_ratio": frame["src_bytes"] / (frame["dst_bytes"] + 1)}
    for code in (10, 11, 12, 13):
        columns[f"service_{code}_traffic"] = (frame["service"] == code) * frame["src_bytes"]
    columns["is_signaling"] = frame["protocol_type"].isin([3, 4, 5]).astype(int)
    return pd.concat([frame, pd.DataFrame(columns)], axis=1)
