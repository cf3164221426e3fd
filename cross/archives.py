#!/usr/bin/python3
"""Reads the raw headers of packages, as the strictest of those who install them does: archives.py FILE...

deb, ipk, apk, rpm and tar.gz. What libraries put right in silence is an error here: numbers that are not octal
(apk-tools refuses them, opkg reads them as 0), other owners than root, paths that are absolute, doubled or lead out,
directories that are the system's own and would get another mode. An apk's hashes must be right, too."""

import hashlib
import io
import lzma
import re
import struct
import sys
import zlib

SCRIPTS = {f".{a}-{b}" for a in ("pre", "post") for b in ("install", "upgrade", "deinstall")}
OWN = re.compile(r"(etc|usr/lib|usr/share/doc)/picket(/|$)")  # other directories are the system's


class Bad(Exception):
    pass


def number(field, name):
    """An octal number with nothing but NUL or space behind it."""
    m = re.fullmatch(rb" *([0-7]*)[ \0]*", field)
    if not m:
        raise Bad(f"{name} is {field!r}, not octal")
    return int(m[1] or b"0", 8)


class Entry:
    def __init__(self, name, mode, directory, data, pax):
        self.name, self.mode, self.directory, self.data, self.pax = name, mode, directory, data, pax


def check_entry(e, seen):
    """What holds for an entry of every format."""
    path = e.name.rstrip("/") if e.directory else e.name
    path = path[2:] if path.startswith("./") else path
    if path in ("", ".") and e.directory:
        path = "."
    elif path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise Bad(f"path {e.name!r} is absolute, doubled or leads out")
    if path in seen:
        raise Bad(f"{path} is there twice")
    seen.add(path)
    if e.mode > 0o7777:
        raise Bad(f"{path}: mode {e.mode:o}")
    if e.mode & 0o7022:
        raise Bad(f"{path}: mode {e.mode:o}: others may write, or it runs as another")
    if e.directory and e.mode != 0o755:
        raise Bad(f"{path}: mode {e.mode:o} of a directory")


def tar(data, end=True):
    """The entries of a tar archive. All blocks are looked at; end: two empty ones must be the last."""
    at, entries, seen, pax, long_name = 0, [], set(), {}, None
    while at < len(data) and data[at]:
        h = data[at : at + 512]
        if len(h) < 512 or h[257:262] != b"ustar":
            raise Bad(f"no ustar header at byte {at}")
        raw = h[:100].rstrip(b"\0").decode()
        if sum(h[:148]) + 8 * 32 + sum(h[156:]) != number(h[148:156], "checksum"):
            raise Bad(f"{raw}: wrong checksum")
        fields = {"mode": h[100:108], "uid": h[108:116], "gid": h[116:124], "size": h[124:136], "mtime": h[136:148]}
        fields |= {"device": h[329:337], "minor device": h[337:345]}
        try:
            n = {k: number(v, k) for k, v in fields.items()}
            kind = chr(h[156])
            names = {h[265:297].rstrip(b"\0"), h[297:329].rstrip(b"\0")}
            if n["uid"] or n["gid"] or names - {b"", b"root"}:
                raise Bad(f"owned by {n['uid']} {h[265:297]!r}, {n['gid']} {h[297:329]!r}")
        except Bad as e:
            raise Bad(f"{raw}: {e}") from None
        body = data[at + 512 : at + 512 + n["size"]]
        at += 512 + (n["size"] + 511) // 512 * 512
        if at > len(data):
            raise Bad(f"{raw}: cut off")
        if kind == "x":
            pax = pax_records(body)
            if {"uid", "gid", "uname", "gname", "size"} & pax.keys():
                raise Bad(f"{raw}: owner or size in a PAX header: {pax}")
            continue
        if kind == "L":
            long_name = body.rstrip(b"\0").decode()
            continue
        if kind not in "05":
            raise Bad(f"{raw}: type {kind!r}, neither file nor directory")
        prefix = h[345:500].rstrip(b"\0").decode() if h[257:263] == b"ustar\0" else ""
        name = long_name or pax.get("path") or (f"{prefix}/{raw}" if prefix else raw)
        e = Entry(name, n["mode"], kind == "5", body, pax)
        check_entry(e, seen)
        entries.append(e)
        pax, long_name = {}, None
    if any(data[at:]):
        raise Bad(f"something follows the end at byte {at}")
    if end and len(data) - at < 1024:
        raise Bad("no two empty blocks at the end")
    return entries


def pax_records(body):
    records = {}
    while body:
        length, _, _ = body.partition(b" ")
        record, body = body[len(length) + 1 : int(length) - 1], body[int(length) :]
        key, _, value = record.partition(b"=")
        records[key.decode()] = value.decode()
    return records


def members(data):
    """The parts of concatenated gzip streams: what is in each, and its bytes."""
    while data:
        z = zlib.decompressobj(wbits=31)
        content = z.decompress(data) + z.flush()
        if not z.eof:
            raise Bad("gzip stream cut off")
        yield content, data[: len(data) - len(z.unused_data)]
        data = z.unused_data


def gzip_one(data):
    parts = list(members(data))
    if len(parts) != 1:
        raise Bad(f"{len(parts)} gzip streams, not one")
    return parts[0][0]


def control(entries, need):
    names = {e.name.removeprefix("./") for e in entries if not e.directory}
    if not need <= names:
        raise Bad(f"control holds {sorted(names)}, not {sorted(need)}")
    for e in entries:
        script = e.name.removeprefix("./") in ("preinst", "postinst", "prerm", "postrm")
        if script and not e.mode & 0o100:
            raise Bad(f"{e.name}: not executable")


def deb(data):
    if data[:8] != b"!<arch>\n":
        raise Bad("no ar archive")
    parts, at = [], 8
    while at < len(data):
        h = data[at : at + 60]
        numbers = (h[16:28], h[28:34], h[34:40], h[40:48], h[48:58])
        if h[58:] != b"`\n" or not all(re.fullmatch(rb"[0-9]+ *", n) for n in numbers):
            raise Bad(f"ar header {h!r}")
        if int(h[28:34]) or int(h[34:40]):
            raise Bad(f"ar header {h!r}: owner")
        size = int(h[48:58])
        parts.append((h[:16].decode().strip().rstrip("/"), data[at + 60 : at + 60 + size]))
        at += 60 + size + size % 2
    if [name for name, _ in parts] != ["debian-binary", "control.tar.gz", "data.tar.xz"]:
        raise Bad(f"holds {[name for name, _ in parts]}")
    control(tar(gzip_one(parts[1][1])), {"control", "md5sums", "postinst", "prerm", "postrm"})
    return tar(lzma.decompress(parts[2][1]))


def ipk(data):
    parts = {e.name: e.data for e in tar(gzip_one(data))}
    if list(parts) != ["./debian-binary", "./control.tar.gz", "./data.tar.gz"]:
        raise Bad(f"holds {list(parts)}")
    control(tar(gzip_one(parts["./control.tar.gz"])), {"control", "conffiles", "postinst", "prerm"})
    return tar(gzip_one(parts["./data.tar.gz"]))


def apk(data):
    """As src/tar.c and src/extract_v2.c of apk-tools want it."""
    parts = list(members(data))
    if len(parts) != 2:
        raise Bad(f"{len(parts)} gzip streams, not one of control and one of data")
    head = tar(parts[0][0], end=False)
    if head[0].name != ".PKGINFO" or len(parts[0][0]) >= 1024 and not any(parts[0][0][-1024:]):
        raise Bad("control does not begin with .PKGINFO, or ends as an archive of its own")
    if other := {e.name for e in head[1:]} - SCRIPTS:
        raise Bad(f"control holds {other}")
    info = re.findall(r"^(\w+) = (.*)$", head[0].data.decode(), re.M)
    if ("datahash", hashlib.sha256(parts[1][1]).hexdigest()) not in info:
        raise Bad("datahash is not the SHA-256 of the data")
    files = tar(parts[1][0])
    for e in files + head[1:]:
        if e.name.startswith("."):
            if e not in head:
                raise Bad(f"{e.name}: a name that begins with a point is control's")
        if not e.directory and e.pax.get("APK-TOOLS.checksum.SHA1") != hashlib.sha1(e.data).hexdigest():
            raise Bad(f"{e.name}: its SHA-1 is missing or wrong")
    return files


def rpm_header(data, at):
    """The tags of a header structure, and where it ends."""
    if data[at : at + 3] != b"\x8e\xad\xe8":
        raise Bad(f"no rpm header at byte {at}")
    count, size = struct.unpack(">II", data[at + 8 : at + 16])
    store = data[at + 16 + 16 * count : at + 16 + 16 * count + size]
    tags = {}
    for i in range(count):
        tag, kind, offset, n = struct.unpack(">IIII", data[at + 16 + 16 * i : at + 32 + 16 * i])
        if kind in (6, 8, 9):
            tags[tag] = [s.decode() for s in store[offset:].split(b"\0", n)[:n]]
        elif kind in (3, 4):
            width = {3: "H", 4: "I"}[kind]
            tags[tag] = list(struct.unpack_from(f">{n}{width}", store, offset))
    return tags, at + 16 + 16 * count + size


def rpm(data):
    _, at = rpm_header(data, 96)
    tags, at = rpm_header(data, (at + 7) // 8 * 8)
    names = [tags[1118][d] + b for d, b in zip(tags[1116], tags[1117])]
    if {*tags[1039], *tags[1040]} != {"root"}:
        raise Bad(f"owned by {set(tags[1039])}, {set(tags[1040])}")
    modes = dict(zip(names, tags[1030], strict=True))
    payload, at, entries, seen = io.BytesIO(lzma.decompress(data[at:])), 0, [], set()
    while True:
        h = payload.read(110)
        if h[:6] != b"070701" or not re.fullmatch(rb"[0-9a-fA-F]{104}", h[6:]):
            raise Bad(f"cpio header {h!r}")
        n = [int(h[i : i + 8], 16) for i in range(6, 110, 8)]
        name = payload.read(n[11])[:-1].decode()
        payload.read(-(110 + n[11]) % 4)
        body = payload.read(n[6])
        payload.read(-n[6] % 4)
        if name == "TRAILER!!!":
            break
        mode = n[1]
        if n[2] or n[3]:
            raise Bad(f"{name}: owned by {n[2]}, {n[3]}")
        if mode >> 12 not in (0o10, 0o4):
            raise Bad(f"{name}: mode {mode:o}: neither file nor directory")
        if not name.startswith("./") and not name.startswith("/"):
            raise Bad(f"{name}: neither ./ nor / before it")
        e = Entry(name.lstrip("./"), mode & 0o7777, mode >> 12 == 0o4, body, {})
        check_entry(e, seen)
        if modes.pop("/" + e.name, None) != mode:
            raise Bad(f"{name}: mode {mode:o} is another one in the header")
        if e.directory and not OWN.match(e.name):
            raise Bad(f"{name}: a directory of the system's")
        entries.append(e)
    if modes:
        raise Bad(f"the header has more files: {list(modes)}")
    return entries


FORMATS = {".deb": deb, ".ipk": ipk, ".apk": apk, ".rpm": rpm, ".tar.gz": lambda data: tar(gzip_one(data))}


def check(path):
    with open(path, "rb") as f:
        data = f.read()
    read = next(read for end, read in FORMATS.items() if path.endswith(end))
    try:
        entries = read(data)
    except (zlib.error, lzma.LZMAError, struct.error, IndexError, KeyError, ValueError) as e:
        raise Bad(f"damaged: {e!r}") from e
    if sum(not e.directory for e in entries) < 3:
        raise Bad("hardly a file in it")


def main(paths):
    for path in paths:
        try:
            check(path)
        except Bad as e:
            sys.exit(f"{path}: {e}")


if __name__ == "__main__":
    main(sys.argv[1:])
