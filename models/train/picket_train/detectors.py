"""The kinds of models: each is fitted, scores rows with its own library, and draws itself as a graph.

Rows are raw values, float32 [rows, columns], as the runtime hands them over. A level is a score
before it is bent into 0..1; both rise with anomaly.
"""

import functools
import os
import warnings
from dataclasses import dataclass

import numpy as np
import xgboost
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from .export import Trees
from .graph import Graph


@dataclass
class Boosted:
    """XGBoost, binary:logistic. Level: log-odds."""

    columns: list
    booster: xgboost.Booster
    library = "XGBoost"
    what = "XGBoost"
    least = 0.05
    knows_nan = True

    @classmethod
    def fit(cls, columns, rows, truth, seed, spec, weight=None):
        """One thread, so that the same seed gives the same trees on any number of cores."""
        data = xgboost.QuantileDMatrix(rows, truth, weight=weight, nthread=1)
        booster = xgboost.train(cls.parameters(columns, seed, spec), data, spec["rounds"])
        return cls(columns, booster)

    @staticmethod
    def parameters(columns, seed, spec):
        """XGBoost's own parameters of a recipe's model."""
        rises, falls = spec.get("rises", ()), spec.get("falls", ())
        return {
            "objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "seed": seed,
            "base_score": 0.5, "max_depth": spec["depth"], "eta": spec["eta"],
            "subsample": spec["subsample"], "colsample_bytree": spec["colsample"],
            "monotone_constraints": tuple((c in rises) - (c in falls) for c in columns),
        }

    def level(self, rows):
        return self.booster.predict(xgboost.DMatrix(rows, nthread=1), output_margin=True)

    def score(self, rows):
        return self.booster.predict(xgboost.DMatrix(rows, nthread=1))

    @functools.cached_property
    def trees(self):
        return Trees.from_xgboost(self.booster)

    def cuts(self):
        return self.trees.cuts()

    def draw_level(self, graph, at):
        return graph.trees("input", self.trees, at)

    def draw(self, graph, at):
        return graph.op("Sigmoid", self.draw_level(graph, at))

    def size(self):
        return f"{self.trees.tree[-1] + 1} trees, {len(self.trees.node):,} nodes"


@dataclass
class Bagged:
    """scikit-learn's random forest. Level and score: the trees' mean probability of an attack."""

    columns: list
    forest: RandomForestClassifier
    library = "scikit-learn"
    what = "random forest"
    least = 0.005
    knows_nan = False

    @classmethod
    def fit(cls, columns, rows, truth, seed, spec, weight=None):
        forest = RandomForestClassifier(
            n_estimators=spec["trees"], max_leaf_nodes=spec["leaves"], max_features=spec["share"],
            class_weight="balanced", random_state=seed, n_jobs=1)
        return cls(columns, forest.fit(rows, truth, weight))

    def level(self, rows):
        return self.forest.predict_proba(rows)[:, 1]

    score = level

    @functools.cached_property
    def trees(self):
        share = 1 / len(self.forest.estimators_)
        return Trees.from_sklearn(
            [(e.tree_, e.tree_.value[:, 0, 1] / e.tree_.value[:, 0].sum(axis=1) * share, None)
             for e in self.forest.estimators_])

    def cuts(self):
        return self.trees.cuts()

    def draw_level(self, graph, at):
        # The float32 sum of shares may pass 1 by a rounding step.
        return graph.op("Min", graph.trees("input", self.trees, at), np.float32([[1]]))

    draw = draw_level

    def size(self):
        return f"{self.trees.tree[-1] + 1} trees, {len(self.trees.node):,} nodes"


@dataclass
class Isolated:
    """scikit-learn's isolation forest, fitted on normals. Level and score: 2^(-E/c), E the mean path
    length of a row, c that of a search that fails (Liu, Ting, Zhou 2008).

    Columns in `logs` are fitted as log(1 + x); the trees' thresholds are turned back afterwards, so
    that they compare raw values.
    """

    columns: list
    forest: SklearnForest
    library = "scikit-learn"
    what = "isolation forest"
    least = 0.005
    knows_nan = False

    @classmethod
    def fit(cls, columns, rows, seed, spec):
        log = np.isin(columns, spec["logs"])
        bent = np.where(log, np.log1p(np.maximum(rows, 0)), rows).astype(np.float32)
        forest = SklearnForest(n_estimators=spec["trees"], max_samples=min(spec["samples"], len(rows)),
                               max_features=spec["share"], random_state=seed, n_jobs=1).fit(bent)
        for tree, used in zip(forest.estimators_, forest.estimators_features_):
            inner = tree.tree_.children_left >= 0
            turn = inner & log[used[tree.tree_.feature * inner]]
            tree.tree_.threshold[turn] = np.expm1(tree.tree_.threshold[turn])
        return cls(columns, forest)

    def level(self, rows):
        return -self.forest.score_samples(rows)

    score = level

    @functools.cached_property
    def trees(self):
        forest = self.forest
        whole = _search(forest._max_samples) * len(forest.estimators_)  # c, for all trees
        parts = []
        for tree, used in zip(forest.estimators_, forest.estimators_features_):
            t = tree.tree_
            length = _depth(t) + np.array([_search(n) for n in t.n_node_samples])
            parts.append((t, -np.log(2) * length / whole, used))
        return Trees.from_sklearn(parts)

    def cuts(self):
        return self.trees.cuts()

    def draw_level(self, graph, at):
        return graph.op("Exp", graph.trees("input", self.trees, at))

    draw = draw_level

    def size(self):
        return f"{self.trees.tree[-1] + 1} trees, {len(self.trees.node):,} nodes"


def _search(n):
    """Mean path length of an unsuccessful search among n rows."""
    if n <= 1:
        return 0.0
    return 1.0 if n == 2 else 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n


def _depth(tree):
    depth = np.zeros(tree.node_count)
    for i in range(tree.node_count):  # a parent comes before its children
        for child in (tree.children_left[i], tree.children_right[i]):
            if child >= 0:
                depth[child] = depth[i] + 1
    return depth


@dataclass
class Scaler:
    """Raw rows → float32 [rows, columns] of about unit spread: log(1 + x) for some columns, then
    mean 0 and deviation 1 of the normals, then cut to ± clip. In float32 step by step as the graph
    does it, so that both have the same bits but for the logarithm."""

    straight: np.ndarray  # float32 [columns], 0 for a logarithmic column
    bent: np.ndarray      # float32 [columns], 0 for a straight one
    shift: np.ndarray     # float32 [columns]
    clip: float

    @classmethod
    def fit(cls, columns, rows, logs, floor, clip):
        """floor: the least deviation that counts, so that a rare 1 among zeros is no giant."""
        log = np.isin(columns, logs)
        rows = rows.astype(np.float64)
        rows = np.where(log, np.log1p(np.maximum(rows, 0)), rows)
        scale = 1 / np.maximum(rows.std(axis=0), floor)
        f32 = np.float32
        return cls(np.where(log, 0, scale).astype(f32), np.where(log, scale, 0).astype(f32),
                   (-rows.mean(axis=0) * scale).astype(f32), clip)

    def apply(self, rows):
        with np.errstate(over="ignore"):
            log = np.log(np.maximum(rows, np.float32(0)) + np.float32(1))
            return np.clip(rows * self.straight + log * self.bent + self.shift,
                           np.float32(-self.clip), np.float32(self.clip))

    def draw(self, graph, at):
        x = graph.columns("input", at)
        zero, one = np.float32([[0]]), np.float32([[1]])
        log = graph.op("Log", graph.op("Add", graph.op("Max", x, zero), one))
        both = graph.op("Add", graph.op("Mul", x, self.straight), graph.op("Mul", log, self.bent))
        return graph.op("Clip", graph.op("Add", both, self.shift),
                        np.array(-self.clip, np.float32), np.array(self.clip, np.float32))


@dataclass
class Local:
    """scikit-learn's local outlier factor (novelty) beside a sample of the normals, from which those
    with the farthest neighbours are trimmed: an attack beside a lonely normal would be in good company.
    Level: log of the factor; score: factor / (factor + middle).

    The graph takes distances as |z|² - 2 z·r + |r|² in float64: in float32 the difference would
    cancel and pick other neighbours.
    """

    columns: list
    scaler: Scaler
    factor: LocalOutlierFactor
    reference: np.ndarray  # float32 [sample, columns], scaled
    middle: float
    library = "scikit-learn"
    what = "local outlier factor"
    least = 0.02
    knows_nan = False

    @classmethod
    def fit(cls, columns, rows, seed, spec):
        scaler = Scaler.fit(columns, rows, spec["logs"], spec["floor"], spec["clip"])
        scaled = np.unique(scaler.apply(rows), axis=0)  # equal rows would have density without end
        order = np.random.default_rng(seed).permutation(len(scaled))
        drawn = scaled[np.sort(order[:round(spec["sample"] / (1 - spec["trimmed"]))])]
        lonely = NearestNeighbors(n_neighbors=min(spec["neighbours"], len(drawn)), algorithm="brute",
                                  n_jobs=1).fit(drawn).kneighbors(drawn)[0][:, -1]
        reference = drawn[np.sort(np.argsort(lonely, kind="stable")[:spec["sample"]])]
        model = LocalOutlierFactor(n_neighbors=min(spec["neighbours"], len(reference) - 1),
                                   novelty=True, algorithm="brute", n_jobs=1)
        model.fit(reference.astype(np.float64))
        self = cls(columns, scaler, model, reference, 1.0)
        some = np.random.default_rng(seed).choice(len(rows), min(5000, len(rows)), replace=False)
        self.middle = float(np.quantile(np.exp(self.level(rows[some])), 0.95))
        return self

    def level(self, rows):
        return np.log(self._factor(rows))

    def score(self, rows):
        factor = self._factor(rows)
        return factor / (factor + self.middle)

    def _factor(self, rows):
        return -self.factor.score_samples(self.scaler.apply(rows).astype(np.float64))

    def cuts(self):
        return {}

    def _draw_factor(self, graph, at):
        reference = self.reference.astype(np.float64)
        k = self.factor.n_neighbors_
        z = graph.op("Cast", self.scaler.draw(graph, at), to=11)
        ones = np.ones((len(self.columns), 1))
        own = graph.op("MatMul", graph.op("Mul", z, z), ones)
        turned = graph.op("Cast", np.ascontiguousarray(-2 * self.reference.T), to=11)
        far = graph.op("Add", graph.op("Add", graph.op("MatMul", z, turned), own),
                       (reference ** 2).sum(axis=1)[None])
        near, which = graph.op("TopK", far, np.array([k], np.int64), axis=1, largest=0, outputs=2)
        distance = graph.op("Sqrt", graph.op("Max", near, np.array([[0.0]])))
        reach = graph.op("Max", distance, graph.op("Gather", self.factor._distances_fit_X_[:, k - 1], which))
        mean = np.full((k, 1), 1 / k)
        density = graph.op("Add", graph.op("MatMul", reach, mean), np.array([[1e-10]]))
        others = graph.op("MatMul", graph.op("Gather", self.factor._lrd, which), mean)
        return graph.op("Mul", others, density)

    def draw_level(self, graph, at):
        return graph.op("Log", graph.op("Cast", self._draw_factor(graph, at), to=1))

    def draw(self, graph, at):
        factor = self._draw_factor(graph, at)
        share = graph.op("Div", factor, graph.op("Add", factor, np.array([[self.middle]])))
        return graph.op("Cast", share, to=1)

    def size(self):
        return f"{len(self.reference):,} normals, {self.factor.n_neighbors_} neighbours"


@dataclass
class Autoencoder:
    """A Keras autoencoder of normals. Level: log of the mean squared error of the scaled row; score:
    error / (error + middle), middle the error that a twentieth of the training normals pass."""

    columns: list
    scaler: Scaler
    layers: list           # hidden widths
    weights: list          # float32 arrays in Keras' order
    middle: float
    library = "Keras"
    what = "denoising autoencoder"
    least = 0.02
    knows_nan = False

    @classmethod
    def fit(cls, columns, rows, seed, spec):
        keras = _keras()
        keras.utils.set_random_seed(seed)
        scaler = Scaler.fit(columns, rows, spec["logs"], spec["floor"], spec["clip"])
        scaled = scaler.apply(rows)
        network = _network(keras, len(columns), spec["layers"], spec["noise"])
        network.compile(keras.optimizers.Adam(spec["rate"]), "mse")
        network.fit(scaled, scaled, epochs=spec["epochs"], batch_size=256, verbose=0)
        self = cls(columns, scaler, spec["layers"], network.get_weights(), 1.0)
        self.middle = float(np.quantile(self._error(rows), 0.95))
        keras.backend.clear_session()
        return self

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "network"}

    @functools.cached_property
    def network(self):
        network = _network(_keras(), len(self.columns), self.layers, 0)
        network.set_weights(self.weights)
        return network

    def level(self, rows):
        return np.log(np.maximum(self._error(rows), 1e-6))

    def score(self, rows):
        error = self._error(rows)
        return error / (error + self.middle)

    def _error(self, rows):
        scaled = self.scaler.apply(rows)
        again = self.network.predict(scaled, batch_size=4096, verbose=0)
        return ((again.astype(np.float64) - scaled) ** 2).mean(axis=1)

    def cuts(self):
        return {}

    def _draw_error(self, graph, at):
        scaled = hidden = self.scaler.draw(graph, at)
        pairs = list(zip(self.weights[::2], self.weights[1::2]))
        for number, (weight, bias) in enumerate(pairs):
            hidden = graph.op("Add", graph.op("MatMul", hidden, weight), bias)
            if number < len(pairs) - 1:
                hidden = graph.op("Relu", hidden)
        gap = graph.op("Sub", hidden, scaled)
        width = len(self.columns)  # a mean by MatMul has the same bits at any place in a batch
        return graph.op("MatMul", graph.op("Mul", gap, gap), np.full((width, 1), 1 / width, np.float32))

    def draw_level(self, graph, at):
        return graph.op("Log", graph.op("Max", self._draw_error(graph, at), np.float32([[1e-6]])))

    def draw(self, graph, at):
        error = self._draw_error(graph, at)
        return graph.op("Div", error, graph.op("Add", error, np.float32([[self.middle]])))

    def size(self):
        return "-".join(map(str, [len(self.columns), *self.layers, len(self.columns)])) + " units"


def _keras():
    """Keras on TensorFlow with one thread and repeatable sums."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import tensorflow
    tensorflow.get_logger().setLevel("ERROR")
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        tensorflow.config.experimental.enable_op_determinism()
    except RuntimeError:
        pass  # TensorFlow runs already, with these settings
    return keras


def _network(keras, width, layers, noise):
    first = last = keras.Input((width,))
    if noise:
        last = keras.layers.Dropout(noise)(last)
    for units in layers:
        last = keras.layers.Dense(units, activation="relu")(last)
    return keras.Model(first, keras.layers.Dense(width)(last))


@dataclass
class Rarity:
    """Turns a level into how rare it is among normals: -log10 of the share of held-out normals that
    reach it, piecewise linear between their quantiles. 0 is ordinary, `top` beyond all of them."""

    starts: np.ndarray  # float32 [pieces]
    widths: np.ndarray  # float32 [pieces]
    slopes: np.ndarray  # float32 [pieces]
    top: float

    QUANTILES = (0, .25, .5, .7, .8, .9, .95, .98, .99, .995, .998)

    @classmethod
    def fit(cls, levels, least):
        """least: the narrowest piece. A steeper one would magnify rounding in the level."""
        top = float(np.log10(2 * len(levels)))
        at = [float(np.quantile(levels, q)) for q in cls.QUANTILES] + [float(levels.max())]
        height = [min(-np.log10(1 - q), top) for q in cls.QUANTILES] + [top]
        knots = [(at[0], height[0])]
        for x, y in zip(at[1:], height[1:]):
            if x - knots[-1][0] < least:
                knots[-1] = (knots[-1][0], y) if len(knots) > 1 else knots[-1]
            else:
                knots.append((x, y))
        if len(knots) < 2:
            knots.append((at[0] + least, top))
        knots[-1] = (knots[-1][0], top)
        x, y = np.array(knots).T
        widths = np.diff(x)
        return cls(x[:-1].astype(np.float32), widths.astype(np.float32),
                   (np.diff(y) / widths).astype(np.float32), top)

    def apply(self, levels):
        part = np.clip(np.asarray(levels, np.float64)[:, None] - self.starts, 0, self.widths)
        return part @ self.slopes.astype(np.float64)

    def draw(self, graph, level):
        past = graph.op("Max", graph.op("Sub", level, self.starts[None]), np.float32([[0]]))
        return graph.op("MatMul", graph.op("Min", past, self.widths[None]), self.slopes[:, None])


@dataclass
class Ensemble:
    """A weighted mean of its members' rarities among held-out normals, over the largest possible."""

    columns: list
    members: dict          # name → detector
    rarities: dict         # name → Rarity
    weights: dict          # name → share, together 1
    what = "fusion of three models"
    knows_nan = False

    @property
    def library(self):
        """The members' libraries, as words."""
        names = dict.fromkeys(member.library for member in self.members.values())
        return " and ".join(", ".join(names).rsplit(", ", 1))

    @classmethod
    def fit(cls, columns, members, held, weights):
        """held: normals that no member was fitted on, float32 [rows, columns]."""
        whole = sum(weights.values())
        self = cls(columns, members, {}, {name: w / whole for name, w in weights.items()})
        for name, member in members.items():
            self.rarities[name] = Rarity.fit(member.level(held[:, self._at(member)]), member.least)
        return self

    def _at(self, member):
        return [self.columns.index(column) for column in member.columns]

    def parts(self, rows):
        """The members' rarities by name, each float64 [rows]."""
        return {name: self.rarities[name].apply(member.level(rows[:, self._at(member)]))
                for name, member in self.members.items()}

    def score(self, rows):
        return self.fuse(self.parts(rows))

    level = score

    def fuse(self, parts):
        return sum(self.weights[name] / self.rarities[name].top * parts[name] for name in parts)

    def cuts(self):
        out = {}
        for member in self.members.values():
            for column, cuts in member.cuts().items():
                at = self._at(member)[column]
                out[at] = np.concatenate([out.get(at, cuts[:0]), cuts])
        return out

    def draw(self, graph, at):
        total = None
        for name, member in self.members.items():
            here = [at[i] for i in self._at(member)]
            rare = self.rarities[name].draw(graph, member.draw_level(graph, here))
            share = np.float32([[self.weights[name] / self.rarities[name].top]])
            part = graph.op("Mul", rare, share)
            total = part if total is None else graph.op("Add", total, part)
        return graph.op("Clip", total, np.array(0, np.float32), np.array(1, np.float32))

    def size(self):
        return "; ".join(f"{member.what}: {member.size()}" for member in self.members.values())


KINDS = {"xgboost": Boosted, "random-forest": Bagged, "isolation-forest": Isolated, "lof": Local,
         "autoencoder": Autoencoder, "ensemble": Ensemble}


def model(detector, contract):
    """The ONNX model of a detector: input float32 [N, F] → score float32 [N, 1]."""
    graph = Graph(len(detector.columns))
    return graph.model(detector.draw(graph, range(len(detector.columns))), contract)
