"""The exporter and its gate, on a small booster."""

import json
import pathlib
import re

import numpy as np
import onnx
import pytest
import xgboost

from picket_train import detectors, export

COLUMNS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    rows = rng.lognormal(0, 3, (1000, 4)).astype(np.float32)
    rows[rng.random(rows.shape) < .1] = np.nan
    truth = (np.nan_to_num(rows[:, 0]) * 2 > np.nan_to_num(rows[:, 1])).astype(int)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 6, "base_score": .3,
                             "nthread": 1}, xgboost.DMatrix(rows, truth), 30)

    def predict(some):
        return booster.predict(xgboost.DMatrix(some))

    return rows, booster, predict


def contract(predict, **changes):
    golden = np.array([[0, 1, 2, 3], [1e9, 0, 0, 0]], np.float32)
    return export.Contract(**{
        "name": "test", "version": "1", "row": "connection", "features": COLUMNS,
        "threshold": .5, "typical": [0.0] * 4,
        "calibration": {"quantiles": [0, 1], "scores": [0, 1]},
        "golden": {"rows": golden.tolist(), "scores": predict(golden).tolist()},
        "training": {}, **changes})


def test_parity_on_hard_rows(trained):
    rows, booster, predict = trained
    detector = detectors.Boosted(COLUMNS, booster)
    hard = export.synthetic(rows, detector.cuts(), 5000, 0)
    assert np.isnan(hard).any() and np.isinf(hard).any()
    blob, measured = export.gate(detectors.model(detector, contract(predict)), predict, hard)
    assert measured["difference"] <= export.MAX_DIFFERENCE
    assert measured["bytes"] == len(blob)
    again, _ = export.gate(detectors.model(detector, contract(predict)), predict, hard)
    assert blob == again


def test_metadata(trained):
    _, booster, predict = trained
    model = detectors.model(detectors.Boosted(COLUMNS, booster), contract(predict))
    meta = {entry.key: entry.value for entry in model.metadata_props}
    assert meta["picket.contract"] == "1" and json.loads(meta["picket.features"]) == COLUMNS
    assert sorted(meta) == sorted("picket." + key for key in (
        "contract", "name", "version", "row", "features", "input", "score", "threshold", "typical",
        "calibration", "golden", "training"))


def test_gate_refuses(trained):
    rows, booster, predict = trained
    detector = detectors.Boosted(COLUMNS, booster)
    good = detectors.model(detector, contract(predict))
    with pytest.raises(export.GateError, match="rows differ by more than"):
        export.gate(good, lambda some: predict(some) + 1e-4, rows)
    golden = {"rows": [[0, 0, 0, 0]], "scores": [.123]}
    with pytest.raises(export.GateError, match="golden rows differ"):
        export.gate(detectors.model(detector, contract(predict, golden=golden)), predict, rows)
    with pytest.raises(export.GateError, match="typical has 3 entries, the input 4"):
        export.gate(detectors.model(detector, contract(predict, typical=[0] * 3)), predict, rows)
    with pytest.raises(export.GateError, match="threshold 1.0"):
        export.gate(detectors.model(detector, contract(predict, threshold=1.0)), predict, rows)
    other = onnx.ModelProto()
    other.CopyFrom(good)
    other.graph.node[1].op_type = "Loop"
    with pytest.raises(export.GateError, match="operators .'Loop'. are not allowed"):
        export.gate(other, predict, rows)
    other.graph.node[1].op_type, other.graph.node[1].domain = "Sigmoid", "com.example"
    with pytest.raises(export.GateError, match="operators .'com.example.Sigmoid'. are not allowed"):
        export.gate(other, predict, rows)


def test_operators_are_those_of_picket(trained):
    text = (pathlib.Path(__file__).parents[3] / "runtime" / "onnx" / "check.go").read_text()
    known = re.search(r"var allowedOps = map\[string\]bool\{(.*?)\n\}", text, re.S)[1]
    assert export.ALLOWED_OPS == set(re.findall(r'"([\w.]+)": true', known))
    _, booster, predict = trained
    model = detectors.model(detectors.Boosted(COLUMNS, booster), contract(predict))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Tanh", "ai.onnx"
    export.check_structure(model)


def test_no_number_for_json(trained):
    _, booster, predict = trained
    golden = {"rows": [[0, float("nan"), 0, 0]], "scores": [.5]}
    with pytest.raises(export.GateError, match="picket.golden holds NaN or an infinity, .* put a finite one"):
        detectors.model(detectors.Boosted(COLUMNS, booster), contract(predict, golden=golden))


@pytest.mark.parametrize("kind", ["dart", "gblinear"])
def test_other_boosters(kind):
    rows = np.random.default_rng(0).random((100, 4))
    booster = xgboost.train({"objective": "binary:logistic", "booster": kind, "nthread": 1},
                            xgboost.DMatrix(rows, rows[:, 0] > .5), 2)
    with pytest.raises(export.GateError, match=f"booster {kind} .* train it with booster=gbtree"):
        export.Trees.from_xgboost(booster)


def test_gate_refuses_size(trained, monkeypatch):
    rows, booster, predict = trained
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(export.GateError, match="the limit is 1,000"):
        export.gate(detectors.model(detectors.Boosted(COLUMNS, booster), contract(predict)),
                    predict, rows)


def test_write_leaves_no_part(tmp_path):
    export.write(tmp_path / "sub" / "m.onnx", b"1")
    with pytest.raises(TypeError):
        export.write(tmp_path / "sub" / "m.onnx", "text")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "sub").iterdir()] == [("m.onnx", b"1")]
