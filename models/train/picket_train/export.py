"""Models as self-describing ONNX files: the trees of three libraries, the metadata contract, the gate.

The graphs use only what ONNX Runtime 1.21 and Picket's structural check accept.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

ALLOWED_OPS = {  # those of runtime/onnx/check.go
    "ai.onnx.ml.TreeEnsembleRegressor", "ai.onnx.ml.Scaler", "ai.onnx.ml.Imputer",
    "Abs", "Add", "And", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Div", "Elu", "Equal", "Erf", "Exp",
    "Flatten", "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mul", "Neg", "Not", "Or", "Pow", "PRelu", "Reciprocal",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Selu",
    "Sigmoid", "Sign", "Slice", "Softmax", "Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "TopK",
    "Transpose", "Unsqueeze", "Where"}
MAX_BYTES = 1_500_000
MAX_DIFFERENCE = 1e-6  # of a score; 1e-5 of its value for what is not trees alone
LARGEST = float(np.finfo(np.float32).max)


class GateError(Exception):
    """A model that must not be written; the message says which promise it breaks."""


@dataclass
class Trees:
    """A tree ensemble as flat node arrays; a row goes left where value < threshold (mode BRANCH_LT) or
    <= threshold (BRANCH_LEQ), and where the value is NaN and nan_left is set. A leaf has left = -1 and
    its value in threshold."""

    tree: np.ndarray       # int [nodes], 0, 1, 2 …
    node: np.ndarray       # int [nodes], 0 is the root of its tree
    feature: np.ndarray    # int [nodes]
    threshold: np.ndarray  # float32 [nodes]
    left: np.ndarray       # int [nodes]
    right: np.ndarray      # int [nodes]
    nan_left: np.ndarray   # bool [nodes]
    base: float            # added to the sum of the leaves
    mode: str = "BRANCH_LT"

    @classmethod
    def from_xgboost(cls, booster):
        """The trees of a binary:logistic booster; their sum is the log-odds."""
        learner = json.loads(booster.save_raw("json"))["learner"]
        if learner["gradient_booster"]["name"] != "gbtree":
            raise GateError(f"an XGBoost booster {learner['gradient_booster']['name']} has no trees that add up as they "
                            "are: train it with booster=gbtree")
        probability = float(learner["learner_model_param"]["base_score"].strip("[]"))
        trees = learner["gradient_booster"]["model"]["trees"]
        return cls._join([{
            "feature": tree["split_indices"], "threshold": tree["split_conditions"],
            "left": tree["left_children"], "right": tree["right_children"],
            "nan_left": tree["default_left"]} for tree in trees],
            base=float(np.log(probability / (1 - probability))))

    @classmethod
    def from_sklearn(cls, parts):
        """Of (tree, value of each node when it is a leaf, numbers of its columns or None) …

        A float32 value is <= a float64 threshold exactly if it is <= the next float32 at or below that.
        """
        columns = []
        for tree, value, used in parts:
            inner = tree.children_left >= 0
            below = tree.threshold.astype(np.float32)
            below = np.where(below > tree.threshold, np.nextafter(below, np.float32(-np.inf)), below)
            feature = np.where(inner, tree.feature, 0)
            columns.append({
                "feature": feature if used is None else np.asarray(used)[feature],
                "threshold": np.where(inner, below, value), "left": tree.children_left,
                "right": tree.children_right, "nan_left": np.zeros(len(value), bool)})
        return cls._join(columns, base=0.0, mode="BRANCH_LEQ")

    @classmethod
    def _join(cls, parts, **rest):
        types = {"threshold": np.float32, "nan_left": bool}
        sizes = [len(part["left"]) for part in parts]
        arrays = {key: np.concatenate([part[key] for part in parts]).astype(types.get(key, np.int64))
                  for key in parts[0]}
        return cls(tree=np.repeat(np.arange(len(parts)), sizes),
                   node=np.concatenate([np.arange(size) for size in sizes]), **arrays, **rest)

    def cuts(self):
        """Thresholds by feature number, float32 arrays."""
        inner = self.left >= 0
        return {int(f): self.threshold[inner & (self.feature == f)]
                for f in np.unique(self.feature[inner])}


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
            "picket.features": self._json("features"),
            "picket.input": "input",
            "picket.score": "score",
            "picket.threshold": repr(self.threshold),
            "picket.typical": self._json("typical"),
            "picket.calibration": self._json("calibration"),
            "picket.golden": self._json("golden"),
            "picket.training": self._json("training"),
        }

    def _json(self, name):
        try:
            return json.dumps(getattr(self, name), separators=(",", ":"), allow_nan=False)
        except ValueError as err:
            raise GateError(f"picket.{name} holds NaN or an infinity, for which JSON has no number: put a finite one "
                            "there (Picket scores a column's typical value in place of both)") from err


def session(blob):
    """A one-thread ONNX Runtime session of serialised model bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def score(runner, rows):
    """Scores float32 [rows] of raw rows float32 [rows, features]."""
    return runner.run(["score"], {"input": np.ascontiguousarray(rows, np.float32)})[0].ravel()


def synthetic(rows, cuts, count, seed):
    """Hard rows, float32 [count, features]: real rows with cells replaced by NaN, extremes, noise, or
    values at, just below and just above one of the column's cuts (arrays by column number)."""
    rng = np.random.default_rng(seed)
    out = rows[rng.integers(len(rows), size=count)].copy()
    extremes = np.array([0, -1, 1, LARGEST, -LARGEST, 1e-45, 1e9, np.inf, -np.inf], np.float32)
    for column in range(out.shape[1]):
        kind = rng.integers(8, size=count)
        out[kind == 0, column] = np.nan
        out[kind == 1, column] = rng.choice(extremes, (kind == 1).sum())
        if len(cuts.get(column, ())):
            at = rng.choice(cuts[column], count)
            out[kind == 2, column] = at[kind == 2]
            out[kind == 3, column] = np.nextafter(at, np.float32(-np.inf))[kind == 3]
            out[kind == 4, column] = np.nextafter(at, np.float32(np.inf))[kind == 4]
        noise = rng.lognormal(2, 4, count).astype(np.float32)
        out[kind == 5, column] = noise[kind == 5]
    return out


def as_served(rows, typical):
    """Rows as the runtime hands them to a graph: NaN and infinities become the column's typical value."""
    return np.where(np.isfinite(rows), rows, np.asarray(typical, np.float32))


def gate(model, reference, rows, relative=0.0):
    """Serialised bytes of a model that keeps its promises, and what was measured; else GateError.

    reference scores rows with the library that trained the model: float32 [rows, F] → [rows].
    That library may refuse infinities: it gets the largest finite float32 in their place. A score
    may differ by MAX_DIFFERENCE, or by the share `relative` of its value if that is more.
    """
    check_structure(model)
    blob = model.SerializeToString(deterministic=True)
    if len(blob) > MAX_BYTES:
        raise GateError(f"{len(blob):,} bytes, the limit is {MAX_BYTES:,}")
    runner = session(blob)
    got = np.concatenate([score(runner, rows[i:i + 1024]) for i in range(0, len(rows), 1024)])
    if not (np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1):
        raise GateError(f"scores leave 0..1: {got.min()} to {got.max()}")
    want = reference(np.nan_to_num(rows, nan=np.nan, posinf=LARGEST, neginf=-LARGEST))
    difference = np.abs(got.astype(float) - want)
    allowed = np.maximum(MAX_DIFFERENCE, relative * np.abs(want))
    if (difference > allowed).any():
        worst = int((difference - allowed).argmax())
        raise GateError(f"row {worst}: ONNX Runtime says {got[worst]:.9f}, the trainer "
                        f"{want[worst]:.9f}; {(difference > allowed).sum():,} of "
                        f"{len(rows):,} rows differ by more than {MAX_DIFFERENCE}"
                        + (f" or {relative:g} of the score" if relative else ""))
    meta = runner.get_modelmeta().custom_metadata_map
    golden = json.loads(meta["picket.golden"])
    want = np.array(golden["scores"])
    drift = np.abs(score(runner, np.array(golden["rows"], np.float32)) - want)
    if (drift > np.maximum(MAX_DIFFERENCE, relative * want)).any():
        raise GateError(f"golden rows differ by {drift.max():.2e}")
    return blob, {"rows": len(rows), "difference": float(difference.max()), "bytes": len(blob),
                  "golden": len(golden["rows"])}


def picket_check(picket, blob):
    """What `picket model check` prints of a model: its structure, its golden rows, its speed."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(blob)
        file.flush()
        done = subprocess.run([picket, "model", "check", file.name], capture_output=True, text=True)
    if done.returncode:
        raise GateError(f"{picket} model check: {done.stderr.strip()}")
    return done.stdout.replace(file.name, "").strip()


def check_structure(model):
    """Raises GateError unless the model has only allowed operators and no external data."""
    ops = {node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
           for node in model.graph.node}
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
