"""The recipe's own promises, on rows made here."""

import numpy as np
import pandas as pd
import pytest

from picket_train import data, export
from picket_train.recipes import nslkdd


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    count = 1000
    columns = {name: rng.integers(0, 9, count).astype(float) for name in data.COLUMNS}
    for name, values in data.CODES.items():
        columns[name] = rng.choice(values, count)
    columns["label"] = np.where(columns["serror_rate"] > 5, "neptune", "normal")
    return pd.DataFrame(columns)


def test_parts_are_disjoint_and_complete():
    parts = nslkdd.split(1003, 0)
    rows = np.concatenate([parts.fit, parts.calibration, parts.threshold])
    assert sorted(rows) == list(range(1003))
    assert [len(p) for p in (parts.fit, parts.calibration, parts.threshold)] == [802, 100, 101]


def test_columns():
    for design in nslkdd.DESIGNS.values():
        assert set(design.monotone) <= set(data.HEADER + data.TELECOM)
    assert set(nslkdd.COMMON_SERVICES) <= set(data.SERVICES)
    assert len(nslkdd.ONE_HOT) == 28 + 7 - 3 + (3 + 16 + 11)


def test_same_seed_same_bytes(frame):
    first, second = (nslkdd.fit(frame, nslkdd.DESIGN, 3).save_raw("ubj") for _ in range(2))
    assert first == second


def test_score_never_falls_with_errors(frame):
    booster = nslkdd.fit(frame, nslkdd.DESIGN, 0)
    rows = data.features(frame, nslkdd.DESIGN.columns)
    low = nslkdd.predict(booster, rows)
    rows[:, nslkdd.DESIGN.columns.index("serror_rate")] += 3
    assert (nslkdd.predict(booster, rows) >= low).all()


def test_exported_trees_are_xgboosts(frame):
    booster = nslkdd.fit(frame, nslkdd.DESIGN, 0)
    trees = export.from_xgboost(booster)
    assert len(set(trees.tree)) == nslkdd.DESIGN.rounds and trees.base == 0
    assert len(booster.trees_to_dataframe()) == len(trees.node)
