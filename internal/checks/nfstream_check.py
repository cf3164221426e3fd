#!/usr/bin/env python3
"""Compare Picket's flow features with nfstream's, connection by connection.

    python3 -m venv /tmp/nfv && /tmp/nfv/bin/pip install nfstream==6.6.0
    make build && /tmp/nfv/bin/python internal/checks/nfstream_check.py [CAPTURE...]

Without arguments: 30 captures of $PICKET_DATA (shared/data beside the
repository). Compared are the conversations that both programs take for one
connection. docs/checks.md has the figures.
"""
import collections, csv, glob, io, math, os, subprocess, sys

try:
    import nfstream
    from nfstream import NFStreamer
except ImportError:
    sys.exit("skipped: no nfstream (pip install nfstream)")

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PICKET = os.environ.get("PICKET", os.path.join(ROOT, "build", "picket"))
DATA = os.environ.get("PICKET_DATA", os.path.join(ROOT, "..", "shared", "data"))
MS = 1.001e-3  # nfstream's clock has whole milliseconds


def captures():
    out = sorted(glob.glob(os.path.join(DATA, "captures", "lab", "*.pcap")))
    for part in ("train", "test"):
        for i, folder in enumerate(sorted(glob.glob(os.path.join(DATA, "captures", part, "*")))):
            files = sorted(f for f in glob.glob(os.path.join(folder, "*cap")) if os.path.getsize(f) < 3e6)
            if i % 3 == 0 and files:
                out.append(files[len(files) // 2])
    if not out:
        text = "no captures in " + DATA
        if os.environ.get("CI_REQUIRE_DATA") == "1":
            sys.exit(text)
        print("skipped:", text)
    return out


def key(src, sport, dst, dport, proto):
    return (proto,) + tuple(sorted(((src, int(sport)), (dst, int(dport)))))


def picket(path):
    text = subprocess.run([PICKET, "extract", "--group", "flow", "-q", "--max-connections", "1000000", "-o", "-", path],
                          check=True, capture_output=True, text=True).stdout
    flows = collections.defaultdict(list)
    for r in csv.DictReader(io.StringIO(text)):
        if r["ended"] == "true" and r["protocol"] in ("6", "17", "132"):
            flows[key(r["source"], r["source_port"], r["destination"], r["destination_port"], int(r["protocol"]))].append(r)
    return flows


def nf(path, mode):
    # Idle longer than any of Picket's timeouts, and no end for age: a flow is all of a conversation.
    stream = NFStreamer(source=path, statistical_analysis=True, accounting_mode=mode, splt_analysis=8, n_dissections=0,
                        idle_timeout=100_000, active_timeout=10_000_000, n_meters=1, performance_report=0)
    flows = collections.defaultdict(list)
    for f in stream:
        if f.protocol in (6, 17, 132):
            flows[key(f.src_ip, f.src_port, f.dst_ip, f.dst_port, f.protocol)].append(f)
    return flows


def close(a, b, absolute=0.0):
    return math.isclose(a, b, rel_tol=2e-6, abs_tol=absolute)


class Tally:
    def __init__(self):
        self.n, self.ok, self.examples = collections.Counter(), collections.Counter(), collections.defaultdict(list)

    def add(self, name, a, b, absolute, where):
        self.n[name] += 1
        if close(a, b, absolute):
            self.ok[name] += 1
        elif len(self.examples[name]) < 3:
            self.examples[name].append(f"{where}: {a} nfstream {b}")


def main():
    paths = sys.argv[1:] or captures()
    tally, conv = Tally(), collections.Counter()
    for path in paths:
        name = os.path.basename(path)
        ours = picket(path)
        try:
            sizes, wire = nf(path, 3), nf(path, 0)
        except Exception as e:  # a link type that it does not read
            print(f"{name}: nfstream: {e}", file=sys.stderr)
            continue
        conv["captures"] += 1
        for k in ours.keys() | sizes.keys():
            a, b, w = ours.get(k, []), sizes.get(k, []), wire.get(k, [])
            if not b:
                conv["Picket only"] += 1
            elif not a:
                conv["nfstream only"] += 1
            elif len(a) > 1 and len(b) == 1:
                conv["several connections for Picket, one flow for nfstream"] += 1
            elif len(a) != 1 or len(b) != 1 or len(w) != 1:
                conv["cut otherwise"] += 1
            else:
                conv["compared"] += 1
                compare(tally, conv, f"{name} {k}", a[0], b[0], w[0])
            if not a or not b:
                if conv["shown"] < 8:
                    conv["shown"] += 1
                    print("only one has", name, k, file=sys.stderr)
    del conv["shown"]
    print(f"nfstream {nfstream.__version__}")
    for k, v in sorted(conv.items()):
        print(f"  {v:8d} {k}")
    print(f"{'feature':16s} {'alike':>8s} {'of':>8s}  share")
    for k in tally.n:
        print(f"{k:16s} {tally.ok[k]:8d} {tally.n[k]:8d}  {100 * tally.ok[k] / tally.n[k]:.3f} %")
        for e in tally.examples[k]:
            print("   ", e, file=sys.stderr)


def compare(tally, conv, where, r, f, w):
    same = (r["source"], int(r["source_port"])) == (f.src_ip, f.src_port)
    if not same:
        conv["compared, initiator and first sender differ"] += 1
    sides = ("src2dst", "dst2src") if same else ("dst2src", "src2dst")
    tally.add("duration", float(r["flow_duration"]), f.bidirectional_duration_ms / 1e3, MS, where)
    for way, side in zip(("fwd_", "bwd_"), sides):
        get = lambda n, g=f: getattr(g, side + "_" + n)
        n = get("packets")
        tally.add("packets", float(r[way + "packets"]), n, 0, where)
        tally.add("bytes", float(r[way + "bytes"]), get("bytes", w), 0, where)
        for p in ("mean", "std", "min", "max"):
            q = "stddev" if p == "std" else p
            tally.add("payload_" + p, float(r[way + "payload_" + p]), get(q + "_ps"), 1e-9, where)
            if n > 1:
                # Gaps that are each off by up to 1 ms put a deviation off by up to sqrt(2) ms.
                tally.add("gap_" + p, float(r[way + "gap_" + p]), get(q + "_piat_ms") / 1e3, MS * (math.sqrt(2) if p == "std" else 1), where)
        for flag in ("syn", "fin", "rst", "psh", "ack", "urg", "ece", "cwr"):
            tally.add(flag, float(r[way + flag]), get(flag + "_packets"), 0, where)
    for i, (d, s) in enumerate(zip(f.splt_direction, f.splt_ps)):
        size = 0 if d < 0 else -s if bool(d) == same else s
        tally.add("size_1..8", float(r[f"size_{i + 1}"]), size, 0, where)


if __name__ == "__main__":
    main()
