"""The reports of the recipe captures: one page a model."""

import numpy as np

from .. import export, report
from . import captures_rows

INTRO = """
# {name}

{what} on {columns} columns of a connection, fitted on rows that `picket extract` itself made of two labs'
captures and of public ones whose licence allows it. {role}

Score at and above which a row is anomalous: **{cut:.6f}**. File: {bytes:,} bytes, {size}. Largest
difference from {library} on {gate:,} rows with {hard}extremes and values beside the trees' cuts: {difference:.1e}.
"""

WHAT = {"xgboost": "XGBoost with monotone constraints", "autoencoder": "Denoising autoencoder of normal rows",
        "ensemble": "Fusion of the recipe's two other models"}

PROTOCOL = """
## Protocol

- A row is malicious when its connection occurs among the packets of the label's filter, when it names the
  label's attacker or victim, and when it overlaps the labelled seconds. In a tunnel that is the inner
  connection. Rows beside a public capture's attack have no label and are left out.
- The labs' attacks are taken apart: each is a capture of its own, with a minute to either side and without the
  others, so that no row inherits the attacker's earlier deeds. What is normal in a lab is a capture without attacks.
- Every capture is also played {stretch} times as slowly and with the answers left out; normal ones with
  each TCP connection refused; attacks without anything beside them, and cut to their first {few} connections. Picket
  reads each play anew, so windows, timeouts and rates are what a gateway would see.
- At most {most} rows of a capture, play and kind, in a lab of each device; the rows of a capture, play
  and kind together weigh the root of their number.
- The trees also see made-up attacks: normal rows with one counting column ({raised} columns) put {low} to {high} times
  beyond every normal row. They say that what rises far beyond the ordinary is an attack, whichever tool does it. A flood
  of ICMP is one connection, so some are made up whole: {packets} packets at {rate} a second, half of them answered.
- Folds leave out attack tools ({folds} sets) together with a part of the devices, captures and small
  repositories of normal traffic. A second protocol leaves out whole repositories of normal traffic.
- The threshold is the score that {loud} of the held-out normal captures reach with any one row: a capture is not
  silent with a single such row. The table below has other shares.
- Captures of captures/train with other licences ("foreign" below) were never trained on. They were looked at
  while the recipe was made, as a check beside the folds, so their figures flatter a little. Some fifty designs were
  compared on both: from 45 to 123 columns, depth 2 to 6, weights, made-up attacks of several sizes, rows weighed
  anew by a first model's scores.
- {looks}
"""

LIMITS = """
## Limits

- IP connections only: spoofed or swept ARP and what happens in DHCP cannot be seen. An ARP attack counts as found
  when its attacker or victim has any incident in the labelled time.
- What it leans on is volume: how many connections a source makes and a victim gets, to how many places, and how
  many fail. An attack inside one or a few connections is mostly missed: a tunnel, a beacon, a flood inside one session,
  a fingerprint of a few packets, an exploit, a handful of passwords over SSH. The kinds trained on
  are mostly scans, floods and fast guessing, so captures/test, with many attacks of the other sort, gives far less
  than the folds.
- A busy web client, a load test, a busy SIP server or resolver can look like a flood; calibrate on the site's own
  traffic.
- The labs are two small networks, and {share:.0%} of the kinds of attack were trained on there alone.
- Most normal captures are of a few minutes and one device: the share of silent captures is no promise for a day of a
  gateway. Incidents an hour on them are given beside it.
- Two captures of one MQTT recording lie on both sides of the catalogue's split, so its test figure flatters.
"""

LICENCES = """
Accepted are licences that let copies and works be passed on, commercially too. Copyleft licences (GPL, LGPL, AGPL) cover the
captures as files of their repositories: none of them is in this project, and tree cuts and weights are no copy of a
packet. Not accepted: no licence stated, NC. The IoT Sentinel captures are to be cited as: Miettinen et al., IoT
Sentinel, ICDCS 2017.
"""


def sources(captures):
    """(repository, licence, files, files with attacks) of captures, by repository."""
    found = {}
    for c in captures:
        files = found.setdefault((c.source, " ".join(c.licence.split())), (set(), set()))
        files[0].add(c.path)
        files[1].update([c.path] if c.runs else [])
    return [(*key, *map(len, files)) for key, files in sorted(found.items())]


def explored(data, config):
    """The captures by split and label, as Markdown."""
    rows = []
    for split in ("train", "test"):
        kinds = {}
        for capture in captures_rows.catalogue(data, split):
            count = kinds.setdefault(("attack" if capture.runs else "normal", capture.kind), [0, 0, 0])
            count[0] += 1
            count[1] += capture.timing
            count[2] += captures_rows.accepted(capture.licence)
        rows += [(split, *key, *count) for key, count in sorted(kinds.items())]
    lab = [run for capture in captures_rows.labs(data, config) for run in capture.runs]
    return "\n\n".join([
        "# captures: the data",
        report.prose(f"Public captures whose label is of high or medium confidence, and {len(lab)} attack runs of the labs' captures "
                     f"({len({run.kind for run in lab})} kinds). Trained on are the labs' and those of train/ whose licence allows it."),
        report.table(["split", "", "label", "captures", "of real timing", "licence allows a model"], rows)]) + "\n"


def write(folder, config, setup, results, measured, fitted, told, frames):
    """folder/NAME.md and folder/NAME/*.png of each model."""
    for name, gate in measured.items():
        export.write(folder / f"{name}.md", page(name, config, setup, results, gate, fitted[name], told, frames).encode())
        pictures(folder / name, results[name])


def page(name, config, setup, results, gate, detector, scanned, frames):
    """A model's report as Markdown."""
    result, attacks = results[name], frames["plain"][frames["plain"]["label"] == 1]
    role = "This is the model that `scan` and `run` use unless another is named." if name == config["default"] else \
        f"The default is `{config['default']}`."
    lone = attacks.groupby("kind")["repository"].agg(set) == {"lab"}
    parts = [report.prose(INTRO.format(
        name=name, what=WHAT[config["models"][name]["kind"]], columns=len(detector.columns), role=role, cut=result["cut"],
        hard="NaN, " if detector.knows_nan else "", bytes=gate["bytes"], size=detector.size(), library=detector.library, gate=gate["rows"], difference=gate["difference"]))]
    if "picket" in gate:
        parts.append("```\n" + gate["picket"] + "\n```")
    parts += [
        report.prose(PROTOCOL.format(
            stretch=", ".join(f"{f:g}" for f in config["stretch"]), few=" and ".join(map(str, config["few"])), most=config["most_rows"],
            packets="{} to {}".format(*config["raised"]["icmp"]["packets"]), rate="{} to {}".format(*config["raised"]["icmp"]["rate"]),
            raised=len(config["raised"]["columns"]), low=config["raised"]["factor"][0], high=config["raised"]["factor"][1],
            folds=len(config["folds"]["tools"]), loud=report.percent(config["threshold"]["loud"]),
            looks=" ".join(config["looks"].split()))),
        "## captures/test", outcome(scanned[name]["test"]), compare({other: found["test"] for other, found in scanned.items()}),
        "## Grouped validation",
        f"![Highest score of each held-out capture]({name}/peaks.png)",
        report.prose("Shares of captures with at least one row at or above the threshold; for attacks, only rows of the attack "
                     "count. The last column is a share of normal rows."),
        grouped(result, config), by_play(result),
        by_kind(result),
        report.prose("The foreign captures by `picket scan`, one model at a time:"),
        compare({other: found["foreign"] for other, found in scanned.items()}),
        "## The labs' captures, which it was trained on", lab_table(scanned[name]["lab"]),
    ]
    if name != "captures-autoencoder":
        parts += ["## What the trees lean on",
                  report.prose("The 20 strongest columns by share of the total gain in training; and by the fall of the area under the ROC "
                               f"curve on the foreign captures ({results['permuted'][0]:.3f}) when one column is shuffled, each capture "
                               "and label counting alike."),
                  leans(results),
                  report.prose("Not offered: TTLs, windows, gaps, round trips, sizes and entropy of payload, flags of a direction, "
                               "codes that stand for a service, addresses and ports. Rates above 2,000 packets a second are not told apart.")]
    parts += [report.prose(LIMITS.format(share=lone.mean())), "## Training data", report.prose(LICENCES),
              report.table(["repository", "licence", "captures", "with attacks"], setup["sources"]),
              report.prose("Evaluated on, never trained on:"),
              report.table(["repository", "licence", "captures", "with attacks"], setup["foreign"]),
              report.prose(f"SHA-256 of the training captures' SHA-256s, in order: `{setup['sha256']}`.")]
    return "\n\n".join(parts) + "\n"


def outcome(figures):
    """What Picket said of captures/test with this model alone."""
    rows = [(label, f"{k.right} of {k.all}", f"{k.real_right} of {k.real}")
            for label, k in [*sorted(figures.attacks.items()), ("**all**", figures.sums(figures.attacks))]]
    attacks = report.table(["attack", "found", "of real timing"], rows)
    rows = [(label, f"{k.right} of {k.all}", f"{k.real_right} of {k.real}")
            for label, k in [*sorted(figures.benign.items()), ("**all**", figures.sums(figures.benign))]]
    benign = report.table(["normal", "silent", "of real timing"], rows)
    silent, found = figures.sums(figures.benign), figures.sums(figures.attacks)
    reached = report.prose(
        f"`picket scan` with this model alone. Found: an incident names the attacker or the victim and overlaps the labelled "
        f"seconds. Aimed at: 90 % of the attack captures of real timing; reached: {found.real_right / max(found.real, 1):.1%}. "
        f"Aimed at: 97 % of the normal captures silent; reached: {silent.right / max(silent.all, 1):.1%}. "
        f"False incidents: {figures.alarms} in {figures.hours:.1f} hours of normal captures whose timing is real throughout: "
        f"{figures.alarms / max(figures.hours, 1e-9):.2f} an hour.")
    missed = report.prose("Missed: " + ", ".join(f"`{m.split('/', 1)[1]}`" for m in figures.missed) + ".")
    loud = report.prose("Not silent: " + (", ".join(f"`{m.split('/', 1)[1]}`" for m in figures.loud) or "none") + ".")
    return "\n\n".join([reached, attacks, benign, missed, loud])


def compare(scans):
    """Models beside each other on the same captures."""
    rows = []
    for name, f in scans.items():
        found, silent = f.sums(f.attacks), f.sums(f.benign)
        rows.append((f"`{name}`", f"{found.right} of {found.all}", f"{found.real_right} of {found.real}",
                     f"{silent.right} of {silent.all}", f"{f.alarms / max(f.hours, 1e-9):.2f}"))
    return report.table(["model", "attacks found", "of real timing", "normal silent", "false incidents an hour"], rows)


def grouped(result, config):
    """Thresholds and shares on the folds."""
    rows = [[f"{loud:g}" + (" (ships)" if loud == config["threshold"]["loud"] else ""), f"{row['threshold']:.4f}",
             *(f"{row[key]:.3f}" for key in ("attacks", "normal", "repository", "foreign attacks", "foreign normal")),
             f"{row['held']:.4f}"] for loud, row in result["shares"].items()]
    return report.table(["loud at most", "threshold", "attacks found", "normal loud", "repository left out", "foreign attacks found",
                         "foreign normal loud", "normal rows"], rows)


def by_play(result):
    """Held-out attacks found, by how they are played."""
    found = (result["plays"] >= result["cut"]).groupby(level="play").agg(["sum", "size"])
    words = {"": "as it is", "bare=1": "nothing beside it", "one_way=1": "answers left out"}
    def told(play):
        return words.get(play) or play.replace("few=", "first connections: ").replace("stretch=", "as slowly, times ").replace(
            " bare=1", ", nothing beside them")
    return report.table(["held-out attacks", "found"], [(told(play), f"{row['sum']} of {row['size']}") for play, row in found.iterrows()])


def by_kind(result):
    """Held-out attacks found by kind, on the folds and on the foreign captures."""
    rows = {}
    bare = result["plays"].xs("bare=1", level="play")
    for place, scores in enumerate((result["attacks"], bare, result["foreign attacks"])):
        for key, score in scores.items():
            count = rows.setdefault(key[0], [[0, 0], [0, 0], [0, 0]])[place]
            count[0] += score >= result["cut"]
            count[1] += 1
    return report.table(["kind", "its tool left out", "and nothing beside it", "foreign"],
                        [(kind, *(f"{c[0]} of {c[1]}" if c[1] else "" for c in counts)) for kind, counts in sorted(rows.items())])


def lab_table(lab):
    """Attack runs of the lab found by Picket."""
    rows, counts = lab
    missed = sorted({f"{kind} ({capture})" for capture, kind, found in rows if not found})
    words = "; ".join(f"{capture}: {sum(f for c, _, f in rows if c == capture)} of {sum(c == capture for c, _, _ in rows)} attack "
                      f"runs found, {all_ - matched} of {all_} incidents name no attacker" for capture, (matched, all_) in counts.items())
    return report.prose(f"{words}. Missed: {', '.join(missed) or 'none'}.")


def leans(results):
    """The 20 strongest columns by gain and by permutation."""
    return report.table(["gain", "share", "shuffled", "fall"], [
        (f"`{column}`", f"{gain:.3f}", f"`{other}`", f"{fall:.4f}")
        for (column, gain), (other, fall) in zip(results["gains"], results["permuted"][1])])


def pictures(folder, result):
    """peaks.png: the highest score of each held-out capture."""
    plot = report.axes("Highest score of a held-out capture", "Share of the captures that reach it")
    for key, words, colour in (
            ("normal", "normal, device left out", report.BLUE), ("repository", "normal, repository left out", report.GREY),
            ("attacks", "attacks, tool left out", report.RED), ("bare", "the same, nothing beside them", report.COLOURS[3]),
            ("foreign normal", "normal, foreign", report.ORANGE), ("foreign attacks", "attacks, foreign", report.COLOURS[2])):
        scores = result["plays"].xs("bare=1", level="play") if key == "bare" else result[key]
        x = np.sort(np.asarray(scores, float))
        plot.step(x, 1 - np.arange(len(x)) / len(x), where="pre", color=colour, label=f"{words} ({len(x)})")
    plot.axvline(result["cut"], color="black", linestyle="--", linewidth=.8, label=f"threshold {result['cut']:.3f}")
    plot.set_xlim(0, 1)
    plot.legend(frameon=False, fontsize=8)
    report.save(folder / "peaks.png")
