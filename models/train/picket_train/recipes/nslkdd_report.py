"""The reports of the nslkdd recipe: one page a model, one that compares them."""

import pathlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .. import data, detectors, export, metrics, report

HOW = {
    "nslkdd-xgboost": """
One-hot columns, because ranges of codes mean nothing; a service has one if KDDTrain+ has at least 100
normal connections of it. The score may only rise with {rises}, and only fall with {falls}. The other
parameters are XGBoost's defaults.

Before that table some thirty variants (depth 5 to 12, 40 to 200 rounds, learning rate .3, other
regularisation, other sets of monotone columns) had gone through the same folds, most with one seed: those
with one-hot columns, telecom columns and the wide monotone set lay between .836 and .853; three seeds of
one such design alone lay between .836 and .847.

Not chosen here: monotone constraints as an idea and the nominal {nominal} were known from earlier work,
which had been scored on KDDTest+. The folds above bear out the first; the second was fixed with the
protocol.""",
    "nslkdd-random-forest": """
{trees} trees of at most {leaves} leaves: the file stays small. A first run on the folds had 40 trees and
found .895 ± .004; {trees} were taken for the file's size, before any test file was scored, and the table shows
what that may have cost. Classes are weighted alike. Held to the directions that help XGBoost, the forest found fewer left-out attacks (.816
against .889, one seed of 40 trees), so it is free.""",
    "nslkdd-isolation-forest": """
Fitted on normals alone, columns that spread over decades as log(1 + x); the trees' thresholds are turned
back, so that the graph compares raw values. Of {trees} trees each sees {samples} normals: with 256, as is
usual, left-out attacks were found least (.70, one seed). Leaf values carry the depth and the expected rest of the
path, so that the graph is one tree ensemble and an exponential.""",
    "nslkdd-lof": """
Beside {sample} normals, distinct after scaling, drawn at random, from which the {trimmed} with the farthest
neighbours were trimmed before. The design was frozen after a first run in which it was best (.804 ± .008, 2,000
normals); with {sample} the seeds spread far wider, and the line without services is no worse. Without the trimming the factor finds hardly anything: an attack beside a
lonely normal is in good company. Distances in the graph are in float64: the usual expansion of the square
would cancel in float32.""",
    "nslkdd-autoencoder": """
The lines of the table do not differ by more than their spread; the smallest network was frozen after a first
run, before any test file was scored. Fitted on normals alone: {epochs} epochs, a {noise} of the inputs dropped at a time; columns that spread over
decades as log(1 + x), all scaled, and cut at ± {clip} deviations. The score is e / (e + m), e the mean squared
error and m the error that a twentieth of the training normals pass.""",
    "nslkdd-ensemble": """
A member's level is turned into its rarity, -log10 of the share of calibration normals that reach it; the
score is the weighted mean of the rarities over the largest possible.

Members and weights were frozen after a first run on the folds (three seeds, a forest of 40 trees): these three
at 1, 2, 2 had .899 ± .002, the three alike .899 ± .004, all five alike with an LOF that is not trimmed
.892 ± .001, the forest alone .895 ± .004. The table is a later run with everything as it ships: no line is better
than another by more than their spread, the best of them is not the one that ships, and the gain over the
forest alone is within noise. Nothing was changed after it, since the test files had been scored by then.

**Seen before:** that a score of novelty beside trees helps was known from earlier work that had looked at
KDDTest+ (monotone XGBoost or Mahalanobis distance of normals). That very design is not used here, and the
folds above show no more than that the fusion does no harm: its figures on KDDTest+ are not wholly blind.
Confirm them on other data.""",
}


@dataclass
class Results:
    """One model's figures; runs has one entry per seed."""

    name: str
    spec: dict
    config: dict
    frames: dict
    hashes: dict
    runs: list
    measured: dict

    @property
    def rate(self):
        return self.config["nominal"]

    @property
    def rates(self):
        return self.config["rates"]

    def mean(self, part, rate=...):
        return metrics.mean_sd([run[part][self.rate if rate is ... else rate] for run in self.runs])

    def area(self, part):
        return metrics.mean_sd([{"auc": run[part]["auc"]} for run in self.runs])["auc"]


def write(folder, frames, made, config, results, measured, told):
    """NAME.md and NAME/*.png of each model that ships, and nslkdd.md; reads NAME/designs.csv where
    evaluate --leave-out left it."""
    folder = pathlib.Path(folder)
    pages = {name: Results(name, spec, config, frames, results["hashes"], results["runs"][name],
                           measured.get(name)) for name, spec in made.items()}
    for page in pages.values():
        if not page.spec["ships"]:
            continue
        _plots(folder / page.name, page)
        sections = [_head(page), _figures(page), _attacks(page), _choice(page, folder / page.name / "designs.csv"),
                    _inside(page), _limits(page), _commands()]
        text = "\n\n".join(report.prose(section) for section in sections if section) + "\n"
        export.write(folder / f"{page.name}.md", text.encode())
    _curves(folder / "nslkdd", pages, told)
    text = "\n\n".join(report.prose(section) for section in
                       [_compare(pages, config), _content(folder / "nslkdd" / "designs.csv"), _notebook(told), _business(pages, config, told)]) + "\n"
    export.write(folder / "nslkdd.md", text.encode())


def _plots(folder, r):
    """The shipped seed's curves, and every seed's recall by family."""
    run, test, test21 = r.runs[0], r.frames["test"], r.frames["test21"]
    truth, scores, cut = data.labels(test), run["test"]["scores"], run["cuts"][r.rate]
    curves = [("KDDTest+", truth, scores), ("KDDTest-21", data.labels(test21), run["test21"]["scores"])]
    report.roc(folder / "roc.png", curves,
               [(report.percent(rate), run["test"][rate]["fpr"], run["test"][rate]["recall"])
                for rate in r.rates])
    report.precision_recall(folder / "precision-recall.png", curves)
    report.confusion(folder / "confusion.png", truth, (scores >= cut).astype(int))
    known = test["label"].isin(set(r.frames["train"]["label"])).to_numpy()
    report.histogram(folder / "scores.png",
                     [("normal", scores[truth == 0]),
                      ("attack of a known type", scores[(truth == 1) & known]),
                      ("attack of an unseen type", scores[(truth == 1) & ~known])], cut,
                     log_odds=r.spec["kind"] == "xgboost")
    families = _recalls(r, test["label"].map(data.FAMILY))
    report.bars(folder / "families.png", "Recall on KDDTest+ (mean and sd of the seeds)",
                [f"{name} ({count:,})" for name, count, *_ in families],
                [mean for _, _, mean, _ in families], [sd for _, _, _, sd in families])


def _recalls(r, groups):
    """(group, rows, mean recall, sd) on KDDTest+, the largest group first."""
    out = []
    for name, count in groups.value_counts().items():
        mask = (groups == name).to_numpy()
        values = [(run["test"]["scores"][mask] >= run["cuts"][r.rate]).mean() for run in r.runs]
        out.append((name, count, np.mean(values), np.std(values, ddof=1)))
    return out


def _head(r):
    main, shipped, run = r.mean("test"), r.runs[0]["test"][r.rate], r.runs[0]
    what = detectors.KINDS[r.spec["kind"]].what
    what = what[0].upper() + what[1:]
    allowed = "1e-6" if r.spec["kind"] in ("xgboost", "random-forest", "isolation-forest") else \
        "1e-6, or 1e-5 of the score"
    missing = "NaN, infinities, " if r.spec["kind"] == "xgboost" else ""
    beside = "" if r.spec["kind"] in ("lof", "autoencoder") else ", values at and one step beside thresholds of trees,"
    seed = run["seed"]
    members = ""
    if "members" in r.spec:
        members = "\n| members | " + ", ".join(f"{name} {weight}" for name, weight in r.spec["members"].items()) + " |"
    return f"""
# {r.name}

{what} over {len(r.spec['names'])} columns of a connection that a gateway can see without reading
payload, trained on NSL-KDD. On KDDTest+ it is right for {report.spread(main['accuracy'])} of the rows, at a real false-positive rate of
{report.spread(main['fpr'])} (threshold set for {report.percent(r.rate)}); the seed that ships, at
{report.share(shipped['accuracy'])} and {report.share(shipped['fpr'])}. {r.measured['bytes']:,} bytes.

| | |
|---|---|
| file | `{r.name}.onnx`, seed {seed}, fixed before the test files were scored |
| inside | {run['size']} |{members}
| threshold | {run['cuts'][r.rate]:.6f} |
| trained on | KDDTrain+, SHA-256 `{r.hashes['KDDTrain+.txt']}` |
| reported on | KDDTest+, SHA-256 `{r.hashes['KDDTest+.txt']}` |
| | KDDTest-21, SHA-256 `{r.hashes['KDDTest-21.txt']}` |
| parity | ONNX Runtime 1.21 and {run['library']} differ by at most {r.measured['difference']:.1e} (allowed: \
{allowed}) over {r.measured['rows']:,} rows: all of KDDTest+, and 20,000 with {missing}extremes{beside} and \
noise |
{_speed(r)}
The checksums are of the files in NSL-KDD.zip, with LF line endings. "±" is the standard deviation
over {len(r.runs)} seeds, each with its own split, model and thresholds."""


def _speed(r):
    lines = [line.split() for line in r.measured.get("picket", "").splitlines() if " ns a row in batches of " in line]
    if not lines:
        return ""
    told = ", ".join(f"{int(words[0]):,} at batch {words[-1]}" for words in lines)
    return f"| ns a row in Picket | {told} (one shared core) |\n"


def _figures(r):
    rows = []
    for rate in (None, *r.rates):
        test, hard = r.mean("test", rate), r.mean("test21", rate)
        if rate is None and r.spec["kind"] not in ("xgboost", "random-forest"):
            continue  # .5 is no habit there
        name = ".5, usual practice" if rate is None else f"nominal {report.percent(rate)}"
        if rate == r.rate:
            name = f"**{name}, ships**"
        rows.append([name, *(report.spread(test[key]) for key in ("accuracy", "f1", "fpr")),
                     *(report.spread(hard[key]) for key in ("accuracy", "f1", "fpr"))])
    false = []
    for rate in r.rates:
        test = r.mean("test", rate)
        false.append([report.percent(rate), *(report.spread(test[key]) for key in
                                              ("nominal", "fpr", "recall", "precision"))])
    seeds = [[f"**{run['seed']}, ships**" if run is r.runs[0] else run["seed"],
              *(report.share(run["test"][r.rate][key]) for key in ("accuracy", "f1", "fpr")),
              report.share(run["test"]["auc"]),
              *(report.share(run["test21"][r.rate][key]) for key in ("accuracy", "fpr"))]
             for run in r.runs]
    return f"""
## Figures

{report.table(["threshold", "KDDTest+ accuracy", "F1", "real FPR", "KDDTest-21 accuracy", "F1",
               "real FPR"], rows)}

AUC: KDDTest+ {report.spread(r.area('test'))}, KDDTest-21 {report.spread(r.area('test21'))}. KDDTest-21 is the
part of KDDTest+ that is hard for 21 old classifiers.

Each seed at nominal {report.percent(r.rate)}. The seed that ships was fixed in
advance; nothing was chosen by this table:

{report.table(["seed", "KDDTest+ accuracy", "F1", "real FPR", "AUC", "KDDTest-21 accuracy",
               "real FPR"], seeds)}

What a nominal rate becomes. "Training normals" are the calibration part, which the threshold has not
seen:

{report.table(["nominal FPR", "FPR on training normals", "FPR on KDDTest+", "recall on KDDTest+",
               "precision"], false)}

The gap is a property of the data: the test normals are another mix of services than the training
normals. Thresholds have to be set on the site's own traffic.

![ROC]({r.name}/roc.png)
![precision and recall]({r.name}/precision-recall.png)
![confusion]({r.name}/confusion.png) ![scores]({r.name}/scores.png)"""


def _attacks(r):
    label = r.frames["test"]["label"]
    train = set(r.frames["train"]["label"])
    rows = [[f"nominal {report.percent(rate)}", *(report.spread(r.mean("test", rate)[key])
                                                  for key in ("seen", "unseen"))] for rate in r.rates]
    attack = label[label != "normal"]
    unseen = ~attack.isin(train)
    families = [[name, f"{count:,}", f"{report.share(mean)} ± {report.share(sd)}"]
                for name, count, mean, sd in _recalls(r, label.map(data.FAMILY))]
    types = [[name, data.FAMILY[name], "yes" if name in train else "**no**", f"{count:,}",
              f"{report.share(mean)} ± {report.share(sd)}"]
             for name, count, mean, sd in _recalls(r, label[label != "normal"].reindex(label.index))
             if count >= 100]
    return f"""
## Attacks seen and unseen

{unseen.sum():,} of the {len(attack):,} test attacks ({unseen.mean() * 100:.0f} %) are of types that
KDDTrain+ does not have. Recall:

{report.table(["threshold", "known types", "unseen types"], rows)}

By family, at the shipped threshold:

{report.table(["family", "rows", "recall"], families)}

![recall by family]({r.name}/families.png)

By type, those with at least 100 rows:

{report.table(["type", "family", "in KDDTrain+", "rows", "recall"], types)}"""


def _choice(r, designs):
    text = f"""
## What was chosen, and how

Leaving attacks out of KDDTrain+, nine folds: each of the four families, and five groups of types.
The model is fitted on 80 % of the rest, half of the other normals set the threshold at a nominal
{report.percent(r.rate)}, half measure the real rate. A type counts by the root of its rows, or
neptune (41,214 of 58,630 attack rows) would be the whole figure. "Recall" is the mean of the two
columns before it, with its standard deviation over {len(r.config['leave_out_seeds'])} seeds; bold is what ships."""
    if designs.exists():
        frame = pd.read_csv(designs)
        chosen = next((title for title, change in r.config.get("designs", {}).get(r.name, {}).items()
                       if not change), None)
        rows = [_design(row, chosen) for _, row in frame.iterrows()]
        text += "\n\n" + report.table(["design", "columns", "left-out family", "left-out type",
                                       "recall", "AUC", "real FPR"], rows)
    how = HOW.get(r.name, "")
    words = {**r.spec, "rises": _list(sorted(r.spec["rises"])), "falls": _list(sorted(r.spec["falls"])),
             "nominal": report.percent(r.rate)} if "rises" in r.spec else r.spec
    return text + "\n\n" + how.format(**words).strip()


def _inside(r):
    if "gains" not in r.runs[0]:
        return ""
    used, unused = r.runs[0]["gains"]
    rows = [[f"`{column}`", report.share(gain)] for column, gain in used[:12]]
    return f"""
## What the trees lean on

Share of the total gain, shipped seed:

{report.table(["column", "share"], rows)}

{len(unused)} of {len(r.spec['names'])} columns have no split: {_list(unused)}. NSL-KDD was
recorded in 1998: `service_10_traffic` to `service_13_traffic` and `is_signaling` are 0 in every
row of it, so the trees cannot use them. They stay in the input, so that a model trained on 5G
traffic takes the same columns, but in this model they change no score."""


def _limits(r):
    strict = r.mean("test", min(r.rates))
    return f"""
## Limits

- Traffic of 1998 in a simulated military network, with repeated rows taken out. It is a
  benchmark, not a promise for a site: calibrate on the site's traffic before acting on alerts.
- No low-false-alarm claim: at nominal {report.percent(min(r.rates))} the real rate is
  {report.share(strict['fpr'][0])} and recall {report.share(strict['recall'][0])}.
- Guessed passwords and other attacks whose connections look like ordinary ones are weak: see the
  types above. Content features (KDD 10-22) would need payload, which gateways mostly see encrypted.
- A service outside the {len(r.config['services'])} with a column of their own has 0 in all of them; a
  protocol other than TCP, UDP and ICMP likewise.
- `duration` has whole seconds in NSL-KDD, and `burstiness` here is computed from them: a duration
  with fractions gives other scores. Rates have two decimals.
- The runtime puts a column's typical value in place of NaN and infinities; neither occurs in the
  training data.
- Same platform, same package versions and same seed give the same file byte for byte."""


def _commands():
    return """
## Commands

```
make train                                          # every model of every recipe
picket-train train nslkdd && picket-train evaluate nslkdd
picket-train export nslkdd && picket-train report nslkdd
picket-train evaluate nslkdd --leave-out            # the table of designs
```

`--data PATH` takes the zip or folder of NSL-KDD; without it the three files are downloaded once.

M. Tavallaee, E. Bagheri, W. Lu, A. Ghorbani: A detailed analysis of the KDD CUP 99 data set. IEEE
Symposium on Computational Intelligence for Security and Defense Applications, 2009."""


def _list(names):
    return ", ".join(f"`{name}`" for name in names)


def _curves(folder, pages, told):
    truth = data.labels(next(iter(pages.values())).frames["test"])
    report.roc(folder / "roc.png", [(name.removeprefix("nslkdd-"), truth, page.runs[0]["test"]["scores"])
                                    for name, page in pages.items() if page.spec["ships"]], [])
    scores = told[0]["scores"]
    report.roc(folder / "notebook-roc.png",
               [(f"{name}, {'its own part' if part == 'own' else 'KDDTest+'}", *scores[name, part])
                for name, part in scores], [])


def _compare(pages, config):
    rows = []
    for name, page in pages.items():
        test, hard, run = page.mean("test"), page.mean("test21"), page.runs[0]["test"][page.rate]
        size = f"{page.measured['bytes']:,}" if page.measured else "not shipped"
        rows.append([f"[{name}]({name}.md)" if page.spec["ships"] else name, len(page.spec["names"]),
                     report.spread(test["accuracy"]), report.spread(test["fpr"]), report.spread(test["recall"]),
                     report.spread(test["unseen"]), report.spread(page.area("test")),
                     report.spread(hard["accuracy"]), f"{report.share(run['accuracy'])} / {report.share(run['fpr'])}", size])
    speeds = [[name, *(f"{int(line.split()[0]):,}" for line in page.measured["picket"].splitlines()
                       if " ns a row in batches of " in line)]
              for name, page in pages.items() if page.measured and "picket" in page.measured]
    speed = ""
    if speeds:
        speed = ("Nanoseconds a row in Picket, one core shared with other work:\n\n"
                 + report.table(["model", "batch 1", "batch 16", "batch 64"], speeds))
    best, wide = pages["nslkdd-ensemble"].mean("test"), pages["nslkdd-content-ensemble"].mean("test")

    def verdict(figures, aim):
        met = figures["accuracy"][0] >= aim and figures["fpr"][0] <= .06
        return (f"{report.share(figures['accuracy'][0])} at {report.share(figures['fpr'][0])}: "
                + ("**reached**" if met else "**not reached**"))
    return f"""
# nslkdd: the models compared

Trained on KDDTrain+, everything chosen by leaving attacks out of it; KDDTest+ scored once, at a threshold for
a nominal {report.percent(config['nominal'])} of false alarms. Mean ± standard deviation over
{len(config['seeds'])} seeds.

{report.table(["model", "columns", "accuracy", "real FPR", "recall", "recall, unseen types", "AUC",
               "KDDTest-21 accuracy", "shipped seed: accuracy / FPR", "bytes"], rows)}

Set beforehand, on KDDTest+:

- .906, the best published autoencoder: the ensemble has {report.share(best['accuracy'][0])}.
- .925 at .059, an earlier XGBoost with monotone constraints: the ensemble has {report.share(best['accuracy'][0])} at
  {report.share(best['fpr'][0])}, which is more alarms, not a better detector.
- Aim of ≥ .93 at ≤ .06 without content columns: {verdict(best, .93)}.
- Aim of ≥ .94 at ≤ .06 with content columns: {verdict(wide, .94)}.

The ensemble finds more attacks than any member, and raises more false alarms than XGBoost; its AUC is the same within
noise.
The folds within KDDTrain+ leave out attacks, not normals: they cannot see that the normals of KDDTest+ are
others, and the forest and the autoencoder take those worse than XGBoost does.

What is not wholly blind: monotone constraints, the nominal {report.percent(config['nominal'])} and the worth of
a novelty score beside trees were seen on KDDTest+ in earlier work. The folds within KDDTrain+ bear out the
first, and the third only within noise; they discovered neither. The random forest's place, every weight and every parameter are
from the folds alone (or from the file size). That no content model ships was decided after its figures were known.

{speed}

![ROC](nslkdd/roc.png)"""


def _content(designs):
    text = """
## With content columns

KDD 10-22 come from clear-text payload. No model of them ships: what is encrypted has 0 in all of them, `logged_in`
among them, which most normal connections of 1998 have at 1. On the folds within KDDTrain+ they helped, on
KDDTest+ they did not (table above): the folds leave out attacks, but not normals, and the normals of
KDDTest+ are others."""
    if designs.exists():
        text += "\n\n" + report.table(
            ["design", "columns", "left-out family", "left-out type", "recall", "AUC", "real FPR"],
            [_design(row, None) for _, row in pd.read_csv(designs).iterrows()])
    return text


def _design(row, chosen):
    name = f"**{row['design']}**" if row["design"] == chosen else row["design"]
    return [name, row["columns"], *(report.share(row[key]) for key in ("family recall", "type recall")),
            f"{report.share(row['recall'])} ± {report.share(row['recall sd'])}",
            report.share(row["auc"]), report.share(row["fpr"])]


def _notebook(told):
    rows, digits = [], lambda pair: f"{pair[0]:.4f} ± {pair[1]:.4f}"  # noqa: E731
    for name in told[0]["models"]:
        for key, where in (("own", "its own rows" if name == "isolation forest" else "its own validation part"),
                           ("test", "KDDTest+")):
            runs = [one["models"][name][key] for one in told]
            figures = metrics.mean_sd([{k: run[k] for k in ("accuracy", "f1", "precision", "recall", "fpr", "auc",
                                                            "false positives", "false negatives")} for run in runs])
            rows.append([f"{name}, {where}", *(digits(figures[k]) for k in ("accuracy", "f1", "precision", "recall",
                                                                            "fpr", "auc")),
                         *(f"{figures[k][0]:,.0f}" for k in ("false positives", "false negatives"))])
    latency = [[name, *(f"{value:.2f}" for value in told[0]["models"][name]["latency"])]
               for name in told[0]["models"] if "latency" in told[0]["models"][name]]
    first = told[0]["models"]
    median, late = first["random forest"]["latency"]
    verdict = ("fails" if median > 10 else "holds on this machine for the median only" if late > 10 else
               "holds on this machine")
    reports = "\n\n".join(f"{name}, {where}:\n\n```\n{first[name][key]['report'].rstrip()}\n```"
                          for name in first for key, where in (("own", "its own part"), ("test", "KDDTest+")))
    return f"""
## The second notebook's protocol, repeated with its leak

Content columns included, four services told apart, columns that correlate above .95 dropped
({_list(told[0]['dropped'])}), seven telecom columns, StandardScaler, SMOTE, then a random 80/20 split;
isolation forest of 200 trees on four columns with contamination .003, random forest of 150 trees of depth 12
with class weights, XGBoost of 200 trees of depth 8; threshold .5. {len(told)} seeds.

{report.table(["model, scored on", "accuracy", "F1", "precision", "recall", "FPR", "AUC", "false positives",
               "false negatives"], rows)}

The first line of each pair is what the notebook reports, the second what happens on traffic of another day.
SMOTE before the split lets neighbours of validation rows into the training part; but above all the validation
part has the same attacks in the same shares as the training part. The isolation forest's AUC below .5 says
that its outliers are mostly normal.

![ROC of the notebook's protocol](nslkdd/notebook-roc.png)

Latency of one row through scaler and model in Python, milliseconds (the notebook claims below 10; its own call
scales a row that is scaled already, which changes its score but not the time). With the random forest, which it
times, the claim {verdict}:

{report.table(["model", "median", "95th percentile"], latency)}

Classification reports, first seed:

{reports}"""


def _business(pages, config, told):
    b = config["business"]
    normals = b["rows_per_day"] * (1 - b["attack_share"])
    attacks = b["rows_per_day"] * b["attack_share"]
    rows = []
    for name, page in pages.items():
        if page.spec["ships"]:
            for rate in (page.rates[0], page.rate):
                figures = page.mean("test", rate)
                false, missed = normals * figures["fpr"][0], attacks * (1 - figures["recall"][0])
                hours = false / b["rows_per_incident"] * b["hours_per_alarm"]
                rows.append([f"{name}, nominal {report.percent(rate)}", f"{false:,.0f}",
                             f"{false / b['rows_per_incident']:,.0f}", f"{hours:,.1f}",
                             f"{hours * b['cost_per_hour'] * 30:,.0f}", f"{missed:,.0f}"])
    forest, boosted = (told[0]["models"][name]["own"] for name in ("random forest", "XGBoost"))
    saved = (forest["false positives"] - boosted["false positives"]) / boosted["rows"]
    monthly = saved * 5_000_000 * 0.1 * 80 / 12
    return f"""
## What false alarms cost

With {b['rows_per_day']:,} connections a day, {b['attack_share']:.1%} of them attacks,
{b['hours_per_alarm']:g} hours of an analyst for each incident at {b['cost_per_hour']:g} USD an hour, and
{b['rows_per_incident']:,} alarmed connections to an incident (all of them parameters in recipes/nslkdd.toml), at the
false-positive rates of KDDTest+:

{report.table(["model", "false alarms a day", "incidents a day", "analyst hours a day", "USD a month",
               "attacks missed a day"], rows)}

The lesson is the first column: at any rate that a benchmark supports, a busy link gives thousands of
false alarms a day. Thresholds are for the site's own traffic (`--threshold`).

The notebook's own sum, on its validation part and first seed: XGBoost has {saved:.3%} fewer false positives than the
random forest, "monthly savings" of {monthly:,.0f} USD. It multiplies a share of a day's packets by a year's
twelfth, and its validation part has no traffic that the models do not know; it is repeated here only to be
comparable."""
