"""Makes wavelet_golden.json.gz: what Picket's wavelets and packet rows must be.

    pip install numpy==2.4.6 PyWavelets==1.9.0
    python3 features/testdata/wavelet_golden.py

series: a series each, its coefficients by pywt.wavedec, and by numpy from these the
energies of the details and the features spectral_entropy and frequency_band_energy.
rows: the features of the first packets of captures in testdata, computed from their
octets without any of Picket's code; packet_count_5s is exact here at any rate.
"""

import gzip
import json
import math
import pathlib
import struct
import warnings
from importlib.metadata import version

import numpy as np
import pywt

HERE = pathlib.Path(__file__).parent
CAPTURES = HERE.parent.parent / "testdata"
VERSIONS = {"PyWavelets": "1.9.0", "numpy": "2.4.6"}
LEVELS, SERIES = 5, 64
GTPU = 2152
CAPTURED = [("benign", 700), ("scan", 300), ("flood", 500)]

warnings.filterwarnings("ignore", "Level value of .* is too high")


def measure(x):
    """Returns the coefficients, approximation first and then details from the coarsest,
    the energies from the finest, the entropy and the share of the two finest."""
    levels = min(LEVELS, math.ceil(math.log2(len(x))))
    c = pywt.wavedec(np.asarray(x, float), "db4", mode="periodization", level=levels)
    energies = np.array([np.sum(d**2) for d in c[:0:-1]])
    if levels == 0 or np.ptp(x) == 0:
        return c, energies, 0.0, 0.0
    p = energies / energies.sum()
    p = p[p > 0]
    entropy = -np.sum(p * np.log(p)) / np.log(levels) if levels > 1 else 0.0
    return c, energies, entropy, energies[:2].sum() / energies.sum()


def packets(name):
    """Yields time in ns, wire length, source, ports, protocol, TCP flags of the IPv4
    packets in an Ethernet capture."""
    data = gzip.open(CAPTURES / f"{name}.pcap.gz").read()
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    unit = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}[magic]
    assert link == 1
    at = 24
    while at < len(data):
        s, fraction, captured, wire = struct.unpack_from("<IIII", data, at)
        frame = data[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:14] != b"\x08\x00":
            continue
        ip = frame[14:]
        assert not struct.unpack_from(">H", ip, 6)[0] & 0x3FFF, "a fragment"
        l4 = ip[(ip[0] & 15) * 4 :]
        if ip[9] == 17 and struct.unpack_from(">HH", l4)[1] == GTPU:
            continue  # it is the packet inside that counts
        ports = struct.unpack_from(">HH", l4) if ip[9] in (6, 17) else (0, 0)
        yield (s * 10**9 + fraction * unit, wire, ".".join(map(str, ip[12:16])), *ports, ip[9], l4[13] if ip[9] == 6 else 0)


def flags(proto, f):
    fin, syn, rst, ack = f & 1, f & 2, f & 4, f & 16
    if proto != 6:
        return "none"
    return "RST" if rst else "SYN-ACK" if syn and ack else "SYN" if syn else "FIN" if fin else "ACK" if ack else "none"


def rows(name, n):
    sent = {}
    for time, size, source, sport, dport, proto, f in list(packets(name))[:n]:
        before = sent.setdefault(source, [])
        before.append((time, size))
        times, sizes = zip(*before)
        _, _, entropy, fine = measure(sizes[-SERIES:])
        yield [
            time, source, size, (time - times[-2]) / 1e9 if len(times) > 1 else 0,
            sum(t >= time - 5 * 10**9 for t in times), float(np.mean(sizes[-SERIES:])), round(entropy, 12), round(fine, 12),
            sport, dport, flags(proto, f),
        ]


def series():
    rng = np.random.default_rng(1)
    sizes = {}
    for name, _ in CAPTURED:
        for p in packets(name):
            sizes.setdefault((name, p[2]), []).append(p[1])
    # The sources whose sizes vary most, in turn.
    real = sorted((k for k in sizes if len(sizes[k]) >= SERIES), key=lambda k: (-len(set(sizes[k])), k))[:8]
    for n in range(1, SERIES + 1):
        yield f"random of {n}", [round(v, 3) for v in rng.normal(700, 400, n).tolist()]
        name, source = real[n % len(real)]
        of = sizes[name, source]
        starts = rng.integers(len(of) - n + 1, size=20).tolist()
        at = max(starts, key=lambda a: len(set(of[a : a + n])))
        yield f"{n} packets of {source} in {name}", of[at : at + n]
    for n in (2, 5, 31, 64):
        yield f"{n} alike", [1500] * n
        yield f"{n} in turn", [60 + i % 2 * 1440 for i in range(n)]
        yield f"ramp of {n}", list(range(n))
        yield f"last of {n} differs", [60] * (n - 1) + [1500]


def main():
    for package, wanted in VERSIONS.items():  # pywt.__version__ of 1.9.0 says 1.8.0
        assert version(package) == wanted, f"{package} is {version(package)}, this wants {wanted}"
    out = {"versions": VERSIONS, "series": [], "rows": {name: list(rows(name, n)) for name, n in CAPTURED}}
    for name, x in series():
        c, energies, entropy, fine = measure(x)
        out["series"].append({
            "name": name, "x": x, "approximation": c[0].tolist(), "details": [d.tolist() for d in c[:0:-1]],
            "energies": energies.tolist(), "entropy": float(entropy), "fine": float(fine),
        })
    data = json.dumps(out, separators=(",", ":")).encode()
    (HERE / "wavelet_golden.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))


main()
