"""The report of the iot recipe."""

import pathlib

import numpy as np

from .. import export, report


def write(folder, results, measured, config):
    """Writes iot.md and iot/*.png into folder."""
    folder = pathlib.Path(folder)
    truth, null = results["truth"], np.array(results["null"])
    limit = float(np.quantile(null, 0.95))
    _null(folder / "iot" / "permutation.png", null, limit, results["crossed"])
    report.roc(folder / "iot" / "roc.png",
               [(name, truth, runs[0]) for name, runs in results["scores"].items()], [])
    own = [[name, report.spread(f["accuracy"]), report.spread(f["f1"]), report.spread(f["precision"]),
            report.spread(f["recall"]), f"{f['hits'][0]:.1f}", report.spread(f["auc"])]
           for name, f in results["own"].items()]
    always = (truth == 0).mean()
    own.append(["**always \"normal\"**", f"**{report.share(always)}**", ".000", "", ".000", "0", ".500"])
    flagged = round(len(truth) * config["nominal"])
    above = {name: sum(null >= mean) / len(null) for name, (mean, _) in results["crossed"].items()}
    crossed = [[name, report.spread(pair), report.share(above[name])] for name, pair in results["crossed"].items()]
    columns = [[f"`{name}`", report.share(value)] for name, value in
               sorted(results["columns"].items(), key=lambda pair: -abs(pair[1] - .5))]
    beyond = [name for name, (mean, _) in results["crossed"].items() if mean > limit]
    text = f"""
# iot: the first notebook's data

**The labels of this data set carry next to nothing.** Calling every row normal is right for
{report.share(always)} of them, which beats all three models of the first notebook. No model ships from
this recipe.

{len(truth):,} rows, {int(truth.sum())} anomalous, SHA-256 `{results['sha256']}`.

## The notebook's figures, reproduced

Fitted and scored on the same rows, {report.percent(config['nominal'])} ({flagged} rows) called anomalous.
By chance {flagged * truth.mean():.0f} of those would be anomalous ("hits"). The notebook reports
accuracy .864, .856 and .856.

{report.table(["model", "accuracy", "F1", "precision", "recall", "hits", "AUC"], own)}

"±" is the standard deviation over {len(config['seeds'])} seeds of the autoencoder; the others are
those of the notebook. With {flagged} rows called anomalous, accuracy is {report.share(always)} less
.001 for each false alarm and plus .001 for each hit: it cannot say more than the hits do. The
autoencoder's layers are not in the notebook's text, so its second decimal is no target.

![ROC](iot/roc.png)

## Cross-validation and permutation

AUC of {config['folds']}-fold cross-validated scores, {len(config['seeds'])} shuffles, all columns, and how
many of {len(null)} runs of XGBoost with shuffled labels reach the mean:

{report.table(["model", "AUC", "share of shuffled runs that reach it"], crossed)}

With labels shuffled, XGBoost's AUC is {report.share(null.mean())} on average and {report.share(limit)} at its
95th percentile: {'no model passes it' if not beyond else ', '.join(beyond) + ' passes it'}. An isolation
forest fitted on other folds' normals has {report.spread(results['held'])}.

![permutation test](iot/permutation.png)

AUC of single columns, farthest from .5 first:

{report.table(["column", "AUC"], columns)}

The one weak signal, `packet_count_5s`, has the sign opposite to the notebook's text ("increased packet
count"): {'anomalies have fewer packets' if results['columns']['packet_count_5s'] < .5 else
'see the sign above'}. "Anomalous addresses" and "frequent protocols" are no signals: addresses and
protocols are shared out among both classes alike.

## Why no model ships

- All columns but the ports were scaled to 0..1 before publication and the scale is lost (of
  `mean_packet_size` nothing but zeros is left): a packet of 1,500 bytes or a
  gap of 20 ms cannot be put on it, so a model of these columns would score live packets by values it has
  never seen.
- There is nothing to learn, see above. A model would alarm at random.

`export iot` still takes an isolation forest of Picket's packet columns, without addresses, through the whole
gate as a smoke test of packet rows: {measured['bytes']:,} bytes, {results['size']}, largest difference from
scikit-learn {measured['difference']:.1e} over {measured['rows']:,} rows. It stays in the working folder.

## Commands

```
picket-train explore iot --data PATH
picket-train train iot --data PATH
picket-train evaluate iot --data PATH
picket-train export iot --data PATH
picket-train report iot
```"""
    export.write(folder / "iot.md", (report.prose(text) + "\n").encode())


def _null(path, null, limit, crossed):
    plot = report.axes("Cross-validated AUC of XGBoost, labels shuffled", "Runs", size=(5.2, 3.4))
    plot.hist(null, bins=25, color=report.GREY)
    plot.axvline(limit, color="black", linestyle="--", linewidth=.8, label=f"95 %: {limit:.3f}")
    for (name, (mean, _)), colour in zip(crossed.items(), (report.RED, report.BLUE, report.ORANGE)):
        plot.axvline(mean, color=colour, label=f"{name}, real labels: {mean:.3f}")
    plot.set_ylim(0, plot.get_ylim()[1] * 1.35)
    plot.legend(frameon=False, fontsize=7, loc="upper left")
    report.save(path)
