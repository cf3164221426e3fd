"""The recipe's own promises, on rows made here."""

import numpy as np
import pytest

from picket_train import config, data
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
