"""NSL-KDD: where it comes from, how it is checked, and what its columns mean.

The raw values that leave this module are those the Go side hands to a model: codes for
categories, seconds, bytes, counts, and rates of two decimals.
"""

import hashlib
import io
import os
import pathlib
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import __version__

MIRROR = "https://raw.githubusercontent.com/defcom17/NSL_KDD/master/"


class DataError(Exception):
    """Data that is missing, unreadable or not what it should be; the message names the way out."""


@dataclass(frozen=True)
class Part:
    """One file of NSL-KDD. The SHA-256 is of the file in the distributed NSL-KDD.zip (LF line
    endings); a mirror's copy is compared after CRLF is turned into LF."""

    file: str
    rows: int
    sha256: str


PARTS = {
    "train": Part("KDDTrain+.txt", 125_973,
                  "1b86d2f957b33082081bba410fe129b475efebcc13c9014c3f447c8271aadf95"),
    "test": Part("KDDTest+.txt", 22_544,
                 "fa46b0935342616aa83b7c2578db355b6a7aaabbc492248172c7a1e8b7ab8f84"),
    "test21": Part("KDDTest-21.txt", 11_850,
                   "746993ac9e25868827cacf09eab450050a2a1056e1ce48a1ad39f5dc801d531d"),
}

BASIC = ["duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land",
         "wrong_fragment", "urgent"]
CONTENT = ["hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell",
           "su_attempted", "num_root", "num_file_creations", "num_shells", "num_access_files",
           "num_outbound_cmds", "is_host_login", "is_guest_login"]
TIME = ["count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate",
        "same_srv_rate", "diff_srv_rate", "srv_diff_host_rate"]
HOST = ["dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate",
        "dst_host_diff_srv_rate", "dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate",
        "dst_host_serror_rate", "dst_host_srv_serror_rate", "dst_host_rerror_rate",
        "dst_host_srv_rerror_rate"]
TELECOM = ["burstiness", "symmetry_ratio", "service_10_traffic", "service_11_traffic",
           "service_12_traffic", "service_13_traffic", "is_signaling"]
COLUMNS = BASIC + CONTENT + TIME + HOST + ["label", "difficulty"]
HEADER = BASIC + TIME + HOST

PROTOCOLS = ["tcp", "udp", "icmp"]
FLAGS = ["SF", "S0", "S1", "S2", "S3", "REJ", "RSTO", "RSTR", "RSTOS0", "SH", "OTH"]
SERVICES = sorted("""
    IRC X11 Z39_50 aol auth bgp courier csnet_ns ctf daytime discard domain domain_u echo eco_i
    ecr_i efs exec finger ftp ftp_data gopher harvest hostnames http http_2784 http_443 http_8001
    imap4 iso_tsap klogin kshell ldap link login mtp name netbios_dgm netbios_ns netbios_ssn
    netstat nnsp nntp ntp_u other pm_dump pop_2 pop_3 printer private red_i remote_job rje shell
    smtp sql_net ssh sunrpc supdup systat telnet tftp_u tim_i time urh_i urp_i uucp uucp_path
    vmnet whois""".split())
CODES = {"protocol_type": PROTOCOLS, "service": SERVICES, "flag": FLAGS}

FAMILIES = {
    "dos": """apache2 back land mailbomb neptune pod processtable smurf teardrop udpstorm worm""",
    "probe": """ipsweep mscan nmap portsweep saint satan""",
    "r2l": """ftp_write guess_passwd httptunnel imap multihop named phf sendmail snmpgetattack
              snmpguess spy warezclient warezmaster xlock xsnoop""",
    "u2r": """buffer_overflow loadmodule perl ps rootkit sqlattack xterm""",
}
FAMILY = {attack: family for family, attacks in FAMILIES.items() for attack in attacks.split()}


def load_nslkdd(path=None, cache="build/data/nsl-kdd", parts=("train", "test", "test21")):
    """Parts of NSL-KDD as data frames of COLUMNS, categories as text, and the SHA-256 by file.

    path is a zip or a folder, or one that holds nsl-kdd/ with either; without one the files are
    downloaded once into cache.
    """
    if path is None:
        path = download_nslkdd(cache, parts)
    path = _inside(pathlib.Path(path))
    frames, hashes = {}, {}
    for name in parts:
        part = PARTS[name]
        raw = _read(path, part.file)
        hashes[part.file] = _check_hash(raw, part)
        frames[name] = parse_nslkdd(raw, part.file, part.rows)
    return frames, hashes


def parse_nslkdd(raw, file, rows=None):
    """The bytes of one NSL-KDD file as a data frame, or a DataError that says what is wrong."""
    try:
        frame = pd.read_csv(io.BytesIO(raw), header=None)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as err:
        raise DataError(f"{file} is not the comma-separated text of NSL-KDD: {err}") from err
    if frame.shape[1] != len(COLUMNS):
        raise DataError(f"{file} has {frame.shape[1]} columns, NSL-KDD has {len(COLUMNS)}")
    if rows is not None and len(frame) != rows:
        raise DataError(f"{file} has {len(frame):,} rows, expected {rows:,}: is it truncated?")
    frame.columns = COLUMNS
    for column in COLUMNS:
        if column in CODES:
            unknown = set(frame[column]) - set(CODES[column])
        elif column == "label":
            unknown = set(frame[column]) - set(FAMILY) - {"normal"}
        else:
            bad = pd.to_numeric(frame[column], errors="coerce").isna()
            unknown = set(frame[column][bad])
        if unknown:
            raise DataError(f"{file}: column {column} holds {sorted(map(str, unknown))[:3]}, "
                            "which NSL-KDD does not know")
    return frame


def download_nslkdd(cache, parts=("train", "test", "test21"), mirror=MIRROR):
    """Downloads what is not there yet into cache and returns it."""
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    for name in parts:
        target = cache / PARTS[name].file
        if not target.exists():
            _download(mirror + target.name.replace("+", "%2B"), target)
    return cache


def features(frame, columns):
    """Raw model input: float32 [rows, columns], a column by its name in the feature dictionary.

    The ratios are computed in float64 from whole seconds and bytes, then rounded to float32.
    """
    out = np.empty((len(frame), len(columns)), np.float32)
    for i, column in enumerate(columns):
        out[:, i] = _feature(frame, column)
    return out


def labels(frame):
    """0 normal, 1 attack: int8 [rows]."""
    return (frame["label"] != "normal").to_numpy(np.int8)


def one_hot(columns, services=SERVICES):
    """columns with each category replaced by one-hot columns such as service=http."""
    names = {**CODES, "service": services}
    return [wide for column in columns
            for wide in ([f"{column}={name}" for name in names[column]]
                         if column in names else [column])]


def _feature(frame, column):
    if "=" in column:
        base, value = column.split("=")
        return frame[base] == value
    if column in CODES:
        return frame[column].map({name: code for code, name in enumerate(CODES[column])})
    if column == "burstiness":
        return frame["srv_count"] / (frame["duration"] + 0.001)
    if column == "symmetry_ratio":
        return frame["src_bytes"] / (frame["dst_bytes"] + 1)
    if column in TELECOM:  # 5G core functions and signalling: NSL-KDD of 1998 has none
        return np.zeros(len(frame))
    return frame[column]


def _inside(path):
    """The folder or zip of NSL-KDD, given that or the folder of all data sets."""
    for inner in (path / "nsl-kdd", path):
        if inner.is_dir():
            found = inner / "NSL-KDD.zip"
            return found if found.is_file() else inner
    return path


def _read(path, file):
    try:
        if path.is_dir():
            return (path / file).read_bytes()
        with zipfile.ZipFile(path) as archive:
            member = next((m for m in archive.namelist() if pathlib.Path(m).name == file), None)
            if member is None:
                raise DataError(f"{path} holds no {file}: give the zip or folder of NSL-KDD")
            return archive.read(member)
    except FileNotFoundError as err:
        raise DataError(f"{err.filename} does not exist: give --data the zip or folder of "
                        "NSL-KDD, or leave it out to download the files") from err
    except zipfile.BadZipFile as err:
        raise DataError(f"{path} is neither a folder nor a readable zip: {err}") from err


def _check_hash(raw, part):
    found = hashlib.sha256(raw.replace(b"\r\n", b"\n")).hexdigest()
    if found != part.sha256:
        print(f"warning: {part.file} has SHA-256 {found}, the copy in NSL-KDD.zip has "
              f"{part.sha256}: rows and columns are checked, figures may differ", file=sys.stderr)
    return found


def _download(url, target, timeout=60):
    request = urllib.request.Request(url, headers={"User-Agent": f"picket-train/{__version__}"})
    fd, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(fd, "wb") as out:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                total = int(answer.headers.get("Content-Length") or 0)
                _copy(answer, out, total, target.name)
            out.flush()
            os.fsync(out.fileno())
        if total and os.path.getsize(partial) != total:
            raise DataError(f"download {url}: {os.path.getsize(partial):,} of {total:,} bytes "
                            "came; try again")
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as err:
        raise DataError(f"download {url}: {err}; download it by hand and give its folder with "
                        "--data") from err
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _copy(source, out, total, name, width=30):
    """Copies with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        print(f"downloading {name}", file=sys.stderr)
        shutil.copyfileobj(source, out)
        return
    done = 0
    while chunk := source.read(1 << 16):
        out.write(chunk)
        done += len(chunk)
        filled = width * done // total if total else 0
        print(f"\r{name} [{'#' * filled:<{width}}] {done / 1e6:.1f} MB", end="", file=sys.stderr)
    print(file=sys.stderr)
