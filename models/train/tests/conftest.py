"""Data sets of 1,000 rows, made here."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from picket_train import data
from picket_train.recipes import iot


ATTACKS = ["neptune", "smurf", "portsweep", "satan", "warezclient", "guess_passwd", "back", "ipsweep",
           "perl", "rootkit"]


def nslkdd_frame(count, seed, attacks):
    """Rows in NSL-KDD's form; attacks have higher error rates."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 9, count).astype(float) for name in data.COLUMNS}
    for name in data.COLUMNS:
        if name.endswith("_rate") or name in ("land", "num_outbound_cmds"):
            columns[name] = (rng.random(count) * .4).round(2)
    for name, values in data.CODES.items():
        columns[name] = rng.choice(values, count)
    label = np.where(rng.random(count) < .5, "normal", rng.choice(attacks, count))
    columns["serror_rate"] = np.where(label == "normal", columns["serror_rate"],
                                      .3 + .7 * rng.random(count)).round(2)
    columns["label"] = label
    return pd.DataFrame(columns)[data.COLUMNS]


@pytest.fixture(scope="session")
def frame():
    return nslkdd_frame(1000, 0, ATTACKS)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder of all data sets, as $PICKET_DATA names one; data.PARTS are made to fit."""
    root = tmp_path_factory.mktemp("data")
    (root / "nsl-kdd").mkdir()
    (root / "iot-telecom").mkdir()
    parts = {}
    for number, (name, part) in enumerate(data.PARTS.items()):
        unseen = ["mscan", "apache2"] if number else []
        text = nslkdd_frame(1000, number, ATTACKS + unseen).to_csv(index=False, header=False).encode()
        (root / "nsl-kdd" / part.file).write_bytes(text)
        parts[name] = data.Part(part.file, 1000, hashlib.sha256(text).hexdigest())
    rng = np.random.default_rng(0)
    table = {name: rng.random(1000) for name in iot.MEASURED}
    table["label"] = (np.arange(1000) % 10 == 0).astype(float)
    table |= {name: rng.random(1000) < .4 for name in [*iot.NAMES, *iot.ADDRESSES]}
    pd.DataFrame(table).to_csv(root / "iot-telecom" / iot.FILE, index=False)
    original, data.PARTS = data.PARTS, parts
    yield root
    data.PARTS = original
