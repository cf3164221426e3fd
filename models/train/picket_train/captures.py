"""What Picket says of labelled captures: the incidents of `picket scan` beside the labels.

Needs nothing but Python's standard library and a built picket:

    python3 models/train/picket_train/captures.py --data DIR [--model NAME] [--split test]

DIR holds catalogue.csv (a row per capture: file, label, is_attack, attacker, victim, mal_first_s,
mal_last_s, confidence, window_features, duration_s) and the captures, and lab/ with labels.csv (a row
per attack run: capture, start, end, label, attacker, victim).
"""

import argparse
import csv
import ipaddress
import json
import pathlib
import re
import subprocess
import sys
from collections import defaultdict
from datetime import datetime

ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?|[0-9a-fA-F]*:[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:/\d+)?")


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


def scan(picket, capture, models):
    """The incidents of a capture: the last event of each. Raises RuntimeError where picket does."""
    command = [picket, "scan", "--json", "--gateway", "evaluation"]
    for model in models:
        command += ["--model", model]
    done = subprocess.run(command + [str(capture)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr.strip())
    incidents = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        incidents[event["picket"]["incident"]] = event
    return list(incidents.values())


def names(event, wanted):
    """Whether an incident names one of the wanted networks; any will do where there are none."""
    sides = [ipaddress.ip_address(event[side]["ip"]) for side in ("source", "destination")]
    return not wanted or any(ip in net for ip in sides for net in wanted)


def overlaps(event, first, last, slack=1.0):
    """Whether an incident's packets overlap the labelled time, in seconds since the epoch."""
    return utc(event["event"]["start"]) <= last + slack and utc(event["event"]["end"]) >= first - slack


def evaluate(picket, data, split, models, out=sys.stdout):
    """Prints a row per kind of attack, and the benign captures that are not silent."""
    catalogue = list(csv.DictReader(open(data / "catalogue.csv", newline="")))
    kinds = defaultdict(lambda: [0, 0, 0, 0])  # found, all; the same with real timing
    silent = benign = alarms = 0
    hours = 0.0
    noisy, missed, refused = defaultdict(lambda: [0, 0]), [], []
    for row in catalogue:
        if not row["file"].startswith(split + "/") or row["confidence"] not in ("high", "medium"):
            continue
        if row["is_attack"] not in ("yes", "no"):
            continue
        try:
            incidents = scan(picket, data / row["file"], models)
        except RuntimeError as err:
            refused.append(f"{row['file']}: {err}")
            incidents = []
        if row["is_attack"] == "no":
            benign += 1
            silent += not incidents
            kind = noisy[row["label"]]
            kind[0] += bool(incidents)
            kind[1] += 1
            if row["window_features"] == "yes" and float(row["duration_s"]) < 86400:
                hours += float(row["duration_s"]) / 3600
                alarms += len(incidents)
            continue
        wanted = networks(row["attacker"]) + networks(row["victim"])
        found = any(names(event, wanted) for event in incidents)
        kind = kinds[row["label"]]
        real = row["window_features"] != "no"
        for k, yes in enumerate((found, True, found and real, real)):
            kind[k] += yes
        if not found:
            missed.append(row["file"])
    print(f"{'attack':28} found  all  real timing", file=out)
    for label, (found, count, real_found, real) in sorted(kinds.items()):
        print(f"{label:28} {found:5} {count:4}  {real_found}/{real}", file=out)
    sums = [sum(kind[k] for kind in kinds.values()) for k in range(4)]
    print(f"{'all':28} {sums[0]:5} {sums[1]:4}  {sums[2]}/{sums[3]}\n", file=out)
    for label, (loud, count) in sorted(noisy.items()):
        print(f"{label:28} {loud} of {count} not silent", file=out)
    print(f"benign captures silent: {silent} of {benign}; "
          f"{alarms} incidents in {hours:.1f} benign hours of real timing", file=out)
    for what, items in (("missed", missed), ("refused", refused)):
        for item in items:
            print(f"{what}: {item}", file=out)


def evaluate_lab(picket, data, models, out=sys.stdout):
    """Prints a row per attack run of the lab's captures, and the incidents that match no run."""
    runs = list(csv.DictReader(open(data / "lab" / "labels.csv", newline="")))
    for capture in sorted({run["capture"] for run in runs}):
        incidents = scan(picket, data / "lab" / capture, models)
        matched, found, count = set(), 0, 0
        for run in runs:
            if run["capture"] != capture:
                continue
            count += 1
            wanted = networks(run["attacker"])
            hits = [k for k, event in enumerate(incidents)
                    if names(event, wanted) and overlaps(event, float(run["start"]), float(run["end"]))]
            matched.update(hits)
            found += bool(hits)
            print(f"{capture}  {run['label']:22} {'found' if hits else 'missed'}", file=out)
        print(f"{capture}: {found} of {count} attack runs found; "
              f"{len(incidents) - len(matched)} of {len(incidents)} incidents name no attacker\n", file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--picket", default="build/picket")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    evaluate_lab(args.picket, args.data, args.model)
    evaluate(args.picket, args.data, args.split, args.model)


if __name__ == "__main__":
    main()
