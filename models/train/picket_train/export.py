"""Models as self-describing ONNX files: tree ensembles, the metadata contract, and the gate.

The graphs use only what ONNX Runtime 1.21 and Picket's structural check accept.
"""

import json
import os
import pathlib
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

IR_VERSION = 8
OPSETS = [("", 13), ("ai.onnx.ml", 3)]
ALLOWED_OPS = {"TreeEnsembleRegressor", "Sigmoid"}
MAX_BYTES = 1_500_000
MAX_DIFFERENCE = 1e-6
LARGEST = float(np.finfo(np.float32).max)


class GateError(Exception):
    """A model that must not be written; the message says which promise it breaks."""


@dataclass
class Trees:
    """A tree ensemble as flat node arrays; a row goes left where value < threshold, and where
    the value is NaN and nan_left is set. A leaf has left = -1 and its value in threshold."""

    tree: np.ndarray       # int [nodes], 0, 1, 2 …
    node: np.ndarray       # int [nodes], 0 is the root of its tree
    feature: np.ndarray    # int [nodes]
    threshold: np.ndarray  # float32 [nodes]
    left: np.ndarray       # int [nodes]
    right: np.ndarray      # int [nodes]
    nan_left: np.ndarray   # bool [nodes]
    base: float            # added to the sum of the leaves


@dataclass
class Contract:
    """What a model says of itself; becomes the picket.* metadata."""

    name: str
    version: str
    row: str
    features: list
    threshold: float
    typical: list
    calibration: dict      # quantiles, scores
    golden: dict           # rows, scores
    training: dict

    def metadata(self):
        """Metadata properties, text by key."""
        return {
            "picket.contract": "1",
            "picket.name": self.name,
            "picket.version": self.version,
            "picket.row": self.row,
            "picket.features": _json(self.features),
            "picket.input": "input",
            "picket.score": "score",
            "picket.threshold": repr(self.threshold),
            "picket.typical": _json(self.typical),
            "picket.calibration": _json(self.calibration),
            "picket.golden": _json(self.golden),
            "picket.training": _json(self.training),
        }


def from_xgboost(booster):
    """The Trees of a binary:logistic booster; their sum is the log-odds."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    probability = float(learner["learner_model_param"]["base_score"].strip("[]"))
    columns = {key: [] for key in ("tree", "node", "feature", "threshold", "left", "right",
                                   "nan_left")}
    for number, tree in enumerate(learner["gradient_booster"]["model"]["trees"]):
        count = len(tree["left_children"])
        columns["tree"] += [number] * count
        columns["node"] += range(count)
        columns["feature"] += tree["split_indices"]
        columns["threshold"] += tree["split_conditions"]
        columns["left"] += tree["left_children"]
        columns["right"] += tree["right_children"]
        columns["nan_left"] += tree["default_left"]
    types = {"threshold": np.float32, "nan_left": bool}
    arrays = {key: np.array(value, types.get(key, np.int64)) for key, value in columns.items()}
    return Trees(**arrays, base=float(np.log(probability / (1 - probability))))


def tree_model(trees, contract):
    """An ONNX model, input float32 [N, F] → score float32 [N, 1]: sigmoid of the trees' sum."""
    leaf = trees.left < 0
    threshold = np.where(leaf, np.float32(0), trees.threshold)
    regressor = helper.make_node(
        "TreeEnsembleRegressor", ["input"], ["sum"], domain="ai.onnx.ml",
        n_targets=1, aggregate_function="SUM", post_transform="NONE", base_values=[trees.base],
        nodes_treeids=trees.tree.tolist(),
        nodes_nodeids=trees.node.tolist(),
        nodes_featureids=np.where(leaf, 0, trees.feature).tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LT").tolist(),
        nodes_values=threshold.astype(float).tolist(),
        nodes_truenodeids=np.where(leaf, 0, trees.left).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, trees.right).tolist(),
        nodes_missing_value_tracks_true=(trees.nan_left & ~leaf).astype(int).tolist(),
        target_treeids=trees.tree[leaf].tolist(),
        target_nodeids=trees.node[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights=trees.threshold[leaf].astype(float).tolist(),
    )
    graph = helper.make_graph(
        [regressor, helper.make_node("Sigmoid", ["sum"], ["score"])], contract.name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", len(contract.features)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, producer_name="picket-train",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS])
    helper.set_model_props(model, contract.metadata())
    return model


def session(blob):
    """A one-thread ONNX Runtime session of serialised model bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def score(runner, rows):
    """Scores float32 [rows] of raw rows float32 [rows, features]."""
    return runner.run(["score"], {"input": np.ascontiguousarray(rows, np.float32)})[0].ravel()


def synthetic(rows, trees, count, seed):
    """Hard rows, float32 [count, features]: real rows with cells replaced by NaN, extremes,
    values at, just below and just above a threshold of the column, or noise."""
    rng = np.random.default_rng(seed)
    out = rows[rng.integers(len(rows), size=count)].copy()
    inner = trees.left >= 0
    extremes = np.array([0, -1, 1, LARGEST, -LARGEST, 1e-45, 1e9, np.inf, -np.inf], np.float32)
    for column in range(out.shape[1]):
        kind = rng.integers(8, size=count)
        out[kind == 0, column] = np.nan
        out[kind == 1, column] = rng.choice(extremes, (kind == 1).sum())
        cuts = trees.threshold[inner & (trees.feature == column)]
        if len(cuts):
            at = rng.choice(cuts, count)
            out[kind == 2, column] = at[kind == 2]
            out[kind == 3, column] = np.nextafter(at, np.float32(-np.inf))[kind == 3]
            out[kind == 4, column] = np.nextafter(at, np.float32(np.inf))[kind == 4]
        noise = rng.lognormal(2, 4, count).astype(np.float32)
        out[kind == 5, column] = noise[kind == 5]
    return out


def gate(model, reference, rows):
    """Serialised bytes of a model that keeps its promises, and what was measured; else GateError.

    reference scores rows with the library that trained the model: float32 [rows, F] → [rows].
    That library may refuse infinities: it gets the largest finite float32 in their place.
    """
    check_structure(model)
    blob = model.SerializeToString(deterministic=True)
    if len(blob) > MAX_BYTES:
        raise GateError(f"{len(blob):,} bytes, the limit is {MAX_BYTES:,}")
    runner = session(blob)
    got = score(runner, rows)
    if not (np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1):
        raise GateError(f"scores leave 0..1: {got.min()} to {got.max()}")
    want = reference(np.nan_to_num(rows, nan=np.nan, posinf=LARGEST, neginf=-LARGEST))
    difference = np.abs(got.astype(float) - want)
    if difference.max() > MAX_DIFFERENCE:
        worst = int(difference.argmax())
        raise GateError(f"row {worst}: ONNX Runtime says {got[worst]:.9f}, the trainer "
                        f"{want[worst]:.9f}; {(difference > MAX_DIFFERENCE).sum():,} of "
                        f"{len(rows):,} rows differ by more than {MAX_DIFFERENCE}")
    meta = runner.get_modelmeta().custom_metadata_map
    golden = json.loads(meta["picket.golden"])
    drift = np.abs(score(runner, np.array(golden["rows"], np.float32)) - golden["scores"]).max()
    if drift > MAX_DIFFERENCE:
        raise GateError(f"golden rows differ by {drift:.2e}")
    return blob, {"rows": len(rows), "difference": float(difference.max()), "bytes": len(blob),
                  "golden": len(golden["rows"])}


def check_structure(model):
    """Raises GateError unless the model has only allowed operators and no external data."""
    onnx.checker.check_model(model)
    ops = {node.op_type for node in model.graph.node}
    if not ops <= ALLOWED_OPS:
        raise GateError(f"operators {sorted(ops - ALLOWED_OPS)} are not allowed")
    if model.functions or len(model.graph.sparse_initializer):
        raise GateError("local functions and sparse tensors are not allowed")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise GateError("external data is not allowed")
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    meta = {entry.key: entry.value for entry in model.metadata_props}
    for key in ("picket.features", "picket.typical"):
        if len(json.loads(meta[key])) != width:
            raise GateError(f"{key} has {len(json.loads(meta[key]))} entries, the input {width}")
    if not 0 < float(meta["picket.threshold"]) < 1:
        raise GateError(f"threshold {meta['picket.threshold']} is not between 0 and 1")


def speed(blob, rows, batches=(1, 16, 64, 256), least=0.5):
    """Nanoseconds a row on one thread, by batch size."""
    runner, spent = session(blob), {}
    for batch in batches:
        feed = {"input": np.ascontiguousarray(rows[:batch], np.float32)}
        calls, began = 0, time.perf_counter()
        while (now := time.perf_counter()) - began < least:
            runner.run(["score"], feed)
            calls += 1
        spent[batch] = (now - began) / calls / batch * 1e9
    return spent


def write(path, blob):
    """Writes bytes so that a reader sees the old file or the new one, never a part."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(blob)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def _json(value):
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
