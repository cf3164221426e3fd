"""Rows of labelled captures, made by `picket extract`: what the recipe captures trains and measures on.

A row of a capture is malicious when its connection (by Community ID, in a tunnel the inner one) occurs
among the packets that the label's filter cuts out, when it names the attacker or the victim of the
label, and when its time overlaps the labelled seconds. Captures are also played otherwise (Play) before
Picket sees them: so each column, windows and timeouts too, is what a gateway would have computed.
"""

import csv
import functools
import hashlib
import io
import ipaddress
import pathlib
import struct
import subprocess
from dataclasses import dataclass, fields, replace
from itertools import compress

import numpy as np
import pandas as pd

from ..captures import first_packet, networks, opened
from ..data import DataError

SLACK = 1e-3  # s, for labels with rounded times
MARGIN = 60   # s around an attack of the lab that stay


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
    asides: tuple = ()  # other runs of the same file, taken out; those of runs then stand alone


@dataclass(frozen=True)
class Play:
    """How a capture is played to Picket."""

    capture: Capture
    stretch: float = 1.0   # times as slowly
    one_way: bool = False  # without the answers
    refused: bool = False  # each TCP connection refused
    few: int = 0           # only so many connections of the attack
    bare: bool = False     # nothing but the attack

    @property
    def name(self):
        """What sets the play apart from the capture as it is."""
        return " ".join(f"{f.name}={getattr(self, f.name):g}" for f in fields(self)[1:] if getattr(self, f.name) != f.default)


def accepted(licence):
    """Whether a licence lets a model trained on rows of the capture ship."""
    return "none stated" not in licence and "NC" not in licence


def catalogue(data, split="train", levels=("high", "medium")):
    """The Captures of catalogue.csv in a split."""
    out = []
    for row in _read(folder(data) / "catalogue.csv"):
        if not row["file"].startswith(split + "/") or row["confidence"] not in levels or row["is_attack"] == "fault":
            continue
        name, runs = row["file"].rsplit("/", 1)[1], ()
        if row["is_attack"] == "yes":
            runs = (Run(row["label"], row["attacker"], row["victim"], row["malicious_bpf"],
                        float(row["mal_first_s"] or 0), float(row["mal_last_s"] or row["duration_s"]), row["repo"]),)
        note = row["note"]
        device = note.split(";")[0].removeprefix("device ") if note.startswith("device ") else name
        out.append(Capture(folder(data) / row["file"], name, row["repo"], row["license"], row["label"],
                           f"{row['repo']} {device}", runs, row["is_attack"] == "no", row["window_features"] != "no"))
    return out


def labs(data, config):
    """The Captures of the data folder's lab, and of this package's own."""
    return [c for place in lab_folders(data, config) for c in lab(place)]


def lab_folders(data, config):
    """Where labs are: labels.csv and captures."""
    own = [pathlib.Path(__file__).parents[1] / config["lab"]] if config["lab"] else []
    return [folder(data) / "lab", *own]


def lab(place):
    """A lab's Captures."""
    runs = {}
    for row in _read(place / "labels.csv"):
        runs.setdefault(row["capture"], []).append(row)
    out = []
    for name, rows in sorted(runs.items()):
        zero = first_packet(place / name)
        own = tuple(Run(r["label"], r["attacker"], r["victim"], r["malicious_bpf"], float(r["start"]) - zero,
                        float(r["end"]) - zero, "lab " + r["tool"].split()[0]) for r in rows)
        common = ("lab", "made for this project", "lab", "lab")
        out.append(Capture(place / name, name, *common, (), True, True, own))
        out += [Capture(place / name, f"{name} {run.kind}", *common, (run,), False, True,
                        tuple(r for r in own if r != run)) for run in own]
    return out


def folder(data):
    """The folder of the captures: data itself, or captures in it."""
    return data / "captures" if (data / "captures").is_dir() else data


def _read(path):
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except OSError as err:
        raise DataError(f"read {path}: {err.strerror}") from err


def cut(path, expression):
    """The packets of a capture that a tcpdump expression selects, as bytes of a pcap."""
    with opened(path) as file:
        done = subprocess.run(["tcpdump", "--nano", "-r", "-", "-w", "-", *([expression] if expression else [])],
                              input=file.read(), capture_output=True)
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

    def only(self, keep):
        """The packets whose place in keep is true."""
        return replace(self, **{name: list(compress(getattr(self, name), keep)) for name in ("stamps", "sizes", "bodies")})

    def write(self, stretch=1.0, zero=None):
        """The pcap again, played `stretch` times as slowly from time zero on, by default the first packet's."""
        out, zero = [self.head], self.stamps[0] if zero is None and self.stamps else zero
        for stamp, size, body in zip(self.stamps, self.sizes, self.bodies):
            sec, part = divmod(zero + round((stamp - zero) * stretch), 10**9)
            out += [struct.pack("<IIII", sec, part, *size), body]
        return b"".join(out)

    def refused(self):
        """Every TCP connection refused: of TCP only SYNs, and resets in place of their answers."""
        bodies = [self._refuse(body) for body in self.bodies]
        return replace(self, bodies=bodies).only([body is not None for body in bodies])

    def first(self, count):
        """Whether each packet belongs to the first `count` pairs of addresses and ports."""
        seen, out = {}, []
        for body in self.bodies:
            ends = self._ends(body)
            key = ends and frozenset(ends[:2])
            out.append(seen.setdefault(key, len(seen)) < count)
        return out

    def asked(self):
        """Whether each packet goes the way of the first one of its addresses and ports."""
        first, out = {}, []
        for body in self.bodies:
            ends = self._ends(body)
            if ends is None:
                out.append(True)
                continue
            source, destination, syn_ack, _ = ends
            key = (min(source, destination), max(source, destination))
            asker = first.setdefault(key, destination if syn_ack else source)
            out.append(asker == source)
        return out

    def _refuse(self, body):
        """A packet as it is without a service: TCP's SYN, a reset for its SYN-ACK, None for the rest."""
        found = self._ends(body)
        if found is None or not found[3]:
            return body
        at = len(body) - found[3] + 13  # the flags
        if len(body) <= at or not body[at] & 2:
            return None
        return body[:at] + b"\x14" + body[at + 1:] if body[at] & 0x10 else body

    def _ends(self, body):
        """(source, destination, whether it is a SYN-ACK, octets from the TCP header on or 0) of an IP
        packet's outer header, or None."""
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
        tcp = proto == 6 and len(rest) > 13
        return source, destination, tcp and rest[13] & 0x12 == 0x12, len(rest) if tcp else 0


def extract(picket, blob):
    """The connection rows of a pcap's bytes that `picket scan` would score, a data frame; times in seconds
    since the epoch."""
    done = subprocess.run([picket, "extract", "-q", "--row", "connection", "-"], input=blob, capture_output=True)
    if done.returncode != 0:
        raise DataError(f"picket extract: {done.stderr.decode(errors='replace').strip()}")
    frame = pd.read_csv(io.BytesIO(done.stdout), low_memory=False)
    for column in ("start", "end"):
        frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601").astype("int64") / 1e9
    return frame


@functools.lru_cache(2)
def loaded(path):
    """The Packets of a capture."""
    return Packets.read(cut(path, ""))


@functools.lru_cache(64)
def marks(path, expression):
    """Whether each packet of a capture matches a tcpdump expression."""
    packets, some = loaded(path), Packets.read(cut(path, expression))
    pairs = set(zip(some.stamps, some.bodies))
    return np.array([pair in pairs for pair in zip(packets.stamps, packets.bodies)])


def labelled(picket, play):
    """The rows of a play: identity, features, and label, kind, tool, capture, source, group and how it is
    played. label is 1 malicious, 0 normal; others are left out."""
    capture = play.capture
    packets = loaded(capture.path)
    if not packets.stamps:
        return None
    zero, time = packets.stamps[0], np.array(packets.stamps)

    def during(run, slack):
        return (time >= zero + (run.first - slack) * 1e9) & (time <= zero + (run.last + slack) * 1e9)

    marked = {run: marks(capture.path, run.bpf) & during(run, SLACK) for run in capture.runs}
    keep = np.ones(len(time), bool)
    if capture.asides:
        keep = ~np.any([marks(capture.path, run.bpf) for run in (*capture.runs, *capture.asides)], axis=0)
        for run, mark in marked.items():  # an attack alone, in what is normal around it
            keep = during(run, MARGIN) & (keep | mark)
    if play.one_way:
        keep &= packets.asked()
    if play.few:
        for mark in marked.values():
            keep[np.flatnonzero(mark & keep)] = packets.only(mark & keep).first(play.few)
    if play.bare:
        keep &= np.any(list(marked.values()), axis=0)
    kept = packets.only(keep)
    frame = extract(picket, (kept.refused() if play.refused else kept).write(play.stretch, zero))
    label = np.full(len(frame), 0 if capture.rest else -1)
    kind, tool = np.full(len(frame), capture.kind, object), np.full(len(frame), capture.group, object)
    for run, mark in marked.items():
        ids = set(extract(picket, packets.only(mark & keep).write(play.stretch, zero))["community_id"])
        first, last = (zero / 1e9 + play.stretch * s for s in (run.first - SLACK, run.last + SLACK))
        hit = frame["community_id"].isin(ids) & (frame["start"] <= last) & (frame["end"] >= first)
        hit &= _named(frame, networks(run.attacker) + networks(run.victim))
        label[hit], kind[hit], tool[hit] = 1, run.kind, run.tool
    frame["label"], frame["kind"], frame["tool"] = label, kind, tool
    # A row that is normal, of a device of its own: the group that a split keeps together.
    frame["group"] = capture.group if capture.source != "lab" else "lab " + frame["source"].astype(str)
    frame["repository"], frame["name"], frame["play"] = capture.source, capture.name, play.name
    frame["timing"] = int(capture.timing)
    return frame[frame["label"] >= 0].reset_index(drop=True)


def _named(frame, wanted):
    """Whether rows name one of the networks; all do where there is none."""
    if not wanted:
        return np.ones(len(frame), bool)
    ends = pd.unique(frame[["source", "destination"]].to_numpy().ravel())
    inside = {end for end in ends if any(ipaddress.ip_address(end) in net for net in wanted)}
    return (frame["source"].isin(inside) | frame["destination"].isin(inside)).to_numpy()


def plays(capture, config):
    """The capture as it is, and the other ways in which it is played."""
    yield Play(capture)
    slow = config["stretch"] if capture.timing else []
    for factor in slow:
        yield Play(capture, stretch=factor)
    yield Play(capture, one_way=True)
    if not capture.runs:
        yield Play(capture, refused=True)
    for count in config["few"] if capture.runs else []:
        yield Play(capture, few=count)
        yield Play(capture, few=count, bare=True)
    if capture.asides:
        yield Play(capture, bare=True)


def thin(frame, most, seed):
    """At most `most` rows of each capture, group, play and kind, drawn by lot."""
    if frame is None or not len(frame):
        return frame
    digest = hashlib.sha256(f"{seed} {frame['name'].iloc[0]} {frame['play'].iloc[0]}".encode())
    rng = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
    order = pd.Series(rng.random(len(frame)), index=frame.index)
    place = order.groupby([frame["label"], frame["kind"], frame["group"]]).rank()
    return frame[place <= most]


def gather(picket, captures, config, every_play):
    """The rows of captures, in their order; thinned where every_play is set."""
    wanted = [play for capture in captures for play in (plays(capture, config) if every_play else [Play(capture)])]

    def one(play):
        frame = labelled(picket, play)
        return thin(frame, config["most_rows"], config["seed"]) if every_play else frame

    frames = [frame for frame in map(one, wanted) if frame is not None and len(frame)]
    return pd.concat(frames, ignore_index=True)
