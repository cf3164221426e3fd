"""The recipe's own promises, on rows made here."""

import numpy as np
import pytest

from picket_train import config, data, metrics
from picket_train.export import Trees
from picket_train.recipes import nslkdd


@pytest.fixture(scope="module")
def made():
    return nslkdd.specs(config.load("nslkdd"))


def test_parts_are_disjoint_and_complete():
    parts = nslkdd.split(1003, 0)
    rows = np.concatenate([parts.fit, parts.calibration, parts.threshold])
    assert sorted(rows) == list(range(1003))
    assert [len(p) for p in (parts.fit, parts.calibration, parts.threshold)] == [802, 100, 101]


def test_columns(made):
    known = set(data.one_hot(data.HEADER)) | set(data.TELECOM) | set(data.CONTENT)
    for name, spec in made.items():
        assert set(spec["names"]) <= known and len(set(spec["names"])) == len(spec["names"])
        assert {*spec.get("rises", ()), *spec.get("falls", ())} <= set(data.HEADER + data.TELECOM)
        for member in spec.get("members", ()):
            assert set(made[member]["names"]) <= set(spec["names"])
    assert len(made["nslkdd-xgboost"]["names"]) == 28 + 7 - 3 + (3 + 16 + 11)


def test_score_never_falls_with_errors(frame, made):
    spec = made["nslkdd-xgboost"]
    detector = nslkdd.fit(spec, frame, 0)
    rows = data.features(frame, spec["names"])
    low = detector.score(rows)
    rows[:, spec["names"].index("serror_rate")] += 3
    assert (detector.score(rows) >= low).all()


def test_exported_trees_are_xgboosts(frame, made):
    spec = made["nslkdd-xgboost"]
    detector = nslkdd.fit(spec, frame, 0)
    trees = Trees.from_xgboost(detector.booster)
    assert len(set(trees.tree)) == spec["rounds"] and trees.base == 0
    assert len(detector.booster.trees_to_dataframe()) == len(trees.node)


def test_figures_worked_out_by_hand():
    truth, scores = np.array([1, 1, 1, 1, 0, 0]), np.array([.9, .8, .7, .6, .6, .1])
    assert metrics.at_threshold(truth, scores, .6) == pytest.approx(
        {"accuracy": 5 / 6, "f1": 8 / 9, "precision": 4 / 5, "recall": 1, "fpr": 1 / 2})
    assert metrics.at_threshold(truth, scores, .75) == pytest.approx(
        {"accuracy": 4 / 6, "f1": 4 / 6, "precision": 1, "recall": 2 / 4, "fpr": 0})
    normal = np.array([.3, .1, .6, .2, .5, .4])
    assert metrics.threshold(normal, .2) == pytest.approx(.5)
    assert metrics.threshold(normal, .1) == pytest.approx(.55)


class FirstColumn:
    """A detector whose score is the first column."""

    library = "none"

    def score(self, rows):
        return rows[:, 0]

    def size(self):
        return ""


def test_thresholds_come_from_normals_of_the_threshold_part(frame):
    told, drawn = config.load("nslkdd"), np.random.default_rng(0).random(len(frame))
    train = frame.assign(src_bytes=drawn)
    test = train.assign(label=frame["label"].replace("perl", "mscan"))

    def cuts(train, test):
        frames = {"train": train, "test": test, "test21": test}
        return nslkdd.measure(FirstColumn(), {"names": ["src_bytes"]}, frames, 0, told)["cuts"]

    want = cuts(train, test)
    assert len(set(want.values())) == len(told["rates"]) and 0 < min(want.values())
    assert cuts(train, test.assign(src_bytes=drawn + 9)) == want
    held = np.isin(np.arange(len(frame)), nslkdd.split(len(frame), 0, told["parts"]).threshold)
    assert cuts(train.assign(src_bytes=np.where(held & (frame["label"] == "normal"), drawn, 9)), test) == want
