"""XGBoost on a Dask cluster that exists already, for data past one machine."""

import dask.array
import distributed
import numpy as np
from xgboost import dask as dxgb

from . import detectors


def fit(address, columns, rows, truth, seed, spec):
    """A detectors.Boosted as Boosted.fit gives it, but for the histograms' sums, which are added up in
    another order. rows float32 [rows, columns], truth 0/1 [rows]."""
    with distributed.Client(address) as client:
        workers = len(client.scheduler_info()["workers"])
        chunk = -(-len(rows) // max(workers, 1))
        data = dxgb.DaskQuantileDMatrix(client, dask.array.from_array(rows, chunks=(chunk, rows.shape[1])),
                                        dask.array.from_array(np.asarray(truth), chunks=chunk))
        found = dxgb.train(client, detectors.Boosted.parameters(columns, seed, spec), data,
                           num_boost_round=spec["rounds"])
    return detectors.Boosted(columns, found["booster"])
