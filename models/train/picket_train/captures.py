"""What Picket says of labelled captures: the incidents of `picket scan` beside the labels.

Needs nothing but Python's standard library and a built picket:

    python3 models/train/picket_train/captures.py --data DIR [--model NAME] [--split test]

DIR holds catalogue.csv (a row per capture: file, label, is_attack, attacker, victim, mal_first_s,
mal_last_s, confidence, window_features, duration_s) and the captures, and lab/ with labels.csv (a row
per attack run: capture, start, end, label, attacker, victim).

An attack is found when an incident names its attacker or its victim and its packets overlap the
labelled seconds, which count from the capture's first packet.
"""

import argparse
import csv
import gzip
import ipaddress
import json
import pathlib
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime

ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:/\d+)?")
DAY = 86400


def networks(text):
    """The addresses and networks that a label names."""
    found = []
    for word in ADDRESS.findall(text):
        try:
            found.append(ipaddress.ip_network(word, strict=False))
        except ValueError:
            pass  # a MAC address
    return found


def utc(stamp):
    """RFC 3339 in UTC, of any precision, as seconds since the epoch."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float("0." + (fraction or "0"))


def opened(path):
    """A capture, unpacked if its name ends in .gz."""
    return gzip.open(path) if str(path).endswith(".gz") else open(path, "rb")


def first_packet(path):
    """The time of the first packet of a pcap or pcapng file, in seconds since the epoch."""
    with opened(path) as file:
        head = file.read(24)
        magic = head[:4]
        for order in "<>":
            unit = {0xa1b2c3d4: 1e-6, 0xa1b23c4d: 1e-9}.get(struct.unpack(order + "I", magic)[0])
            if unit:
                second, part = struct.unpack(order + "II", file.read(8))
                return second + part * unit
        if magic != b"\x0a\x0d\x0d\x0a":
            raise ValueError(f"{path} is neither pcap nor pcapng")
        order = "<" if head[8:12] == b"\x4d\x3c\x2b\x1a" else ">"
        file.seek(0)
        units = []
        while len(start := file.read(8)) == 8:
            kind, size = struct.unpack(order + "II", start)
            body = file.read(size - 8)
            if kind == 1:
                units.append(_unit(body[8:-4], order))
            elif kind in (2, 6):
                which, high, low = struct.unpack_from(order + ("III" if kind == 6 else "HxxII"), body)
                return (high << 32 | low) * units[which]
    raise ValueError(f"{path} has no packet with a time")


def _unit(options, order):
    """Seconds of a tick of a pcapng interface."""
    at = 0
    while at + 4 <= len(options):
        code, size = struct.unpack_from(order + "HH", options, at)
        if code == 9:
            power = options[at + 4]
            return 2.0 ** -(power & 127) if power & 128 else 10.0 ** -power
        at += 4 + -(-size // 4) * 4
    return 1e-6


def scan(picket, capture, models):
    """The incidents of a capture: the last event of each; none where nothing could be judged. Raises RuntimeError where
    picket fails."""
    command = [picket, "scan", "--json", "--gateway", "evaluation"]
    for model in models:
        command += ["--model", str(model)]
    done = subprocess.run(command + [str(capture)], capture_output=True, text=True)
    incidents, summary = {}, {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        summary = event["picket"].get("summary", {})
        if not summary:
            incidents[event["picket"]["incident"]] = event
    nothing = summary.get("verdict") == "not_judged" and summary["packets"]
    if done.returncode not in (0, 1) and not nothing:
        raise RuntimeError(done.stderr.strip())
    return list(incidents.values())


def names(event, wanted):
    """Whether an incident names one of the wanted networks; any will do where there are none."""
    sides = [ipaddress.ip_address(event[side]["ip"]) for side in ("source", "destination")]
    return not wanted or any(ip in net for ip in sides for net in wanted)


def overlaps(event, first, last, slack=1.0):
    """Whether an incident's packets overlap the labelled time, in seconds since the epoch."""
    return utc(event["event"]["start"]) <= last + slack and utc(event["event"]["end"]) >= first - slack


@dataclass
class Kind:
    """Captures of one label: those with the wanted answer, and all; the same of real timing."""

    right: int = 0
    all: int = 0
    real_right: int = 0
    real: int = 0

    def count(self, right, real):
        self.right += right
        self.all += 1
        self.real_right += right and real
        self.real += real


@dataclass
class Figures:
    """What Picket says of a split."""

    attacks: dict = field(default_factory=dict)  # label → Kind, right: found
    benign: dict = field(default_factory=dict)   # label → Kind, right: silent
    hours: float = 0.0                           # benign ones whose timing is real throughout
    alarms: int = 0                              # incidents in them
    missed: list = field(default_factory=list)
    loud: list = field(default_factory=list)
    refused: list = field(default_factory=list)

    def sums(self, kinds):
        """One Kind of all kinds."""
        return Kind(*(sum(getattr(kind, name) for kind in kinds.values())
                      for name in ("right", "all", "real_right", "real")))


def measure(picket, data, split, models, wanted=lambda row: True):
    """The Figures of the captures of a split whose labels are of high or medium confidence, and whose
    row of the catalogue is wanted."""
    out = Figures()
    with open(data / "catalogue.csv", newline="") as file:
        catalogue = list(csv.DictReader(file))
    for row in catalogue:
        if not row["file"].startswith(split + "/") or row["confidence"] not in ("high", "medium"):
            continue
        if row["is_attack"] not in ("yes", "no") or not wanted(row):
            continue
        path, real = data / row["file"], row["window_features"] != "no"
        try:
            incidents = scan(picket, path, models)
        except RuntimeError as err:
            out.refused.append(f"{row['file']}: {err}")
            continue
        if row["is_attack"] == "no":
            out.benign.setdefault(row["label"], Kind()).count(not incidents, real)
            if incidents:
                out.loud.append(row["file"])
            if row["window_features"] == "yes" and float(row["duration_s"]) < DAY:
                out.hours += float(row["duration_s"]) / 3600
                out.alarms += len(incidents)
            continue
        sides = networks(row["attacker"]) + networks(row["victim"])
        zero = first_packet(path)
        first = zero + float(row["mal_first_s"] or 0)
        last = zero + float(row["mal_last_s"] or row["duration_s"])
        found = any(names(event, sides) and overlaps(event, first, last) for event in incidents)
        out.attacks.setdefault(row["label"], Kind()).count(found, real)
        if not found:
            out.missed.append(row["file"])
    return out


def evaluate(picket, data, split, models, out=sys.stdout):
    """Prints a row per kind of attack, and the benign captures that are not silent."""
    figures = measure(picket, data, split, models)
    print(f"{'attack':28} found  all  real timing", file=out)
    for label, kind in [*sorted(figures.attacks.items()), ("all", figures.sums(figures.attacks))]:
        print(f"{label:28} {kind.right:5} {kind.all:4}  {kind.real_right}/{kind.real}", file=out)
    print(file=out)
    for label, kind in sorted(figures.benign.items()):
        print(f"{label:28} {kind.all - kind.right} of {kind.all} not silent", file=out)
    silent = figures.sums(figures.benign)
    print(f"benign captures silent: {silent.right} of {silent.all}; of real timing {silent.real_right} of "
          f"{silent.real}; {figures.alarms} incidents in {figures.hours:.1f} benign hours of real timing", file=out)
    for what, items in (("missed", figures.missed), ("not silent", figures.loud), ("refused", figures.refused)):
        for item in items:
            print(f"{what}: {item}", file=out)


def measure_lab(picket, place, models):
    """(capture, label, found) of each attack run of a lab, and (matched, all) incidents by capture."""
    with open(place / "labels.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    rows, counts = [], {}
    for capture in sorted({run["capture"] for run in runs}):
        incidents, matched = scan(picket, place / capture, models), set()
        for run in runs:
            if run["capture"] != capture:
                continue
            wanted = networks(run["attacker"])
            hits = [k for k, event in enumerate(incidents)
                    if names(event, wanted) and overlaps(event, float(run["start"]), float(run["end"]))]
            matched.update(hits)
            rows.append((capture, run["label"], bool(hits)))
        counts[capture] = len(matched), len(incidents)
    return rows, counts


def evaluate_lab(picket, data, models, out=sys.stdout):
    """Prints a row per attack run of the lab's captures, and the incidents that match no run."""
    rows, counts = measure_lab(picket, data / "lab", models)
    for capture, (matched, count) in counts.items():
        own = [(label, found) for name, label, found in rows if name == capture]
        for label, found in own:
            print(f"{capture}  {label:22} {'found' if found else 'missed'}", file=out)
        print(f"{capture}: {sum(found for _, found in own)} of {len(own)} attack runs found; "
              f"{count - matched} of {count} incidents name no attacker\n", file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--picket", default="build/picket")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    if (args.data / "lab").is_dir():
        evaluate_lab(args.picket, args.data, args.model)
    evaluate(args.picket, args.data, args.split, args.model)


if __name__ == "__main__":
    main()
