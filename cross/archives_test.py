#!/usr/bin/python3
"""Feeds archives.py good packages, which must pass, and bad ones, which must not."""

import gzip
import hashlib
import io
import lzma
import os
import struct
import tarfile
import tempfile
import unittest

import archives

FILES = {"usr/bin/picket": 0o755, "usr/share/doc/picket/LICENSE": 0o644, "etc/init.d/picket": 0o755}
DIRS = ["etc", "usr"]
BASE256 = b"\x80\0\0\0\x80\0\x01\xed"  # what Go's archive/tar makes of fs.ModeDir | 0755


def tar(files, dirs=(), prefix="", apk=False):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT if apk else tarfile.GNU_FORMAT) as t:
        for name in dirs:
            m = tarfile.TarInfo(prefix + name)
            m.type, m.mode, m.uname, m.gname = tarfile.DIRTYPE, 0o755, "root", "root"
            t.addfile(m)
        for name, (mode, data) in files.items():
            m = tarfile.TarInfo(prefix + name)
            m.mode, m.size, m.uname, m.gname = mode, len(data), "root", "root"
            if apk:
                m.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(data).hexdigest()}
            t.addfile(m, io.BytesIO(data))
    return out.getvalue()


def data(prefix="", apk=False):
    return tar({n: (m, b"x") for n, m in FILES.items()}, DIRS, prefix, apk)


def patch(archive, at, value):
    """Changes bytes of an archive's first header, and puts the checksum right."""
    h = bytearray(archive[:512])
    h[at : at + len(value)] = value
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h) + archive[512:]


def ar(parts):
    out = b"!<arch>\n"
    for name, content in parts:
        out += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name.encode(), 0, 0, 0, 0o100644, len(content))
        out += content + b"\n" * (len(content) % 2)
    return out


def deb(content):
    names = ("control", "md5sums", "postinst", "prerm", "postrm")
    control = tar({n: (0o755 if "p" in n[:2] else 0o644, b"x") for n in names}, prefix="./")
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": gzip.compress(control), "data.tar.xz": lzma.compress(content)}
    return ar(parts.items())


def ipk(content):
    control = tar({n: (0o755, b"x") for n in ("control", "conffiles", "postinst", "prerm")}, prefix="./")
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": gzip.compress(control), "data.tar.gz": gzip.compress(content)}
    return gzip.compress(tar({n: (0o644, d) for n, d in parts.items()}, prefix="./"))


def apk(content, datahash=None):
    content = gzip.compress(content)
    info = f"pkgname = picket\ndatahash = {datahash or hashlib.sha256(content).hexdigest()}\n".encode()
    control = tar({".PKGINFO": (0o600, info), ".post-install": (0o755, b"x")}, apk=True)
    end = control.rstrip(b"\0")
    return gzip.compress(end + bytes(-len(end) % 512)) + content


def rpm(mode=0o100755, header_mode=None, uid=0, owner="root", extra=()):
    entries = [("./usr/bin/picket", mode, uid)] + [(f"./usr/share/doc/picket/{n}", 0o100644, 0) for n in "abc"] + list(extra)
    payload = b""
    for name, m, u in entries + [("TRAILER!!!", 0, 0)]:
        size = b"x" if m >> 12 == 0o10 else b""
        n = [0, m, u, 0, 1, 0, len(size), 0, 0, 0, 0, len(name) + 1, 0]
        payload += b"070701" + b"".join(b"%08x" % v for v in n) + name.encode() + b"\0"
        payload += bytes(-len(payload) % 4) + size
        payload += bytes(-len(payload) % 4)
    modes = [m for _, m, _ in entries]
    modes[0] = header_mode or modes[0]
    dirs = sorted({os.path.dirname(n)[1:] + "/" for n, _, _ in entries})
    strings = lambda values: b"".join(v.encode() + b"\0" for v in values)
    places = [dirs.index(os.path.dirname(n)[1:] + "/") for n, _, _ in entries]
    tags = [
        (1116, 4, struct.pack(f">{len(entries)}I", *places), len(entries)),
        (1030, 3, struct.pack(f">{len(entries)}H", *(m & 0xFFFF for m in modes)), len(entries)),
        (1039, 8, strings([owner] * len(entries)), len(entries)),
        (1040, 8, strings(["root"] * len(entries)), len(entries)),
        (1117, 8, strings([os.path.basename(n) for n, _, _ in entries]), len(entries)),
        (1118, 8, strings(dirs), len(dirs)),
    ]
    index = store = b""
    for tag, kind, value, count in tags:
        store += bytes(-len(store) % 4)
        index += struct.pack(">IIII", tag, kind, len(store), count)
        store += value
    header = lambda i, s: b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(i) // 16, len(s)) + i + s
    return bytes(96) + header(b"", b"") + header(index, store) + lzma.compress(payload)


class Archives(unittest.TestCase):
    def check(self, end, content):
        with tempfile.NamedTemporaryFile(suffix=end) as f:
            f.write(content)
            f.flush()
            try:
                archives.main([f.name])
            except SystemExit as e:
                return str(e)
            return ""

    def bad(self, end, content, why):
        self.assertIn(why, self.check(end, content))

    def test_good(self):
        good = {".deb": deb(data("./")), ".ipk": ipk(data("./")), ".apk": apk(data(apk=True)), ".rpm": rpm()}
        for end, content in (good | {".tar.gz": gzip.compress(data())}).items():
            self.assertEqual("", self.check(end, content), end)

    def test_headers(self):
        for why, at, value in (
            ("not octal", 100, BASE256),
            ("mode 10755", 100, b"0010755\0"),
            ("mode 777:", 100, b"0000777\0"),
            ("mode 1755", 100, b"0001755\0"),
            ("mode 0 of a directory", 100, b"0000000\0"),
            ("owned by 1000", 108, b"0001750\0"),
            ("owned by 0 b'root", 297, b"wheel\0"),
            ("is absolute", 0, b"/etc\0"),
            ("is absolute", 0, b"a//b\0"),
            ("is absolute", 0, b"../b\0"),
            ("there twice", 0, b"usr\0\0"),
            ("neither file nor directory", 156, b"2"),
            ("no ustar header", 257, b"tar"),
        ):
            for end, wrap in ((".deb", deb), (".ipk", ipk), (".apk", apk), (".tar.gz", gzip.compress)):
                with self.subTest(why=why, end=end):
                    self.bad(end, wrap(patch(data(apk=end == ".apk"), at, value)), why)

    def test_tar(self):
        self.bad(".tar.gz", gzip.compress(data()[: 4096 + 512]), "two empty blocks")
        self.bad(".tar.gz", gzip.compress(data()[:600]), "no ustar")
        self.bad(".tar.gz", gzip.compress(data() + b"x" * 512), "follows the end")
        self.bad(".tar.gz", gzip.compress(data())[:-20], "cut off")
        self.bad(".tar.gz", gzip.compress(b"x" + data()[1:]), "wrong checksum")

    def test_apk(self):
        self.bad(".apk", apk(data(apk=True), "0" * 64), "datahash")
        self.bad(".apk", apk(data()), "its SHA-1")
        self.bad(".apk", gzip.compress(data(apk=True)), "1 gzip streams")
        self.bad(".apk", apk(data("./", apk=True)), "begins with a point")

    def test_rpm(self):
        self.bad(".rpm", rpm(mode=0o20000040755), "neither file nor directory")
        self.bad(".rpm", rpm(header_mode=0o100644), "another one in the header")
        self.bad(".rpm", rpm(uid=1000), "owned by 1000")
        self.bad(".rpm", rpm(owner="me"), "owned by {'me'}")
        self.bad(".rpm", rpm(extra=[("./usr/bin", 0o40755, 0)]), "a directory of the system's")

    def test_control(self):
        self.bad(".deb", deb(data()).replace(b"data.tar.xz ", b"data.tar.gz "), "holds")
        self.bad(".ipk", gzip.compress(data("./")), "holds")


if __name__ == "__main__":
    unittest.main()
