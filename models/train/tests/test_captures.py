"""The recipe on the bundled captures: every verb, and how labels become rows and verdicts."""

import csv
import gzip
import os
import pathlib
import re
import shutil
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from picket_train import captures as scans
from picket_train import config
from picket_train.__main__ import main
from picket_train.recipes import captures, captures_rows

ROOT = pathlib.Path(__file__).parents[3]
PICKET = ROOT / "build" / "picket"
needs_picket = pytest.mark.skipif(
    os.environ.get("CI_REQUIRE_TCPDUMP") != "1" and not (PICKET.exists() and shutil.which("tcpdump")),
    reason="needs build/picket and tcpdump")


@pytest.fixture(scope="module")
def told():
    return config.load("captures")


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.setenv("PICKET_ONNXRUNTIME", os.environ.get("PICKET_ONNXRUNTIME") or str(ROOT / "build/lib/libonnxruntime.so"))


def unpack(name, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.decompress((ROOT / "testdata" / f"{name}.pcap.gz").read_bytes()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captures with catalogue and labels, made of the bundled ones."""
    root = tmp_path_factory.mktemp("captures") / "captures"
    unpack("scan", root / "lab" / "A-lan.pcap")
    zero = scans.first_packet(root / "lab" / "A-lan.pcap")
    runs = [("scan_tcp_syn", zero + 4, zero + 4.2, "nmap"), ("icmp_flood", zero + 8, zero + 9, "hping3")]
    with open(root / "lab" / "labels.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["capture", "start", "end", "label", "attacker", "victim", "malicious_bpf", "tool"])
        out.writerows(("A-lan.pcap", start, end, kind, "10.77.1.66", "", "host 10.77.1.66 and ip", tool) for kind, start, end, tool in runs)
    common = {"mal_first_s": 0, "mal_last_s": 9, "confidence": "high", "window_features": "yes", "duration_s": 20, "note": ""}
    rows = []
    for split, label, name, repo, licence, attacker in (
            ("train", "web", "benign", "ours", "MIT", ""), ("train", "voice", "benign", "other", "MIT", ""),
            ("train", "core", "benign", "third", "MIT", ""), ("train", "net", "benign", "elsewhere", "none stated", ""),
            ("train", "brute", "brute", "HatBoy/Pcap-Analyzer", "MIT", "10.77.1.66"),
            ("train", "scan", "udp-scan", "elsewhere", "none stated", "10.77.1.66"),
            ("test", "net", "benign", "elsewhere", "MIT", ""),
            ("test", "invite", "sip-flood", "elsewhere", "MIT", "10.77.1.66")):
        file = f"{split}/{label}/{repo.split('/')[0]}-{name}.pcap"
        unpack(name, root / file)
        rows.append({"file": file, "label": label, "is_attack": "yes" if attacker else "no", "attacker": attacker, "victim": "",
                     "malicious_bpf": f"host {attacker}" if attacker else "", "license": licence, "repo": repo, **common})
    with open(root / "catalogue.csv", "w", newline="") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)
    return root.parent


@needs_picket
def test_verbs(folder, tmp_path):
    text = pathlib.Path(captures.__file__).with_suffix(".toml").read_text()
    for key, value in {"rounds": 5, "epochs": 2, "stretch": "[10.0]", "few": "[5]", "most_rows": 60, "lab": '""'}.items():
        text = re.sub(rf"(?m)^{key} = \S.*$", f"{key} = {value}", text)
    (tmp_path / "small.toml").write_text(text)
    out = tmp_path / "out"
    where = ["captures", "--config", str(tmp_path / "small.toml"), "--data", str(folder), "--out", str(out),
             "--work", str(tmp_path / "work"), "--picket", str(PICKET)]
    for verb in ("explore", "train", "evaluate", "export", "report"):
        assert main([verb, *where]) == 0, verb
    for name in config.load("captures")["models"]:
        assert (out / f"{name}.onnx").stat().st_size > 0
        page = (out / "reports" / f"{name}.md").read_text()
        assert "| invite |" in page and "| net | " in page
        assert (out / "reports" / name / "peaks.png").stat().st_size < 60_000


def tcp(source, destination, flags):
    head = b"\x45" + bytes(8) + b"\x06" + bytes(2) + bytes(source[:4]) + bytes(destination[:4])
    return bytes(12) + b"\x08\x00" + head + bytes(source[4:]) + bytes(destination[4:]) + bytes(9) + bytes([flags]) + bytes(6)


def packets(*bodies):
    blob = struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1)
    for second, body in enumerate(bodies):
        blob += struct.pack("<IIII", 1000 + second, 0, len(body), len(body)) + body
    return captures_rows.Packets.read(blob)


A, B = (10, 0, 0, 1, 9, 9), (10, 0, 0, 2, 0, 80)


def test_plays():
    asked = packets(tcp(A, B, 2), tcp(B, A, 0x12), tcp(A, B, 0x10), tcp(B, A, 0x18))
    again = captures_rows.Packets.read(asked.write(3.0))
    assert [s / 1e9 for s in again.stamps] == [1000, 1003, 1006, 1009]
    assert asked.asked() == [True, False, True, False]
    assert asked.refused().bodies == [asked.bodies[0], tcp(B, A, 0x14)]
    assert packets(tcp(B, A, 0x12), tcp(A, B, 0x10)).asked() == [False, True]
    C = (10, 0, 0, 3, 0, 80)
    assert packets(tcp(A, B, 2), tcp(A, C, 2), tcp(B, A, 0x12)).first(1) == [True, False, True]


def test_first_packet(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(packets(tcp(A, B, 2)).write())
    assert scans.first_packet(path) == 1000
    section = struct.pack("<IIIHHqI", 0x0a0d0d0a, 28, 0x1a2b3c4d, 1, 0, -1, 28)
    interface = struct.pack("<IIHHIHHBxxxHHI", 1, 32, 1, 0, 0, 9, 1, 9, 0, 0, 32)
    ticks = 1000 * 10**9 + 5
    packet = struct.pack("<IIIIIIII", 6, 32, 0, ticks >> 32, ticks & 0xffffffff, 0, 0, 32)
    path.write_bytes(section + interface + packet)
    assert scans.first_packet(path) == pytest.approx(1000.000000005)


def test_incident_counts_only_within_the_labelled_time():
    event = {"event": {"start": "1970-01-01T00:01:40Z", "end": "1970-01-01T00:01:50.5Z"},
             "source": {"ip": "10.0.0.1"}, "destination": {"ip": "10.0.0.2"}}
    assert scans.overlaps(event, 110, 120) and not scans.overlaps(event, 112, 120)
    assert scans.names(event, scans.networks("10.0.0.0/24 or so")) and not scans.names(event, scans.networks("10.1.0.1"))


def test_licences():
    assert captures_rows.accepted("MIT (repo)") and captures_rows.accepted("LGPL-3.0 (repo)")
    assert not captures_rows.accepted("none stated") and not captures_rows.accepted("CC BY-NC-SA 4.0 (non-commercial!)")


def test_no_group_on_both_sides(told):
    frame = pd.DataFrame({"label": [1, 1, 1, 0, 0, 0], "kind": ["scan_udp", "gtpu_inner_scan", "syn_flood", "x", "x", "x"],
                          "tool": ["lab nmap", "lab la-enb", "lab hping3", "a", "a", "b"], "group": ["g", "g", "g", "a", "a", "b"]})
    folds = captures.fold(frame, told)
    assert folds[0] == folds[1] != folds[2] and folds[3] == folds[4]


def test_made_up_attacks_go_beyond_every_normal_row(told):
    names = captures.columns(told)
    normal = np.random.default_rng(0).random((50, len(names))).astype(np.float32) * 9
    made = captures.raised(normal, np.ones(50), names, told)
    assert len(made) == told["raised"]["rows"] * len(told["raised"]["columns"])
    assert ((made > 1.9 * normal.max(axis=0)).sum(axis=1) == 1).all()


def test_made_up_floods_are_of_icmp(told):
    names = captures.columns(told)
    normal = np.zeros((9, len(names)), np.float32)
    assert len(captures.floods(normal, names, told)) == 0
    normal[4, names.index("protocol_type=icmp")] = 1
    normal[4, names.index("count")] = 7
    made = pd.DataFrame(captures.floods(normal, names, told), columns=names)
    assert len(made) == told["raised"]["icmp"]["rows"] and (made["protocol_type=icmp"] == 1).all() and (made["count"] == 7).all()
    assert made["fwd_packets"].min() >= 300 and set(made["bwd_packets"] > 0) == {True, False}
    np.testing.assert_allclose((made["fwd_packets"] + made["bwd_packets"]) / made["flow_duration"], made["packet_rate"], rtol=1e-5)


@needs_picket
def test_rows_and_models(folder, told):
    whole, scan, flood = captures_rows.lab(captures_rows.folder(folder) / "lab")
    small = {**told, "stretch": [10.0]}
    frame = captures_rows.gather(str(PICKET), [whole, scan, *captures_rows.catalogue(folder)[:1]], small, True)
    malicious = frame[frame["label"] == 1]
    assert (malicious[["source", "destination"]] == "10.77.1.66").any(axis=1).all()
    assert not (frame[frame["label"] == 0][["source", "destination"]] == "10.77.1.66").any(axis=1).any()
    sizes = malicious.groupby("play").size()
    assert sizes["few=10 bare=1"] == 10 and sizes["bare=1"] == told["most_rows"]
    assert set(frame[frame["play"] == "refused=1"]["label"]) == {0}
    late = replace(scan, runs=(replace(scan.runs[0], first=1e5),))
    assert len(captures_rows.labelled(str(PICKET), captures_rows.Play(scan)))
    assert not len(captures_rows.labelled(str(PICKET), captures_rows.Play(late)))
    bench = captures.Bench(frame, captures.codes(str(PICKET)), told)
    model = bench.fit({**told["models"]["captures-xgboost"], "rounds": 5}, np.ones(len(frame), bool))
    again = bench.fit({**told["models"]["captures-xgboost"], "rounds": 5}, np.ones(len(frame), bool))
    assert again.booster.save_raw() == model.booster.save_raw()
    assert model.score(bench.rows[bench.label == 1]).mean() > model.score(bench.rows[bench.label == 0]).mean()


class Fitted:
    """A model whose level says whether a row's tool or group ("same"), or a normal row's repository ("near"), was
    among the rows that it was fitted on."""

    def __init__(self, rows):
        self.tools, self.normal = set(rows[:, 0]), set(rows[rows[:, 2] == 0, 1])
        assert self.normal and 1 in rows[:, 2]

    def level(self, rows):
        return np.array([(tool in self.tools) + 2 * (near in self.normal) for tool, near, _ in rows])


class Stub:
    """A captures.Bench that fits Fitted."""

    def __init__(self, frame):
        self.frame, self.label = frame, frame["label"].to_numpy()
        own = frame["tool"].where(frame["label"] == 1, frame["group"])
        self.rows = np.array(list(zip(own, frame["repository"], self.label)), object)

    def fit(self, spec, chosen):
        return Fitted(self.rows[chosen])


def test_held_out_rows_are_not_fitted_on(told):
    tools = [name for names in told["folds"]["tools"] for name in names if not name.startswith("lab la-enb")]
    rows = [(1, "x", tool, "lab", "lab") for tool in tools]
    rows += [(0, "web", "", f"{repository} {number}", repository) for number in range(9)
             for repository in [*told["folds"]["repositories"], "small", "smaller"]]
    plain = pd.DataFrame(rows, columns=["label", "kind", "tool", "group", "repository"])
    benches = {"plain": Stub(plain), "fit": Stub(pd.concat([plain, plain], ignore_index=True))}
    levels = captures.held_out({}, benches, told)
    for name in ("plays", "fold"):
        assert set(levels[name]) <= {0, 2}, name
    normal = plain["label"] == 0
    assert set(levels["repository"][normal]) <= {0, 1} and np.isnan(levels["repository"][~normal]).all()
