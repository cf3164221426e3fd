"""Rows of labelled captures, made by `picket extract`: what the recipe captures trains and measures on.

A row of a capture is malicious when its connection (by Community ID, in a tunnel the inner one) occurs
among the packets that the label's filter cuts out, when it names the attacker or the victim of the
label, and when its time overlaps the labelled seconds. Captures are also played slower or faster, and
with the answers left out, before Picket sees them: so each column, windows and timeouts too, is what a
gateway would have computed.
"""

import csv
import hashlib
import io
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..captures import networks
from ..data import DataError

SLACK = 1e-3  # s, for labels with rounded times


@dataclass(frozen=True)
class Run:
    """One attack of a capture."""

    kind: str
    attacker: str
    victim: str
    bpf: str
    first: float  # s after the capture's first packet
    last: float
    tool: str


@dataclass(frozen=True)
class Capture:
    """A labelled capture. Rows outside its runs are normal where rest is true, else of no label."""

    path: object
    name: str        # file, without folders
    source: str      # repository or lab
    licence: str
    kind: str        # the catalogue's label
    group: str       # what must be on one side of a split: device, or capture
    runs: tuple
    rest: bool
    timing: bool
    stretch: float = 1.0
    one_way: bool = False


def accepted(licence):
    """Whether a licence lets a model trained on rows of the capture ship."""
    return "none stated" not in licence and "NC" not in licence


def catalogue(data, split="train", levels=("high", "medium")):
    """The Captures of catalogue.csv in a split."""
    out = []
    for row in _read(data / "captures" / "catalogue.csv" if (data / "captures").is_dir() else data / "catalogue.csv"):
        if not row["file"].startswith(split + "/") or row["confidence"] not in levels or row["is_attack"] == "fault":
            continue
        name, runs = row["file"].rsplit("/", 1)[1], ()
        if row["is_attack"] == "yes":
            runs = (Run(row["label"], row["attacker"], row["victim"], row["malicious_bpf"],
                        float(row["mal_first_s"] or 0), float(row["mal_last_s"] or row["duration_s"]), row["repo"]),)
        note = row["note"]
        device = note.split(";")[0].removeprefix("device ") if note.startswith("device ") else name
        out.append(Capture(_folder(data) / row["file"], name, row["repo"], row["license"], row["label"],
                           f"{row['repo']} {device}", runs, row["is_attack"] == "no", row["window_features"] != "no"))
    return out


def lab(data):
    """The lab's Captures."""
    folder, runs = _folder(data) / "lab", {}
    for row in _read(folder / "labels.csv"):
        runs.setdefault(row["capture"], []).append(row)
    out = []
    for name, rows in sorted(runs.items()):
        zero = first_packet(folder / name)
        out.append(Capture(folder / name, name, "lab", "made for this project", "lab", "lab", tuple(
            Run(r["label"], r["attacker"], r["victim"], r["malicious_bpf"], float(r["start"]) - zero,
                float(r["end"]) - zero, "lab " + r["tool"].split()[0]) for r in rows), True, True))
    return out


def _folder(data):
    return data / "captures" if (data / "captures").is_dir() else data


def _read(path):
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except OSError as err:
        raise DataError(f"read {path}: {err.strerror}") from err


def first_packet(path):
    """Time of the first packet, in seconds since the epoch."""
    packets = Packets.read(cut(path, ""))
    return packets.times()[0]


def cut(path, expression):
    """The packets of a capture that a tcpdump expression selects, as bytes of a pcap."""
    done = subprocess.run(["tcpdump", "--nano", "-r", str(path), "-w", "-", *([expression] if expression else [])],
                          capture_output=True)
    if done.returncode != 0 and len(done.stdout) < 24:
        raise DataError(f"tcpdump {path}: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    return done.stdout


@dataclass
class Packets:
    """The packets of a pcap of nanoseconds."""

    link: int
    head: bytes
    stamps: list  # ns
    sizes: list   # captured, wire
    bodies: list

    @classmethod
    def read(cls, blob):
        magic, link = struct.unpack_from("<I", blob)[0], struct.unpack_from("<I", blob, 20)[0] & 0xffff
        unit = {0xa1b23c4d: 1, 0xa1b2c3d4: 1000}.get(magic)
        if unit is None:
            raise DataError("tcpdump wrote no little-endian pcap")
        head = struct.pack("<I", 0xa1b23c4d) + blob[4:24]
        self, at = cls(link, head, [], [], []), 24
        while at + 16 <= len(blob):
            sec, part, got, wire = struct.unpack_from("<IIII", blob, at)
            self.stamps.append(sec * 10**9 + part * unit)
            self.sizes.append((got, wire))
            self.bodies.append(blob[at + 16:at + 16 + got])
            at += 16 + got
        return self

    def times(self):
        return [stamp / 1e9 for stamp in self.stamps]

    def write(self, stretch=1.0, one_way=False):
        """The pcap again, played `stretch` times as slowly, answers left out if one_way."""
        out, zero = [self.head], self.stamps[0] if self.stamps else 0
        keep = self.asked() if one_way else [True] * len(self.bodies)
        for stamp, (got, wire), body, wanted in zip(self.stamps, self.sizes, self.bodies, keep):
            if wanted:
                sec, part = divmod(zero + round((stamp - zero) * stretch), 10**9)
                out += [struct.pack("<IIII", sec, part, got, wire), body]
        return b"".join(out)

    def asked(self):
        """Whether each packet goes the way of the first one of its addresses and ports."""
        first, out = {}, []
        for body in self.bodies:
            ends = self._ends(body)
            if ends is None:
                out.append(True)
                continue
            source, destination, syn_ack = ends
            key = (min(source, destination), max(source, destination))
            asker = first.setdefault(key, destination if syn_ack else source)
            out.append(asker == source)
        return out

    def _ends(self, body):
        """(source, destination, whether it is a SYN-ACK) of an IP packet's outer header, or None."""
        at, kind = {1: (14, 12), 113: (16, 14), 276: (20, 0), 101: (0, None), 12: (0, None), 0: (4, None)}.get(self.link, (0, None))
        if kind is not None and len(body) >= at:
            ether = body[kind:kind + 2]
            while self.link == 1 and ether == b"\x81\x00":
                ether, at = body[at + 2:at + 4], at + 4
        ip = body[at:]
        if len(ip) < 20:
            return None
        if ip[0] >> 4 == 4:
            source, destination, proto, rest = ip[12:16], ip[16:20], ip[9], ip[4 * (ip[0] & 15):]
        elif ip[0] >> 4 == 6 and len(ip) >= 40:
            source, destination, proto, rest = ip[8:24], ip[24:40], ip[6], ip[40:]
        else:
            return None
        if proto in (6, 17, 132) and len(rest) >= 4:
            source, destination = source + rest[:2], destination + rest[2:4]
        return source, destination, proto == 6 and len(rest) > 13 and rest[13] & 0x12 == 0x12


def extract(picket, blob):
    """The connection rows of a pcap's bytes, a data frame; times in seconds since the epoch."""
    done = subprocess.run([picket, "extract", "-q", "--row", "connection", "-"], input=blob, capture_output=True)
    if done.returncode != 0:
        raise DataError(f"picket extract: {done.stderr.decode(errors='replace').strip()}")
    frame = pd.read_csv(io.BytesIO(done.stdout), low_memory=False)
    for column in ("start", "end"):
        frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601").astype("int64") / 1e9
    return frame


def labelled(picket, capture):
    """The rows of a capture as it is played: identity, features, and label, kind, tool, capture, source,
    group, stretch, one_way. label is 1 malicious, 0 normal; others are left out."""
    packets = Packets.read(cut(capture.path, ""))
    if not packets.stamps:
        return None
    frame = extract(picket, packets.write(capture.stretch, capture.one_way))
    zero = packets.stamps[0] / 1e9
    label = np.zeros(len(frame), int) if capture.rest else np.full(len(frame), -1)
    kind = np.full(len(frame), capture.kind, object)
    tool = np.full(len(frame), capture.group, object)
    for run in capture.runs:
        malicious = Packets.read(cut(capture.path, run.bpf))
        if not malicious.stamps:
            continue
        ids = set(extract(picket, malicious.write(capture.stretch, capture.one_way))["community_id"])
        first, last = (zero + capture.stretch * s for s in (run.first - SLACK, run.last + SLACK))
        hit = frame["community_id"].isin(ids) & (frame["start"] <= last) & (frame["end"] >= first)
        wanted = networks(run.attacker) + networks(run.victim)
        hit &= _named(frame, wanted)
        label[hit], kind[hit], tool[hit] = 1, run.kind, run.tool
    frame["label"], frame["kind"], frame["tool"] = label, kind, tool
    # A row that is normal, of a device of its own: the group that a split keeps together.
    own = capture.group if capture.source != "lab" else None
    frame["group"] = own if own else "lab " + frame["source"].astype(str)
    frame["repository"], frame["name"] = capture.source, capture.name
    frame["stretch"], frame["one_way"] = capture.stretch, int(capture.one_way)
    frame["timing"] = int(capture.timing)
    return frame[frame["label"] >= 0].reset_index(drop=True)


def _named(frame, wanted):
    """Whether rows name one of the networks; all do where there is none."""
    import ipaddress
    if not wanted:
        return np.ones(len(frame), bool)
    ends = pd.unique(frame[["source", "destination"]].to_numpy().ravel())
    inside = {end for end in ends if any(ipaddress.ip_address(end) in net for net in wanted)}
    return (frame["source"].isin(inside) | frame["destination"].isin(inside)).to_numpy()


def plays(capture, config):
    """The capture as it is, and the other ways in which it is played."""
    yield capture
    if capture.timing:
        for factor in config["stretch"]:
            yield replace(capture, stretch=factor)
    if config["one_way"]:
        yield replace(capture, one_way=True)


def thin(frame, most, seed):
    """At most `most` rows of each capture, play and kind, drawn by lot."""
    if frame is None or not len(frame):
        return frame
    digest = hashlib.sha256(f"{seed} {frame['name'].iloc[0]} {frame['stretch'].iloc[0]} {frame['one_way'].iloc[0]}".encode())
    rng = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
    order = pd.Series(rng.random(len(frame)), index=frame.index)
    place = order.groupby([frame["label"], frame["kind"]]).rank()
    return frame[place <= most]


def gather(picket, captures, config, every_play, workers=2):
    """The rows of captures, in their order; thinned where every_play is set."""
    wanted = [play for capture in captures for play in (plays(capture, config) if every_play else [capture])]

    def one(play):
        frame = labelled(picket, play)
        return thin(frame, config["most_rows"], config["seed"]) if every_play else frame

    with ThreadPoolExecutor(workers) as pool:
        frames = [frame for frame in pool.map(one, wanted) if frame is not None and len(frame)]
    return pd.concat(frames, ignore_index=True)
