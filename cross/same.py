"""Compares what scan --json writes on two machines, events and summary: same.py WANT GOT. All must be equal but for the
version, and for the last digit that is printed of what comes out of the models' float32 arithmetic, where exp and sums
round otherwise."""

import json
import sys

# Of a score 6 digits are printed, of an effect 4, of a risk 1 after the point.
NEAR = {"score": 2e-6, "effect": 2e-6, "risk_score": 0.11}


def same(want, got, key, path):
    if isinstance(want, dict) and isinstance(got, dict) and list(want) == list(got):
        return [e for k in want if k != "version" for e in same(want[k], got[k], k, f"{path}.{k}")]
    if isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        return [e for i, (w, g) in enumerate(zip(want, got)) for e in same(w, g, key, f"{path}[{i}]")]
    near = NEAR.get(key)
    if near and abs(want - got) <= max(near, 2e-4 * abs(want) if key == "effect" else 0):
        return []
    return [] if want == got else [f"{path}: {want!r} there, {got!r} here"]


def main(want, got):
    with open(want) as w, open(got) as g:
        w, g = w.readlines(), g.readlines()
    if len(w) != len(g):
        return [f"{len(w)} lines there, {len(g)} here"]
    return [e for i, (a, b) in enumerate(zip(w, g)) for e in same(json.loads(a), json.loads(b), "", f"line {i + 1}")]


if __name__ == "__main__":
    if errors := main(*sys.argv[1:]):
        sys.exit("\n".join(errors[:5]))
