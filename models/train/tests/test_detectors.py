"""Every kind of model: its graph scores as its own library does, and the same seed gives the same bytes."""

import json
import pickle

import numpy as np
import pytest

from picket_train import config, data, detectors, export
from picket_train.recipes import nslkdd

SMALL = {"trees": 5, "rounds": 10, "epochs": 2, "sample": 200}
MADE = nslkdd.specs(config.load("nslkdd"))


def fitted(name, frame, seed=0):
    spec = {**MADE[name], **{key: value for key, value in SMALL.items() if key in MADE[name]}}
    if spec["kind"] != "ensemble":
        return nslkdd.fit(spec, frame, seed)
    normal = frame[frame["label"] == "normal"]
    return detectors.Ensemble.fit(spec["names"], {m: fitted(m, frame, seed) for m in spec["members"]},
                                  data.features(normal, spec["names"]), spec["members"])


def contract(detector, rows):
    golden = rows[:4]
    return export.Contract(
        name="test", version="1", row="connection", features=detector.columns, threshold=.5,
        typical=np.median(rows, axis=0).tolist(), calibration={}, training={},
        golden={"rows": golden.tolist(), "scores": detector.score(golden).tolist()})


@pytest.mark.parametrize("name", [name for name, spec in MADE.items() if spec["ships"]])
def test_graph_scores_as_the_library(name, frame):
    detector = fitted(name, frame)
    rows = data.features(frame, detector.columns)
    promise = contract(detector, rows)
    hard = export.synthetic(rows, detector.cuts(), 3000, 0)
    if not detector.knows_nan:
        hard = export.as_served(hard, promise.typical)
    blob, measured = export.gate(detectors.model(detector, promise), detector.score,
                                 np.vstack([rows, hard]), 1e-5)
    assert measured["rows"] == 4000
    alone = [export.score(export.session(blob), rows[i:i + 4])[0] for i in (0, 4, 8)]
    assert alone == [export.score(export.session(blob), rows[:64])[i] for i in (0, 4, 8)]
    again = pickle.loads(pickle.dumps(fitted(name, frame)))
    assert export.gate(detectors.model(again, promise), again.score, rows, 1e-5)[0] == blob
    libraries = {"nslkdd-xgboost": "XGBoost", "nslkdd-autoencoder": "Keras", "nslkdd-ensemble": "XGBoost, scikit-learn and Keras"}
    assert detector.library == libraries.get(name, "scikit-learn")
    meta = {entry.key: entry.value for entry in detectors.model(detector, promise).metadata_props}
    assert json.loads(meta["picket.features"]) == detector.columns


def test_rarity_rises_with_the_level():
    levels = np.random.default_rng(0).normal(size=5000)
    rarity = detectors.Rarity.fit(levels, .01)
    rare = rarity.apply(np.linspace(-9, 9, 1000))
    assert (np.diff(rare) >= 0).all() and rare[0] == 0 and rare[-1] == pytest.approx(rarity.top, rel=1e-5)
    assert rarity.apply([np.quantile(levels, .9)])[0] == pytest.approx(1, abs=.02)


def test_rarity_of_equal_levels():
    rarity = detectors.Rarity.fit(np.zeros(100), .01)
    assert rarity.apply([0])[0] == 0 and rarity.apply([1])[0] == pytest.approx(rarity.top)
