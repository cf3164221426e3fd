"""ONNX graphs, node by node, out of the operators that Picket's structural check accepts."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 8
OPSETS = [("", 13), ("ai.onnx.ml", 3)]


class Graph:
    """Nodes and constants of a graph whose input is `input`, float32 [N, width]."""

    def __init__(self, width):
        self.width, self.nodes, self.constants = width, [], []

    def op(self, kind, *inputs, outputs=1, domain="", **attributes):
        """Adds a node and returns its output's name, or names; arrays among inputs become constants."""
        names = ["sum" if kind == "TreeEnsembleRegressor" and not self.nodes else
                 f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain or None, **attributes))
        return names[0] if outputs == 1 else names

    def _constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def columns(self, x, at):
        """The columns `at` of x [N, F]: x itself where that is all of them in order."""
        if list(at) == list(range(self.width)):
            return x
        return self.op("Gather", x, np.array(at, np.int64), axis=1)

    def trees(self, x, trees, at):
        """The sum of the leaves that rows of x reach, [N, 1]; feature i of the trees is column at[i]."""
        leaf = trees.left < 0
        threshold = np.where(leaf, np.float32(0), trees.threshold)
        missing = {}
        if trees.mode == "BRANCH_LT":  # XGBoost's, which know what to do with NaN
            missing["nodes_missing_value_tracks_true"] = (trees.nan_left & ~leaf).astype(int).tolist()
        return self.op(
            "TreeEnsembleRegressor", x, domain="ai.onnx.ml",
            n_targets=1, aggregate_function="SUM", post_transform="NONE", base_values=[trees.base],
            nodes_treeids=trees.tree.tolist(),
            nodes_nodeids=trees.node.tolist(),
            nodes_featureids=np.where(leaf, 0, np.asarray(at)[trees.feature * ~leaf]).tolist(),
            nodes_modes=np.where(leaf, "LEAF", trees.mode).tolist(),
            nodes_values=threshold.astype(float).tolist(),
            nodes_truenodeids=np.where(leaf, 0, trees.left).tolist(),
            nodes_falsenodeids=np.where(leaf, 0, trees.right).tolist(),
            **missing,
            target_treeids=trees.tree[leaf].tolist(),
            target_nodeids=trees.node[leaf].tolist(),
            target_ids=[0] * int(leaf.sum()),
            target_weights=trees.threshold[leaf].astype(float).tolist(),
        )

    def model(self, score, contract):
        """The ONNX model whose output `score`, float32 [N, 1], is the value of that name here."""
        last = next(node for node in self.nodes if score in node.output)
        last.output[list(last.output).index(score)] = "score"
        if any(score in node.input for node in self.nodes):
            raise ValueError("the score is used inside the graph")
        graph = helper.make_graph(
            self.nodes, contract.name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", self.width])],
            [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])], self.constants)
        model = helper.make_model(
            graph, ir_version=IR_VERSION, producer_name="picket-train",
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS])
        helper.set_model_props(model, contract.metadata())
        onnx.checker.check_model(model)
        return model
